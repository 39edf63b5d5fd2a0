"""vLLM on the CPU, by each of its ways to read safetensors files: every weight that it reads, and what the model says then.

`serving.py make DIRECTORY` makes a small Llama in three files; `serving.py PLAIN SHOWN` compares. A model that generates
text does so, any other embeds; both are given token ids, so no tokenizer is needed.
"""

import os
import sys

# The engine runs in this process, keeps a cache of 1 GiB and calls nobody.
os.environ |= {"VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_NO_USAGE_STATS": "1", "VLLM_LOGGING_LEVEL": "ERROR"}

import torch
from compare import apart, described, different, directories, forget, same_by_all, weight_files
from transformers import AutoConfig, LlamaConfig, LlamaForCausalLM
from vllm import LLM, SamplingParams
from vllm.model_executor.model_loader import get_model_loader

TOKENS = 24
PROMPTS = [{"prompt_token_ids": list(range(first, first + 60))} for first in (100, 2000, 5000)]

WAYS = {
    "lazy": {"safetensors_load_strategy": "lazy"},
    "eager": {"safetensors_load_strategy": "eager"},
    "prefetch": {"safetensors_load_strategy": "prefetch"},
    "threads": {"model_loader_extra_config": {"enable_multithread_load": True, "num_threads": 8}},
    "runai_streamer": {"load_format": "runai_streamer", "model_loader_extra_config": {"concurrency": 8}},
}


def make(directory):
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=8192, hidden_size=768, intermediate_size=2048, num_hidden_layers=4, num_attention_heads=12,
        num_key_value_heads=4, max_position_embeddings=512, initializer_range=0.05,
    )  # fmt: skip
    LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(directory, max_shard_size="32MB")


def logprobs(of_tokens):
    """Of each token: the most likely ones and how likely they are. The first of a prompt has none."""
    return [sorted((token, p.logprob) for token, p in those.items()) for those in of_tokens if those]


def says(llm, generates):
    """All that the model says of the prompts, as what can be compared exactly."""
    if not generates:
        return [tuple(answer.outputs.embedding) for answer in llm.embed(PROMPTS, use_tqdm=False)]
    wanted = SamplingParams(temperature=0, max_tokens=TOKENS, logprobs=8, prompt_logprobs=8, ignore_eos=True, detokenize=False)
    answers = llm.generate(PROMPTS, wanted, use_tqdm=False)
    return [(list(a.outputs[0].token_ids), logprobs(a.outputs[0].logprobs), logprobs(a.prompt_logprobs)) for a in answers]


def weights(llm):
    """The weights as vLLM's own loader reads them, since the model keeps them in another layout."""
    config = llm.llm_engine.vllm_config
    loader = get_model_loader(config.load_config)

    def read(model):
        return described(loader.get_all_weights(config.model_config, model))

    return llm.apply_model(read)[0]


def load(directory, way):
    """What the model says, and its weights. Each is read from a file that the kernel knows nothing of."""
    generates = any("CausalLM" in name for name in AutoConfig.from_pretrained(directory).architectures)
    forget(directory)
    llm = LLM(
        str(directory), skip_tokenizer_init=generates, runner="generate" if generates else "pooling", enforce_eager=True,
        enable_prefix_caching=False, max_model_len=128, seed=0, use_tqdm_on_load=False, **WAYS[way],
    )  # fmt: skip
    said = says(llm, generates)
    forget(directory)
    return said, weights(llm)


def main():
    if sys.argv[1] == "make":
        make(sys.argv[2])
        return
    plain, shown = directories()
    weight_files(plain, shown)
    said, read = apart(load, plain, "lazy")
    if len({str(answer) for answer in said}) != len(PROMPTS) or "nan" in str(said):
        different(f"{plain} says the same whatever it is asked, so nothing would be compared")
    there = {way: apart(load, shown, way) for way in WAYS}
    same_by_all(f"the weights of {shown}", dict.fromkeys(WAYS, read), {way: read for way, (_, read) in there.items()})
    same_by_all(f"what {shown} says", dict.fromkeys(WAYS, said), {way: said for way, (said, _) in there.items()})
    print(f"vLLM: {len(read)} weights, and what the model says, are the same by {', '.join(WAYS)}")


if __name__ == "__main__":
    main()
