"""Makes slices.safetensors from the models that scripts/test-data.sh prepares: `make.py DATA`, with its Python."""

import sys
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

data = Path(sys.argv[1])


def tensor(folder, name):
    return load_file(data / folder / "model.safetensors")[name]


conv = tensor("crepe-f32", "conv3.weight")
words = tensor("minilm-f32", "embeddings.word_embeddings.weight")
dense = tensor("minilm-f32", "encoder.layer.2.intermediate.dense.weight")
scaled = lambda dtype: (dense / (dense.abs().max() / torch.finfo(dtype).max)).to(dtype)
rows = dense.abs().amax(dim=-1, keepdim=True)

slices = {
    "conv.bf16": conv[:16].bfloat16(),
    "conv.f32": conv[16:22],
    "dense.bf16": dense[:256].bfloat16(),
    "dense.bf16_in_f32": dense[512:640].bfloat16().float(),
    "dense.f16": dense[256:384].half(),
    "dense.f8_e4m3": scaled(torch.float8_e4m3fn)[:384],
    "dense.f8_e5m2": scaled(torch.float8_e5m2)[384:640],
    "dense.i8": (dense / (rows / 127)).round().to(torch.int8)[640:896],
    "embedding.bf16": words[5000:5300].bfloat16(),
    # About 50 of these rows hold F16 values.
    "embedding.f32": words[949:1109],
    "embedding.f16": tensor("wordllama-f16", "embedding.weight")[1000:1400],
}
save_file({name: slice.contiguous() for name, slice in slices.items()}, Path(__file__).with_name("slices.safetensors"))
