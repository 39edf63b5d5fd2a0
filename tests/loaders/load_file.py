"""safetensors.torch.load_file: every tensor of every file, and the metadata."""

from compare import directories, same, same_tensor, weight_files
from safetensors import safe_open
from safetensors.torch import load_file


def main():
    count = 0
    for plain, shown in weight_files(*directories()):
        a, b = load_file(plain), load_file(shown)
        same(f"the tensor names of {shown}", list(a), list(b))
        for name in a:
            same_tensor(f"{name} of {shown}", a[name], b[name])
        with safe_open(plain, "pt") as a, safe_open(shown, "pt") as b:
            same(f"the metadata of {shown}", a.metadata(), b.metadata())
            count += len(b.keys())
    print(f"load_file: {count} tensors are the same")


main()
