"""Compiles the CUDA kernels without CUDA and without a GPU. Called by kernels.sh, which downloads the compilers.

usage: kernels.py KERNELS PTX_NVRTC NEW_NVRTC PTXAS [--write]

KERNELS is the folder with decode.cu. PTX_NVRTC is the older compiler that makes decode.ptx, so that older drivers can read it; NEW_NVRTC
and PTXAS know the newest GPUs. Without --write, decode.ptx must be what comes of decode.cu.
"""

import ctypes
import pathlib
import re
import subprocess
import sys
import tempfile

# Turing, Ampere, Ada, Hopper, Blackwell.
GPUS = ["sm_75", "sm_80", "sm_86", "sm_89", "sm_90", "sm_100", "sm_120"]
LEAST = "compute_75"


class Nvrtc:
    """NVIDIA's run-time compiler."""

    def __init__(self, library):
        self.library = ctypes.CDLL(library)

    def text(self, program, name):
        """What the compiler has to say under that name."""
        size = ctypes.c_size_t()
        getattr(self.library, f"nvrtcGet{name}Size")(program, ctypes.byref(size))
        text = ctypes.create_string_buffer(size.value)
        getattr(self.library, f"nvrtcGet{name}")(program, text)
        return text.value.decode()

    def compile(self, source, *options):
        """Gives what the compiler said and the PTX; ends when it fails."""
        program = ctypes.c_void_p()
        text = source.read_bytes()
        self.library.nvrtcCreateProgram(ctypes.byref(program), text, source.name.encode(), 0, None, None)
        options = [option.encode() for option in options] + [b"--std=c++17", b"-I" + str(source.parent).encode()]
        failed = self.library.nvrtcCompileProgram(program, len(options), (ctypes.c_char_p * len(options))(*options))
        said = self.text(program, "ProgramLog").strip()
        if failed:
            sys.exit(f"{source}: {' '.join(map(bytes.decode, options))}:\n{said}")
        return said, self.text(program, "PTX")


def usage(said):
    """Registers, shared memory and spilled bytes, of what ptxas says."""
    found = re.search(r"Used (\d+) registers.*?(\d+) bytes smem", said)
    spilled = re.search(r"(\d+) bytes spill stores, (\d+) bytes spill loads", said)
    return f"{found[1]} registers, {found[2]} bytes of shared memory, {spilled[1]} bytes spilled"


def main():
    kernels, ptx_nvrtc, new_nvrtc, ptxas, *write = sys.argv[1:]
    source = pathlib.Path(kernels) / "decode.cu"
    shipped = source.with_suffix(".ptx")
    new = Nvrtc(new_nvrtc)
    for gpu in GPUS:
        said, _ = new.compile(source, f"--gpu-architecture={gpu}", "--ptxas-options=-v")
        others = [line for line in said.splitlines() if line and not line.startswith("ptxas ")]
        if others:
            sys.exit(f"{source}: {gpu}: " + "\n".join(others))
        print(f"{gpu}: {usage(said)}")
    said, ptx = Nvrtc(ptx_nvrtc).compile(source, f"--gpu-architecture={LEAST}")
    if said:
        sys.exit(f"{source}: {LEAST}: {said}")
    if write:
        shipped.write_text(ptx)
    elif shipped.read_text() != ptx:
        sys.exit(f"{shipped} is not what comes of {source.name}: run scripts/kernels.sh --write")
    with tempfile.TemporaryDirectory() as directory:
        for gpu in GPUS:
            made = subprocess.run(
                [ptxas, "-v", f"-arch={gpu}", shipped, "-o", f"{directory}/cubin"], capture_output=True, text=True
            )
            if made.returncode or "warning" in made.stderr:
                sys.exit(f"{shipped}: {gpu}: {made.stderr}")
            print(f"decode.ptx on {gpu}: {usage(made.stderr)}")


if __name__ == "__main__":
    main()
