"""Measures bigsmall and its peers and writes docs/benchmarks.md. Called by bench.sh, which prepares what this needs."""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import commands
import page
import patches
import results
import sizes
import tools
from data_sets import DATA_SETS, GGUF, LARGE, SMALL
from run import Failed, touch_memory

ROOT = results.ROOT
PARTS = ["decode", "encode", "delta", "hash", "commands", "sizes", "gguf", "patches", "mount"]  # speeds first, while the machine is cool


def cargo_bench(name, quick):
    """What `cargo bench --bench NAME` measured, one object a line."""
    with tempfile.TemporaryDirectory() as folder:
        lines = Path(folder) / "lines.json"
        profile, options = (["--profile", "dev"], ["--quick"]) if quick else ([], [])
        command = ["cargo", "bench", "--locked", *profile, "-p", "bigsmall-codec", "--bench", name]
        command += ["--", *options, "--json", str(lines)]
        status = subprocess.run(command, cwd=ROOT, stdout=sys.stderr).returncode
        if status != 0:
            raise Failed(f"{' '.join(command)} ended with {status}")
        return [json.loads(line) for line in lines.read_text().splitlines()]


def measure_mount():
    """The tables that bench-mount.sh prints."""
    script = ROOT / "scripts/bench-mount.sh"
    done = subprocess.run([str(script)], stdout=subprocess.PIPE, text=True)
    if done.returncode != 0:
        raise Failed(f"{script} ended with {done.returncode}")
    return done.stdout


def measure(part, args):
    if part in ("decode", "encode", "delta", "hash"):
        return cargo_bench(part, args.quick)
    if part == "mount":
        return measure_mount()
    with tempfile.TemporaryDirectory(dir="/dev/shm") as tmpfs:
        if part == "sizes":
            return sizes.measure(args.bigsmall, args.peers, args.data, SMALL if args.quick else DATA_SETS, Path(tmpfs))
        if part == "gguf":
            return sizes.measure(args.bigsmall, args.peers, args.data, GGUF[-1:] if args.quick else GGUF, Path(tmpfs))
        if part == "patches":
            return patches.measure(args.bigsmall, args.peers, args.data, Path(tmpfs), args.quick)
        touch_memory()
        data_set, runs = (SMALL[0], 1) if args.quick else (LARGE, commands.RUNS)
        return commands.measure(args.bigsmall, args.peers, args.data, data_set, Path(tmpfs), runs)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--bigsmall", type=Path)
    parser.add_argument("--peers", type=Path, help="the Python environment that the peers are in; none is measured without it")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--results", type=Path, required=True)
    parser.add_argument("--page", type=Path, required=True)
    parser.add_argument("--pictures", type=Path, required=True)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--part", action="append", choices=PARTS)
    parser.add_argument("--render", action="store_true", help="measure nothing")
    args = parser.parse_args()
    tools.check(args.peers)
    known = results.Results(args.results)
    wanted = [] if args.render else args.part or [part for part in PARTS if not (args.quick and part == "mount")]
    for part in wanted:
        print(f"\n==> {part}", file=sys.stderr, flush=True)
        about = results.circumstances(f"scripts/bench.sh --part {part}")
        known.put(part, about, measure(part, args))
    page.render(known.parts, args.page, args.pictures)


if __name__ == "__main__":
    try:
        main()
    except Failed as failed:
        sys.exit(f"bench.sh: {failed}")
