"""Files of the Python package through the mount: PLAIN has their manifests, SHOWN shows them as safetensors files.

safetensors.torch must load each file, find each tensor that the manifest lists, with its shape and bytes, and no other;
where there is an index, each tensor must be in the file that the index says.
"""

import hashlib
import json

import torch
from compare import different, directories, same
from safetensors import deserialize, safe_open
from safetensors.torch import load_file

# What this torch has no tensors of is looked at as bytes alone.
WITHOUT_TORCH = {"F4"}


def md5(data):
    return hashlib.md5(data).hexdigest()


def check(plain, shown):
    wanted = {tensor["name"]: tensor for tensor in json.loads((plain / "manifest.json").read_text())["tensors"]}
    files = sorted(shown.glob("*.safetensors"))
    found = {}
    for path in files:
        found |= {name: tensor for name, tensor in deserialize(path.read_bytes())}
    same(f"the tensors of {shown}", sorted(found), sorted(wanted))
    for name, tensor in wanted.items():
        there = found[name]
        same(f"dtype and shape of {name} of {shown}", (tensor["dtype"], tensor["shape"]), (there["dtype"], there["shape"]))
        same(f"the bytes of {name} of {shown}", tensor["md5"], md5(there["data"]))
    if not WITHOUT_TORCH & {tensor["dtype"] for tensor in wanted.values()}:
        for path in files:
            for name, tensor in load_file(path).items():
                data = tensor.reshape(-1).contiguous().view(torch.uint8).numpy().tobytes() if tensor.numel() else b""
                same(f"{name} of {path} as torch loads it", wanted[name]["md5"], md5(data))
    index = shown / "model.safetensors.index.json"
    if len(files) > 1:
        weight_map = json.loads(index.read_text())["weight_map"]
        same(f"the tensors of {index}", sorted(weight_map), sorted(wanted))
        for name, file in weight_map.items():
            with safe_open(shown / file, "pt") as opened:
                same(f"the shape of {name} of {file}", wanted[name]["shape"], list(opened.get_tensor(name).shape))
    return len(wanted)


def main():
    plain, shown = directories()
    names = sorted(path.name for path in shown.iterdir() if path.is_dir())
    if not names:
        different(f"{shown} shows nothing")
    count = sum(check(plain / name, shown / name) for name in names)
    print(f"upstream: {count} tensors of {len(names)} models are the same")


main()
