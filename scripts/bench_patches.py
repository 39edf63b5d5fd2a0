"""Measures ten fine-tunes of one base as plain files, as containers and as patches: what they take on disk, how long loading all of
them takes, and how much memory the process that serves the mount has had.

    bench_patches.py BIGSMALL BASE.safetensors

The tunes are the base with normal noise added to each weight, rounded to BF16 again: two of five weights change, most by a unit in
the last place. Each way is measured with cold caches, in turn, twice, and the faster is taken.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

TUNES = 10
NOISE = 1e-4


def make_tunes(base, directory):
    tensors = load_file(base)
    for number in range(TUNES):
        generator = torch.Generator().manual_seed(number)

        def tuned(tensor):
            if tensor.dtype != torch.bfloat16:
                return tensor
            return (tensor.float() + NOISE * torch.randn(tensor.shape, generator=generator)).bfloat16()

        save_file({name: tuned(tensor) for name, tensor in tensors.items()}, directory / f"tune{number}.safetensors")


def changed(base, tune):
    base, tune = load_file(base), load_file(tune)
    pairs = [(base[name].view(-1), tune[name].view(-1)) for name in base if base[name].dtype == torch.bfloat16]
    return sum(int((a != b).sum()) for a, b in pairs) / sum(len(a) for a, _ in pairs)


def drop_caches():
    os.sync()
    Path("/proc/sys/vm/drop_caches").write_text("3")


def load_all(directory):
    """Loads each tune as a program would, and touches every page of it."""
    start = time.monotonic()
    for number in range(TUNES):
        with safe_open(directory / f"tune{number}.safetensors", framework="pt") as file:
            for name in file.keys():
                file.get_tensor(name).view(-1).view(torch.uint8)[:: os.sysconf("SC_PAGESIZE")].sum()
    return time.monotonic() - start


def disk(directory):
    return sum(path.stat().st_size for path in directory.iterdir())


def measure_mount(bigsmall, source, options):
    with tempfile.TemporaryDirectory() as mountpoint:
        subprocess.run([bigsmall, "mount", *options, source, mountpoint], check=True)
        try:
            seconds = load_all(Path(mountpoint))
            stats = json.loads(os.getxattr(mountpoint, "user.bigsmall.stats"))
            status = Path(f"/proc/{stats['pid']}/status").read_text()
        finally:
            subprocess.run([bigsmall, "umount", "--lazy", mountpoint], check=True)
    memory = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))
    return seconds, memory / 1000, stats["chunks_decoded"]


def main():
    bigsmall, base = sys.argv[1], Path(sys.argv[2])
    with tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR", "/var/tmp")) as scratch:
        scratch = Path(scratch)
        plain, full, patches, over_plain = [scratch / name for name in ("plain", "full", "patches", "over-plain")]
        for directory in (plain, full, patches, over_plain):
            directory.mkdir()
        make_tunes(base, plain)
        run = lambda *words: subprocess.run([bigsmall, *words], check=True, stdout=subprocess.DEVNULL)
        run("compress", base, "-o", patches / "base.bs")
        for number in range(TUNES):
            tune = plain / f"tune{number}.safetensors"
            run("compress", tune, "-o", full / f"tune{number}.bs")
            run("compress", tune, "--delta-from", base, "-o", patches / f"tune{number}.bs")
            os.link(patches / f"tune{number}.bs", over_plain / f"tune{number}.bs")
        options = ["--base", base]
        ways = [("plain files", plain, None), ("containers", full, []), ("patches, base.bs", patches, [])]
        ways.append(("patches, plain base", over_plain, options))
        best = {}
        for _ in range(2):
            for name, directory, options in ways:
                drop_caches()
                if options is None:
                    measured = (load_all(directory), 0, 0)
                else:
                    measured = measure_mount(bigsmall, directory, options)
                best[name] = min(best.get(name, measured), measured)
        original = disk(plain)
        print(f"{100 * changed(base, plain / 'tune0.safetensors'):.1f} % of the weights changed")
        for name, directory, options in ways:
            seconds, memory, decoded = best[name]
            size = disk(directory) + (base.stat().st_size if name == "patches, plain base" else 0)
            print(
                f"{name:20} {size / 1e6:7.1f} MB ({100 * size / original:5.1f} %)  {seconds:6.2f} s"
                f"  {memory:6.1f} MB of memory  {decoded:6} chunks decoded"
            )


if __name__ == "__main__":
    main()
