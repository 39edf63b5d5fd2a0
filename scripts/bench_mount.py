"""Measures the mount beside a plain file on the same disk. Called by bench-mount.sh, which prepares what this needs.

Everything is measured in one run, the ways in turn, and the best of some rounds is taken: what another process takes away only
ever makes a run slower. `zeros` is the same program serving zeros instead of decoding, the limit of what FUSE can move.
"""

import argparse
import contextlib
import gc
import json
import mmap
import os
import random
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import torch
from safetensors.torch import load_file

MIB = 1 << 20
GB = 1e9
PAGE = 4096


def touch_memory():
    """Makes a hypervisor give the guest its memory now, and not in the middle of a measurement."""
    code = "import os; held = [bytearray(os.urandom(4096)) * (64 << 8) for _ in range(96)]"
    subprocess.run([sys.executable, "-c", code], check=True)


def drop_caches():
    os.sync()
    Path("/proc/sys/vm/drop_caches").write_text("3")


def warm_up(path):
    """Brings a container into the page cache: a mount is measured, not a disk."""
    with open(path, "rb", buffering=0) as file:
        while file.read(8 * MIB):
            pass


def read_range(path, start, end):
    buffer = memoryview(bytearray(MIB))
    file = os.open(path, os.O_RDONLY)
    try:
        at = start
        while at < end:
            at += os.preadv(file, [buffer[: min(MIB, end - at)]], at)
    finally:
        os.close(file)


def sequential(path, readers=1):
    """GB/s of readers that each read their part of the file from its start to its end."""
    size = os.path.getsize(path)
    edges = [size * i // readers for i in range(readers + 1)]
    threads = [threading.Thread(target=read_range, args=(path, *edge)) for edge in zip(edges, edges[1:])]
    start = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return size / (time.perf_counter() - start) / GB


def single_pages(path):
    """GB/s of a reader of a file that the kernel keeps in single pages and not in large folios, as it keeps all of FUSE."""
    file = os.open(path, os.O_RDONLY)
    try:
        os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
        os.posix_fadvise(file, 0, 0, os.POSIX_FADV_RANDOM)
        for at in range(0, os.path.getsize(path), PAGE):
            os.pread(file, PAGE, at)
    finally:
        os.close(file)
    return sequential(path)


def load(path, clone):
    """Seconds of load_file and a byte of each page of each tensor, or a clone of each tensor."""
    start = time.perf_counter()
    for tensor in load_file(path).values():
        if clone:
            tensor.clone()
        else:
            tensor.contiguous().reshape(-1).view(torch.uint8)[::PAGE].sum()
    seconds = time.perf_counter() - start
    gc.collect()
    return seconds


def lazy_load(path):
    """Seconds of load_file alone."""
    start = time.perf_counter()
    tensors = load_file(path)
    seconds = time.perf_counter() - start
    del tensors
    gc.collect()
    return seconds


def random_reads(path, count=2000):
    """Median and 99th percentile of `count` reads of 4 KiB at random places, in microseconds."""
    places = random.Random(7)
    size = os.path.getsize(path)
    file = os.open(path, os.O_RDONLY)
    os.posix_fadvise(file, 0, 0, os.POSIX_FADV_RANDOM)
    taken = []
    for _ in range(count):
        at = places.randrange(size // PAGE) * PAGE
        start = time.perf_counter()
        os.pread(file, PAGE, at)
        taken.append(time.perf_counter() - start)
    os.close(file)
    taken.sort()
    return taken[count // 2] * 1e6, taken[count * 99 // 100] * 1e6


def peak_rss(pid):
    """MB that a process holds in anonymous memory now, and MB that it held at most."""
    status = Path(f"/proc/{pid}/status").read_text()
    return [int(re.search(rf"{key}:\s+(\d+)", status)[1]) * 1024 / 1e6 for key in ("RssAnon", "VmHWM")]


def cpu_seconds(pid):
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Daemon:
    """A mount served by a child in the foreground, so that its process is known."""

    def __init__(self, bigsmall, source, mountpoint, *options, env=None):
        self.mountpoint = mountpoint
        self.bigsmall = bigsmall
        command = [str(bigsmall), "mount", "--foreground", *options, str(source), str(mountpoint)]
        before = os.stat(mountpoint).st_dev
        start = time.perf_counter()
        self.process = subprocess.Popen(command, env={**os.environ, **(env or {})})
        while os.stat(mountpoint).st_dev == before:
            if self.process.poll() is not None:
                sys.exit(f"{' '.join(command)} ended with {self.process.returncode}")
            time.sleep(0.0005)
        self.ready = time.perf_counter() - start

    def __enter__(self):
        return self

    def __exit__(self, *_):
        # What this process has read may be closed a moment later.
        subprocess.run([self.bigsmall, "umount", "--lazy", str(self.mountpoint)], check=True)
        self.process.wait(timeout=30)


class Way:
    """One way to read the file: where it lies, and what has to be mounted first."""

    def __init__(self, name, mounting, path, before=lambda: None):
        self.name, self.mounting, self.path, self.before = name, mounting, path, before


@contextlib.contextmanager
def nothing_to_mount():
    yield None


@contextlib.contextmanager
def lmz_mount(lmz, mountpoint, env):
    subprocess.run([lmz, "mount", "-q", "-d", mountpoint], env=env, check=True, stdout=subprocess.DEVNULL)
    try:
        yield None
    finally:
        subprocess.run([lmz, "umount", mountpoint], env=env, check=True, stdout=subprocess.DEVNULL)


MEASURES = {
    "sequential read, 1 reader, cold": ("GB/s", max, lambda p: sequential(p)),
    "sequential read, 2 readers, cold": ("GB/s", max, lambda p: sequential(p, 2)),
    "load_file, cold": ("s", min, lazy_load),
    "load_file + touch, cold": ("s", min, lambda p: load(p, clone=False)),
    "load_file + clone, cold": ("s", min, lambda p: load(p, clone=True)),
    "random 4 KiB, cold": ("us", min, random_reads),
}
WARM = {
    "sequential read, 1 reader, cold": ("sequential read, 1 reader, warm", "GB/s", max, lambda p: sequential(p)),
    "load_file + touch, cold": ("load_file + touch, warm", "s", min, lambda p: load(p, clone=False)),
    "load_file + clone, cold": ("load_file + clone, warm", "s", min, lambda p: load(p, clone=True)),
}


def measure_file(args, scratch):
    original = args.original
    models, lmz_store, mountpoint = scratch / "models", scratch / "store", scratch / "mnt"
    models.mkdir()
    mountpoint.mkdir()
    container = models / "model.bs"
    subprocess.run([args.bigsmall, "compress", "-q", original, "-o", container], check=True)
    plain = original
    options = args.option or []
    shown = mountpoint / "model.safetensors"
    serve = lambda env=None: Daemon(args.bigsmall, models, mountpoint, *options, env=env)
    into_cache = lambda: warm_up(container)
    ways = [
        Way("plain", nothing_to_mount, plain),
        Way("bigsmall", serve, shown, into_cache),
        Way("bigsmall, cold disk", serve, shown),
        Way("zeros", lambda: serve({"BIGSMALL_SERVE_ZEROS": "1"}), shown, into_cache),
    ]
    for number, other in enumerate(args.against or []):
        ways.append(Way(f"against {number + 1}", lambda o=other: Daemon(o, models, mountpoint, *options), shown, into_cache))
    if args.lmz:
        env = {**os.environ, "LMZ_HOME": str(lmz_store)}
        folder = scratch / "for-lmz"
        folder.mkdir()
        os.link(original, folder / original.name) if os.stat(original).st_dev == os.stat(folder).st_dev else shutil.copy(original, folder)
        subprocess.run([args.lmz, "add", "-q", folder], env=env, check=True)
        at = mountpoint / folder.name / original.name
        stored = lambda: [warm_up(p) for p in lmz_store.rglob("*") if p.is_file()]
        ways.append(Way("lmz", lambda: lmz_mount(args.lmz, mountpoint, env), at, stored))

    results, memory = {}, {}
    for round_ in range(args.rounds):
        for name, (unit, _, measure) in MEASURES.items():
            if args.only and args.only not in name:
                continue
            for way in ways:
                if way.name == "lmz" and round_ > 0:
                    continue  # an order of magnitude slower: one round says enough
                print(f"    {name}: {way.name}", end="", file=sys.stderr, flush=True)
                drop_caches()
                way.before()
                with way.mounting() as daemon:
                    pid = daemon.process.pid if daemon else None
                    cpu = cpu_seconds(pid) if pid else 0
                    result = measure(way.path)
                    results.setdefault((name, unit), {}).setdefault(way.name, []).append(result)
                    cpu = f", {cpu_seconds(pid) - cpu:.2f} s of processor" if pid else ""
                    print(f": {result}{cpu}", file=sys.stderr)
                    if warm := WARM.get(name):
                        again, unit_again, _, measure_again = warm
                        results.setdefault((again, unit_again), {}).setdefault(way.name, []).append(measure_again(way.path))
                    if way.name == "plain" and name in WARM and "sequential" in name:
                        again = "sequential read, 1 reader, warm, plain file in single pages"
                        results.setdefault((again, "GB/s"), {}).setdefault(way.name, []).append(single_pages(way.path))
                    if way.name == "bigsmall":
                        memory[name] = max(memory.get(name, [0, 0]), peak_rss(pid))
    return ways, results, memory


def best(name, values):
    if isinstance(values[0], tuple):
        return tuple(min(column) for column in zip(*values))
    return (max if "sequential" in name else min)(values)


def shown_value(value, unit):
    if isinstance(value, tuple):
        return " / ".join(f"{part:.0f}" for part in value)
    return f"{value:.2f}" if unit == "GB/s" else f"{value:.3f}"


def stat_all(directory, names):
    """Microseconds a stat."""
    start = time.perf_counter()
    for name in names:
        os.stat(directory + name)
    return (time.perf_counter() - start) / len(names) * 1e6


def measure_directory(args, scratch):
    """A directory of 10,000 containers, and how soon a mount of 1,000 can be used."""
    small = scratch / "small.safetensors"
    header = b'{"t":{"dtype":"U8","shape":[4096],"data_offsets":[0,4096]}}     '
    small.write_bytes(len(header).to_bytes(8, "little") + header + os.urandom(4096))
    container = scratch / "small.bs"
    subprocess.run([args.bigsmall, "compress", "-q", small, "-o", container], check=True)
    bytes_, rows = container.read_bytes(), []
    mountpoint = scratch / "many-mnt"
    mountpoint.mkdir()
    for count in (1000, 10_000):
        many, plain = scratch / f"many-{count}", scratch / f"plain-{count}"
        for folder, extension in ((many, "bs"), (plain, "safetensors")):
            folder.mkdir()
            for number in range(count):
                (folder / f"{number:05}.{extension}").write_bytes(bytes_)
        names = [f"/{number:05}.safetensors" for number in range(count)]
        random.Random(3).shuffle(names)
        for _ in range(args.rounds):
            row = {}
            drop_caches()
            with Daemon(args.bigsmall, many, mountpoint) as daemon:
                row["mount ready, ms"] = daemon.ready * 1e3
                start = time.perf_counter()
                listed = len(os.listdir(mountpoint))
                row["readdir, cold disk, ms"] = (time.perf_counter() - start) * 1e3
                assert listed == count, listed
                start = time.perf_counter()
                os.listdir(mountpoint)
                row["readdir again, ms"] = (time.perf_counter() - start) * 1e3
                row["stat, first, us each"] = stat_all(str(mountpoint), names)
                row["stat, again, us each"] = stat_all(str(mountpoint), names)
                row["anonymous memory, MB"], row["peak memory, MB"] = peak_rss(daemon.process.pid)
                time.sleep(0.2)
                before = cpu_seconds(daemon.process.pid)
                time.sleep(2)
                row["idle processor, %"] = (cpu_seconds(daemon.process.pid) - before) / 2 * 100
            with Daemon(args.bigsmall, many, mountpoint) as daemon:
                row["mount ready, files in the page cache, ms"] = daemon.ready * 1e3
                row["stat, containers not opened yet, us each"] = stat_all(str(mountpoint), names)
            drop_caches()
            start = time.perf_counter()
            os.listdir(plain)
            row["plain directory: readdir, cold, ms"] = (time.perf_counter() - start) * 1e3
            stat_all(str(plain), names)
            row["plain directory: stat, warm, us each"] = stat_all(str(plain), names)
            rows.append((count, row))
    return rows


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--bigsmall", type=Path, required=True)
    parser.add_argument("--lmz", type=Path)
    parser.add_argument("--against", type=Path, action="append", help="another build of bigsmall, measured in turn")
    parser.add_argument("--original", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", help="only the measures whose name has this in it; `directory` for those of names")
    parser.add_argument("--option", action="append", help="an option of bigsmall mount")
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.zeros(1).sum()  # what torch sets up on its first operation is not the file's doing
    with tempfile.TemporaryDirectory(dir=os.environ.get("BENCH_DIR")) as scratch:
        scratch = Path(scratch)
        touch_memory()
        print(f"Load average when the run began: {os.getloadavg()[0]:.2f}.\n")
        if args.only != "directory":
            ways, results, memory = measure_file(args, scratch)
            names = [way.name for way in ways]
            print("| | " + " | ".join(names) + " |\n|---|" + "---:|" * len(names))
            for (name, unit), by_way in results.items():
                cells = [shown_value(best(name, by_way[way]), unit) if way in by_way else "" for way in names]
                print(f"| {name}, {unit} | " + " | ".join(cells) + " |")
            print("\n| memory of the process, MB | anonymous | peak |\n|---|---:|---:|")
            for name, (anonymous, peak) in memory.items():
                print(f"| after {name} | {anonymous:.0f} | {peak:.0f} |")
        if not args.only or args.only == "directory":
            rows = measure_directory(args, scratch)
            counts = sorted({count for count, _ in rows})
            print("\n| directory | " + " | ".join(f"{count:,} files" for count in counts) + " |\n|---|" + "---:|" * len(counts))
            for key in rows[0][1]:
                cells = [f"{min(row[key] for c, row in rows if c == count):.1f}" for count in counts]
                print(f"| {key} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
