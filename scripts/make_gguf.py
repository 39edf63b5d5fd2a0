"""Makes a GGUF file that llama.cpp loads: `make_gguf.py MINILM.safetensors OUT.gguf TYPE [PARTS]`, TYPE as llama.cpp calls it (BF16, Q8_0, Q4_K_M).
With PARTS, 2 or more, it makes so many files of a split model, OUT-00001-of-0000N.gguf and so on.

Its weights are those of MiniLM, laid out as a small Llama, since llama.cpp quantises that as it does large ones (rows of MiniLM
are too short for most types). What it says is nonsense, but always the same.
"""

import ctypes
import json
import struct
import sys
import tempfile
from pathlib import Path

import gguf
import llama_cpp
import numpy as np

WIDTH, FEED_FORWARD, LAYERS, HEADS, CONTEXT = 768, 1280, 2, 12, 512
VOCABULARY = 7630

# Those that quantising starts from are written here, the others by llama.cpp.
PLAIN = {"F32": gguf.GGMLQuantizationType.F32, "F16": gguf.GGMLQuantizationType.F16, "BF16": gguf.GGMLQuantizationType.BF16}


def minilm(path):
    """Embeddings and all other matrices, each flat, row after row."""
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    embeddings, others = None, []
    for name, tensor in json.loads(data[8 : 8 + length]).items():
        if name == "__metadata__" or len(tensor["shape"]) != 2 or "position" in name or "token_type" in name or "pooler" in name:
            continue
        begin, end = tensor["data_offsets"]
        values = np.frombuffer(data[8 + length + begin : 8 + length + end], np.float32)
        if "word_embeddings" in name:
            embeddings = values
        else:
            others.append(values)
    return embeddings, np.concatenate(others)


def tensors(path):
    """The tensors of the Llama, by name. Each weight of MiniLM is in one of them, or in none, but never in two."""
    embeddings, others = minilm(path)
    rows = embeddings[: 2 * VOCABULARY * WIDTH].reshape(2, VOCABULARY, WIDTH)
    yield "token_embd.weight", rows[0]
    yield "output_norm.weight", np.ones(WIDTH, np.float32)
    yield "output.weight", rows[1]
    at = 0
    for layer in range(LAYERS):
        shapes = {f"attn_{name}": (WIDTH, WIDTH) for name in ("q", "k", "v", "output")}
        shapes |= {"ffn_gate": (FEED_FORWARD, WIDTH), "ffn_up": (FEED_FORWARD, WIDTH), "ffn_down": (WIDTH, FEED_FORWARD)}
        for name in ("attn_norm", "ffn_norm"):
            yield f"blk.{layer}.{name}.weight", np.ones(WIDTH, np.float32)
        for name, shape in shapes.items():
            count = shape[0] * shape[1]
            yield f"blk.{layer}.{name}.weight", others[at : at + count].reshape(shape)
            at += count
    assert at == others.size, "all of MiniLM is used"


def tokenizer(writer):
    """Bytes, and made-up words for the rest of the vocabulary."""
    kinds = gguf.TokenType
    tokens = [("<unk>", kinds.UNKNOWN), ("<s>", kinds.CONTROL), ("</s>", kinds.CONTROL)]
    tokens += [(f"<0x{byte:02X}>", kinds.BYTE) for byte in range(256)]
    tokens += [(f"\u2581w{number}", kinds.NORMAL) for number in range(VOCABULARY - len(tokens))]
    writer.add_tokenizer_model("llama")
    writer.add_token_list([token for token, _ in tokens])
    writer.add_token_scores([-float(number) for number in range(VOCABULARY)])
    writer.add_token_types([kind for _, kind in tokens])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)


def write(source, target, plain, parts):
    weights = list(tensors(source))
    # The tensors of a part; 0 for one file with all.
    writer = gguf.GGUFWriter(target, "llama", split_max_tensors=-(-len(weights) // parts) if parts > 1 else 0)
    writer.add_name("MiniLM laid out as a Llama")
    writer.add_file_type({"F32": 0, "F16": 1, "BF16": 32}[plain])
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(FEED_FORWARD)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_rope_dimension_count(WIDTH // HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(VOCABULARY)
    tokenizer(writer)
    for name, values in weights:
        kind = PLAIN[plain] if values.ndim > 1 else gguf.GGMLQuantizationType.F32
        shape = values.shape
        data = np.ascontiguousarray(gguf.quants.quantize(values, kind))
        writer.add_tensor(name, data, raw_shape=data.shape if kind == gguf.GGMLQuantizationType.BF16 else shape, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def quantise(source, target, kind, parts):
    parameters = llama_cpp.llama_model_quantize_default_params()
    parameters.ftype = getattr(llama_cpp, f"LLAMA_FTYPE_MOSTLY_{kind}")
    parameters.nthread = 2
    if parts > 1:
        # The others are found by its name, and what is made of each is called after `target` likewise.
        parameters.keep_split = True
        source, target = part(source, 1, parts), target.with_suffix("")
    silent = llama_cpp.llama_log_callback(lambda level, text, data: None)
    llama_cpp.llama_log_set(silent, ctypes.c_void_p(0))
    if llama_cpp.llama_model_quantize(str(source).encode(), str(target).encode(), ctypes.byref(parameters)) != 0:
        sys.exit(f"llama.cpp cannot make {kind} of {source}")


def part(target, number, parts):
    """What llama.cpp calls a file of a split model."""
    return target.with_name(f"{target.stem}-{number:05}-of-{parts:05}.gguf")


def main():
    source, target, kind = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
    parts = int(sys.argv[4]) if len(sys.argv) > 4 else 1
    if kind in PLAIN:
        write(source, target, kind, parts)
        return
    with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
        plain = Path(scratch) / "plain.gguf"
        write(source, plain, "F32", parts)
        quantise(plain, target, kind, parts)


if __name__ == "__main__":
    main()
