"""MLX, which reads safetensors files by its own code, and JAX: every array, and the metadata where it is told."""

import hashlib

import mlx.core
import numpy
from compare import directories, forget, same_by_all, weight_files
from safetensors.flax import load_file


def described(array, values):
    return str(array.dtype), tuple(array.shape), hashlib.sha256(values.tobytes()).hexdigest()


def by_mlx(path):
    arrays, metadata = mlx.core.load(str(path), return_metadata=True)
    # NumPy has no BF16.
    return {name: described(a, numpy.array(a.flatten().view(mlx.core.uint8))) for name, a in arrays.items()}, metadata


def by_jax(path):
    return {name: described(a, numpy.asarray(a)) for name, a in load_file(path).items()}


WAYS = {"MLX": by_mlx, "JAX": by_jax}


def main():
    plain, shown = directories()
    pairs = weight_files(plain, shown)
    wanted = {way: [load(path) for path, _ in pairs] for way, load in WAYS.items()}
    found = {}
    for way, load in WAYS.items():
        forget(shown)
        found[way] = [load(path) for _, path in pairs]
    same_by_all(f"the arrays of {shown}", wanted, found)
    print(f"arrays: {sum(len(file) for file in wanted['JAX'])} are the same by {', '.join(WAYS)}")


if __name__ == "__main__":
    main()
