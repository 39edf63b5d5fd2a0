"""How many bytes z4ai's deltas of all tensors of a model take, each compared with what comes back: python z4ai_delta.py BASE TUNED."""

import sys

import torch
import z4ai
from safetensors import safe_open

DTYPES = {torch.bfloat16: "bf16", torch.float16: "fp16", torch.float32: "fp32"}


def bytes_of(tensor):
    return tensor.contiguous().view(-1).view(torch.uint8).numpy().tobytes()


def main():
    total = 0
    with safe_open(sys.argv[1], "pt") as base, safe_open(sys.argv[2], "pt") as tuned:
        for name in tuned.keys():
            tensor = tuned.get_tensor(name)
            before, after = bytes_of(base.get_tensor(name)), bytes_of(tensor)
            delta = z4ai.compress_delta(after, before, dtype=DTYPES.get(tensor.dtype))
            if bytes(z4ai.decompress_delta(delta, before)) != after:
                sys.exit(f"{name}: other bytes came back")
            total += len(delta)
    print(total)


if __name__ == "__main__":
    main()
