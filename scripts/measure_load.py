"""Prints the seconds that it takes to load a model: `measure_load.py DIRECTORY`.

What is timed is safetensors.torch.load_file on every weight file, then a read of one byte in each page of every tensor,
so that all of the file has been brought in. The start of Python and the imports are not timed.
"""

import sys
import time
from pathlib import Path

import torch
from safetensors.torch import load_file

PAGE = 4096

files = sorted(Path(sys.argv[1]).rglob("*.safetensors"))
assert files, f"{sys.argv[1]} holds no weights"
torch.zeros(1).sum()  # what torch sets up on its first operation is not the file's doing
start = time.perf_counter()
for file in files:
    for tensor in load_file(file).values():
        tensor.contiguous().reshape(-1).view(torch.uint8)[::PAGE].sum()
print(f"{time.perf_counter() - start:.4f}")
