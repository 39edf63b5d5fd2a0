"""What the loader scripts share: `SCRIPT PLAIN SHOWN` compares a model directory with what is shown of it.

Exit codes: 0 the same to the bit, 3 different (so that a difference cannot be confused with Python's 1 for a crash).
"""

import hashlib
import multiprocessing
import os
import sys
from pathlib import Path

DIFFERENT = 3


def directories():
    """The two directories of the command line: the plain one and the one that must look like it."""
    if len(sys.argv) != 3:
        sys.exit(f"usage: {sys.argv[0]} PLAIN SHOWN")
    return Path(sys.argv[1]), Path(sys.argv[2])


def weight_files(plain, shown):
    """Pairs of weight files, (plain, shown). A missing, an additional or no file at all is a difference."""
    wanted = sorted(p.relative_to(plain) for p in plain.rglob("*.safetensors"))
    there = sorted(p.relative_to(shown) for p in shown.rglob("*.safetensors"))
    same(f"the weight files in {shown}", wanted, there)
    if not wanted:
        different(f"{plain} holds no weights, so nothing would be compared")
    return [(plain / name, shown / name) for name in wanted]


def forget(directory):
    """Makes the kernel read the weight files anew, as far as nobody has them mapped."""
    for path in directory.rglob("*.safetensors"):
        with open(path, "rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def apart(function, *arguments):
    """What the function returns in a process of its own, since some engines can be set up only once in one."""
    with multiprocessing.get_context("fork").Pool(1) as pool:
        return pool.apply(function, arguments)


def same_by_all(what, plain, shown):
    """Equal by each way of reading, both being what was found by which. If the ways do not agree, one of them is at fault."""
    differing = [way for way in shown if shown[way] != plain[way]]
    if len(differing) == len(shown):
        different(f"{what}, by {', '.join(differing)}")
    if differing:
        sys.exit(f"{what}: different by {', '.join(differing)} alone")


def different(what):
    print(f"DIFFERENT: {what}", flush=True)
    os._exit(DIFFERENT)  # from a worker process or thread too, whatever else still runs


def same(what, plain, shown):
    if plain != shown:
        different(f"{what}: plain has {plain!r:.200}, shown has {shown!r:.200}")


def same_tensor(what, plain, shown):
    """Equal in dtype, shape and every bit: NaNs and signed zeros count."""
    import torch

    same(f"the dtype of {what}", plain.dtype, shown.dtype)
    same(f"the shape of {what}", tuple(plain.shape), tuple(shown.shape))
    if not torch.equal(bits(plain), bits(shown)):
        different(f"the values of {what}")


def bits(tensor):
    """A tensor as a flat one of bytes."""
    import torch

    return tensor.contiguous().reshape(-1).view(torch.uint8)


def described(tensors):
    """Of each tensor what cannot be the same by chance; they are looked at as they come, since buffers are used again."""
    return {name: (str(t.dtype), tuple(t.shape), hashlib.sha256(bits(t).numpy()).hexdigest()) for name, t in tensors}
