"""The file of results: for each part of the benchmark what was measured, when, where and on what.

A part can be measured again without the others, so each remembers its own circumstances.
"""

import datetime
import json
import os
import platform
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def machine():
    """The processor, the memory and the kernel, in words."""

    def first(path, key):
        lines = Path(path).read_text().splitlines()
        return next((line.partition(":")[2].strip() for line in lines if line.startswith(key)), "")

    flags = first("/proc/cpuinfo", "flags").split()
    vectors = [name for flag, name in [("avx512_vbmi2", "AVX-512 VBMI2"), ("avx512bw", "AVX-512"), ("avx2", "AVX2")] if flag in flags]
    cpu = f"{first('/proc/cpuinfo', 'model name') or platform.machine()} ({vectors[0] if vectors else 'no AVX2'})"
    memory = int(first("/proc/meminfo", "MemTotal").split()[0]) * 1024 / 1e9
    return f"{os.cpu_count()} cores of {cpu}, {memory:.0f} GB of memory, Linux {platform.release().split('-')[0]}"


def revision():
    """The commit of the working tree, marked where files differ from it."""
    git = ["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--abbrev=10"]
    return subprocess.run(git, stdout=subprocess.PIPE, text=True).stdout.strip() or "unknown"


def circumstances(command):
    """When and where something is measured, to be called before it is."""
    return {
        "command": command,
        "date": str(datetime.date.today()),
        "revision": revision(),
        "machine": machine(),
        "load_average": os.getloadavg()[0],
    }


class Results:
    """The parts that have been measured, in a file that is replaced as a whole."""

    def __init__(self, path):
        self.path = path
        self.parts = json.loads(path.read_text()) if path.exists() else {}

    def put(self, part, about, measured):
        self.parts[part] = {**about, "measured": measured}
        aside = self.path.with_suffix(".new")
        self.path.parent.mkdir(parents=True, exist_ok=True)
        aside.write_text(json.dumps(self.parts, indent=1) + "\n")
        aside.replace(self.path)
