"""Several processes at once: some load every tensor, some read through one descriptor that they share."""

import hashlib
import multiprocessing
import os
import random

from compare import DIFFERENT, different, directories, same_tensor, weight_files
from safetensors.torch import load_file

LOADERS = 4
READERS = 4
BLOCK = 100_003  # no multiple of a page, so that blocks of neighbours share pages


def load_everything(files):
    for plain, shown in files:
        wanted, there = load_file(plain), load_file(shown)
        if list(wanted) != list(there):
            different(f"the tensor names of {shown}")
        for name in wanted:
            same_tensor(f"{name} of {shown}", wanted[name], there[name])


def read_shared(opened, seed):
    """Reads every block in an order of its own; the descriptor was opened by the parent and is shared by all."""
    for path, descriptor, digests in opened:
        order = list(range(len(digests)))
        random.Random(seed).shuffle(order)
        for block in order:
            if hashlib.sha256(os.pread(descriptor, BLOCK, block * BLOCK)).digest() != digests[block]:
                different(f"block {block} of {path}, read through a shared descriptor")


def block_digests(path):
    with open(path, "rb") as file:
        return [hashlib.sha256(block).digest() for block in iter(lambda: file.read(BLOCK), b"")]


def main():
    files = weight_files(*directories())
    opened = [(shown, os.open(shown, os.O_RDONLY), block_digests(plain)) for plain, shown in files]
    fork = multiprocessing.get_context("fork")
    processes = [fork.Process(target=load_everything, args=(files,)) for _ in range(LOADERS)]
    processes += [fork.Process(target=read_shared, args=(opened, seed)) for seed in range(READERS)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    codes = [process.exitcode for process in processes]
    if DIFFERENT in codes:
        different(f"what some of {len(codes)} processes read")
    assert not any(codes), f"processes crashed: exit codes {codes}"
    print(f"{LOADERS} loaders and {READERS} readers of shared descriptors at once: all the same")


main()
