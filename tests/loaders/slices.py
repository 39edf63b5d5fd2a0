"""safetensors.safe_open: slices of rows and of columns and whole tensors, all in random order.

Together the row slices cover every element, so that no difference can hide between them.
"""

import random

from compare import directories, same_tensor, weight_files
from safetensors import safe_open

RANDOM = random.Random(7)


def row_slices(rows):
    """A partition of `rows` rows at random places, at most 16 parts."""
    cuts = sorted({0, rows, *(RANDOM.randrange(rows + 1) for _ in range(15))})
    return list(zip(cuts, cuts[1:]))


def requests(shapes):
    """What to ask for, shuffled over all tensors: (name, kind, from, to)."""
    wanted = []
    for name, shape in shapes.items():
        wanted.append((name, "whole", 0, 0))
        if shape:
            wanted += [(name, "rows", start, end) for start, end in row_slices(shape[0])]
        if len(shape) > 1:
            start = RANDOM.randrange(shape[1])
            wanted.append((name, "columns", start, RANDOM.randrange(start, shape[1]) + 1))
    RANDOM.shuffle(wanted)
    return wanted


def answer(file, name, kind, start, end):
    if kind == "whole":
        return file.get_tensor(name)
    if kind == "rows":
        return file.get_slice(name)[start:end]
    return file.get_slice(name)[:, start:end]


def main():
    count = 0
    for plain, shown in weight_files(*directories()):
        with safe_open(plain, "pt") as a, safe_open(shown, "pt") as b:
            shapes = {name: a.get_slice(name).get_shape() for name in a.keys()}
            for request in requests(shapes):
                same_tensor(f"{request} of {shown}", answer(a, *request), answer(b, *request))
                count += 1
    print(f"safe_open: {count} slices in random order are the same")


main()
