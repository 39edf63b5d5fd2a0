"""mmap (shared, private with writes), numpy.memmap and pread: every byte, in pieces of random length and random order."""

import mmap
import os
import random

import numpy
from compare import different, directories, same, weight_files

RANDOM = random.Random(11)


def pieces(length):
    """A partition of `length` bytes into at least 300 pieces at odd places, shuffled."""
    cuts = sorted({0, length, *(RANDOM.randrange(length) for _ in range(300))})
    parts = list(zip(cuts, cuts[1:]))
    RANDOM.shuffle(parts)
    return parts


def compare_pieces(what, plain, read):
    """`read(start, end)` must give the bytes of `plain` for every piece."""
    for start, end in pieces(len(plain)):
        if bytes(read(start, end)) != plain[start:end]:
            different(f"bytes {start}..{end} of {what}")


def shared_map(plain, path):
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, flags=mmap.MAP_SHARED, prot=mmap.PROT_READ) as view:
        same(f"the length of the map of {path}", len(plain), len(view))
        compare_pieces(f"{path} through a shared map", plain, lambda start, end: view[start:end])


def private_map(plain, path):
    """Private pages can be written; what is written stays in this map and reaches neither the file nor another map."""
    flags, prot = mmap.MAP_PRIVATE, mmap.PROT_READ | mmap.PROT_WRITE
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, flags=flags, prot=prot) as view:
        places = [RANDOM.randrange(len(plain)) for _ in range(100)]
        for place in places:
            view[place] = plain[place] ^ 0xFF
        same(f"the bytes written to a private map of {path}", [plain[p] ^ 0xFF for p in places], [view[p] for p in places])
        shared_map(plain, path)
        for place in places:
            view[place] = plain[place]
        compare_pieces(f"{path} through a private map", plain, lambda start, end: view[start:end])


def numpy_map(plain, path):
    for mode in ("r", "c"):
        view = numpy.memmap(path, dtype=numpy.uint8, mode=mode)
        same(f"the length of the numpy map of {path}", len(plain), len(view))
        compare_pieces(f"{path} through numpy.memmap({mode!r})", plain, lambda start, end: view[start:end])


def pread(plain, path):
    descriptor = os.open(path, os.O_RDONLY)

    def read(start, end):
        parts = []
        while start < end:
            part = os.pread(descriptor, end - start, start)
            if not part:
                different(f"{path} ends at {start}, before {end}")
            parts.append(part)
            start += len(part)
        return b"".join(parts)

    compare_pieces(f"{path} through pread", plain, read)
    same(f"a read at the end of {path}", b"", os.pread(descriptor, 10, len(plain)))
    same(f"a read beyond the end of {path}", b"", os.pread(descriptor, 10, len(plain) + 12345))
    same(f"a read across the end of {path}", plain[-3:], os.pread(descriptor, 10, len(plain) - 3))
    os.close(descriptor)


def main():
    total = 0
    for plain_path, path in weight_files(*directories()):
        plain = plain_path.read_bytes()
        same(f"the size of {path}", len(plain), path.stat().st_size)
        for way in (shared_map, private_map, numpy_map, pread):
            way(plain, path)
        total += len(plain)
    print(f"memory maps and pread: {total} bytes are the same, five ways")


main()
