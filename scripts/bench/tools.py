"""The programs that are measured: how each compresses, decompresses and verifies one file."""

import sys
from dataclasses import dataclass, field
from pathlib import Path

THREADS = "2"


@dataclass
class Tool:
    """A program with its options. The commands are functions of file names; None where there is none."""

    name: str
    compress: object
    decompress: object
    verify: object = None
    env: dict = field(default_factory=dict)
    # So slow that one run of it says enough.
    slow: bool = False
    # What else is to be said of it.
    remark: str = ""
    # Whether it is this project's: what it gets wrong ends the benchmark.
    ours: bool = False


def bigsmall(binary, mode=None):
    """This project's; without a mode the default one."""
    name = f"bigsmall {mode}" if mode else "bigsmall"
    options = [mode] if mode else []
    return Tool(
        name,
        lambda source, packed: [binary, "compress", "-q", *options, source, "-o", packed, "--threads", THREADS],
        lambda packed, back: [binary, "decompress", "-q", packed, "-o", back, "--threads", THREADS],
        lambda packed: [binary, "verify", "-q", packed, "--threads", THREADS],
        ours=True,
    )


def lmz(binary, *options):
    return Tool(
        " ".join(["lmz 1.3.0", *options]),
        lambda source, packed: [binary, "compress", "-q", "-j", THREADS, *options, source, packed],
        lambda packed, back: [binary, "decompress", "-q", "-j", THREADS, packed, back],
        lambda packed: [binary, "verify", "-q", "-j", THREADS, packed],
    )


def zipnn(python, dtype):
    script = Path(__file__).with_name("zipnn_file.py")
    command = lambda action, source, target: [python, "-W", "ignore", script, action, dtype, THREADS, source, target]
    return Tool(
        "ZipNN 0.5.4",
        lambda source, packed: command("compress", source, packed),
        lambda packed, back: command("decompress", packed, back),
        remark="its library, called by a script of five lines",
    )


def python_bigsmall(binary):
    return Tool(
        "bigsmall 3.13.1 (Python)",
        lambda source, packed: [binary, "compress", "--no-progress", source, "-o", packed],
        lambda packed, back: [binary, "decompress", "--no-progress", packed, "-o", back],
        lambda packed: [binary, "verify", packed],
        env={"BIGSMALL_DISABLE_VERSION_CHECK": "1"},  # which asks the network
        slow=True,
    )


def zstd(level, slow=False):
    return Tool(
        f"zstd -{level}",
        lambda source, packed: ["zstd", "-q", f"-{level}", f"-T{THREADS}", source, "-o", packed],
        lambda packed, back: ["zstd", "-q", "-d", packed, "-o", back],
        lambda packed: ["zstd", "-q", "-t", packed],
        slow=slow,
        remark="decodes on one thread",
    )


def lz4():
    return Tool(
        "lz4",
        lambda source, packed: ["lz4", "-q", "-1", source, packed],
        lambda packed, back: ["lz4", "-q", "-d", packed, back],
        lambda packed: ["lz4", "-q", "-t", packed],
        remark="one thread",
    )


def cp():
    """Not a compressor: what it costs to move the bytes."""
    return Tool("cp", lambda source, packed: ["cp", source, packed], lambda packed, back: ["cp", packed, back])


# The dtypes as ZipNN spells them; it knows no integers.
ZIPNN_DTYPES = {
    "BF16": "bfloat16",
    "F16": "float16",
    "F32": "float32",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2",
}


def peers(folder, dtype):
    """The peers of weights of a dtype, from the Python environment in `folder`; none without one."""
    if folder is None:
        return []
    tools = [lmz(folder / "bin/lmz")]
    if dtype in ZIPNN_DTYPES:
        tools.append(zipnn(folder / "bin/python", ZIPNN_DTYPES[dtype]))
    return [*tools, python_bigsmall(folder / "bin/bigsmall")]


def check(folder):
    """Stops where the environment of the peers is not what it should be."""
    for program in ("lmz", "bigsmall", "python") if folder else ():
        if not (folder / "bin" / program).exists():
            sys.exit(f"{folder / 'bin' / program} is missing: delete {folder} and run scripts/bench.sh again")
