"""What patches.py needs torch for, in processes of their own, since theirs would count in what the measured commands take.

    tunes.py noise BASE FOLDER COUNT     writes tune0.safetensors ... there: the base with normal noise added
    tunes.py changed BASE TUNED          the part of the weights that are others
    tunes.py load FOLDER COUNT           seconds that loading all of them takes, each of their pages touched
"""

import os
import sys
import time
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

# How far weights are moved: two of five change, most by a unit in the last place.
NOISE = 1e-4


def noise(base, folder, count):
    tensors = load_file(base)
    for number in range(int(count)):
        generator = torch.Generator().manual_seed(number)

        def moved(tensor):
            if tensor.dtype != torch.bfloat16:
                return tensor
            return (tensor.float() + NOISE * torch.randn(tensor.shape, generator=generator)).bfloat16()

        save_file({name: moved(tensor) for name, tensor in tensors.items()}, Path(folder) / f"tune{number}.safetensors")


def changed(base, tuned):
    before, after = load_file(base), load_file(tuned)
    pairs = [(before[name], after[name]) for name in before]
    print(sum((a != b).sum().item() for a, b in pairs) / sum(a.numel() for a, _ in pairs))


def load(folder, count):
    start = time.monotonic()
    for number in range(int(count)):
        with safe_open(Path(folder) / f"tune{number}.safetensors", framework="pt") as file:
            for name in file.keys():
                file.get_tensor(name).view(-1).view(torch.uint8)[:: os.sysconf("SC_PAGESIZE")].sum()
    print(time.monotonic() - start)


if __name__ == "__main__":
    {"noise": noise, "changed": changed, "load": load}[sys.argv[1]](*sys.argv[2:])
