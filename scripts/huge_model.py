"""Mounts a model of 110 GB and reads it at random: `huge_model.py BIGSMALL SCRATCH`.

The original is a sparse file with a header that describes 70 layers and real weights here and there; the rest is zeros, which
take no room in a container. So the index is as long as that of any such model while the data fit anywhere.
"""

import json
import os
import random
import resource
import subprocess
import sys
import time
from pathlib import Path

LAYERS, TENSORS, TENSOR_LEN = 70, 7, 1 << 28
PIECE = 4 << 20
PAGE = 4096


def main():
    bigsmall, scratch = sys.argv[1], Path(sys.argv[2])
    if len(sys.argv) != 3:
        sys.exit(f"usage: {sys.argv[0]} BIGSMALL SCRATCH")
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    header, end = {}, 0
    for layer in range(LAYERS):
        for tensor in range(TENSORS):
            shape = [16384, TENSOR_LEN // 2 // 16384]
            header[f"layers.{layer}.{tensor}"] = {"dtype": "BF16", "shape": shape, "data_offsets": [end, end + TENSOR_LEN]}
            end += TENSOR_LEN
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    start = 8 + len(text)
    original, models, mountpoint = scratch / "model.safetensors", scratch / "huge", scratch / "mnt"
    models.mkdir()
    weights = os.urandom(PIECE)  # stored as they are: the worst case for a read
    with open(original, "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(start + end)
        for tensor in range(0, LAYERS * TENSORS, 5):
            file.seek(start + tensor * TENSOR_LEN + TENSOR_LEN // 3)
            file.write(weights)
    begun = time.perf_counter()
    subprocess.run([bigsmall, "compress", "-q", original, "-o", models / "model.bs"], check=True)
    size, stored = original.stat().st_size, (models / "model.bs").stat().st_size
    print(f"{size / 1e9:.1f} GB compressed to {stored / 1e6:.1f} MB in {time.perf_counter() - begun:.0f} s")

    begun = time.perf_counter()
    subprocess.run([bigsmall, "mount", models, mountpoint], check=True)
    try:
        names = os.listdir(mountpoint)
        assert names == ["model.safetensors"], names
        assert os.stat(mountpoint / names[0]).st_size == size
        print(f"mounted and listed in {(time.perf_counter() - begun) * 1e3:.1f} ms")
        shown, plain = os.open(mountpoint / names[0], os.O_RDONLY), os.open(original, os.O_RDONLY)
        os.posix_fadvise(shown, 0, 0, os.POSIX_FADV_RANDOM)
        taken, places = [], random.Random(1)
        for number in range(4000):
            at = places.randrange(size // PAGE) * PAGE
            if number % 2:
                tensor = places.randrange(0, LAYERS * TENSORS, 5)
                at = start + tensor * TENSOR_LEN + TENSOR_LEN // 3 + places.randrange(PIECE - PAGE)
            begun = time.perf_counter()
            page = os.pread(shown, PAGE, at)
            taken.append(time.perf_counter() - begun)
            assert page == os.pread(plain, PAGE, at), f"wrong bytes at {at}"
        taken.sort()
        print(f"random 4 KiB: median {taken[2000] * 1e6:.0f} us, 99 % within {taken[3960] * 1e6:.0f} us")
        os.close(shown)
        print(subprocess.run([bigsmall, "mounts"], check=True, stdout=subprocess.PIPE, text=True).stdout, end="")
    finally:
        subprocess.run([bigsmall, "umount", mountpoint], check=True)


main()
