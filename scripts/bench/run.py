"""Running commands, and what they cost."""

import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass


class Failed(Exception):
    """A command that ended with an error; what it said."""


@dataclass
class Cost:
    """What one run of a command cost."""

    seconds: float
    peak_bytes: int


def note(text):
    print(f"    {text}", file=sys.stderr, flush=True)


def run(command, env=None):
    """Runs a command to its end and says what it cost: its children and threads included."""
    command = [str(part) for part in command]
    with tempfile.TemporaryFile() as log:
        start = time.perf_counter()
        child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env={**os.environ, **(env or {})})
        _, status, usage = os.wait4(child.pid, 0)
        seconds = time.perf_counter() - start
        child.returncode = os.waitstatus_to_exitcode(status)
        if child.returncode != 0:
            log.seek(0)
            said = log.read().decode(errors="replace").strip()
            raise Failed(f"{' '.join(command)} ended with {child.returncode}\n{said}")
    return Cost(seconds, usage.ru_maxrss * 1024)


def touch_memory():
    """Makes a hypervisor give the guest its memory now, and not in the middle of a measurement.

    In a process of its own: a child inherits the peak memory of the process that it was forked from.
    """
    code = "import os; held = [bytearray(os.urandom(4096)) * (64 << 8) for _ in range(64)]"
    subprocess.run([sys.executable, "-c", code], check=True)


def same(a, b):
    """Whether two files hold the same bytes."""
    return subprocess.run(["cmp", "-s", str(a), str(b)]).returncode == 0
