#!/usr/bin/env bash
# Compiles the CUDA kernels for every kind of GPU that they are for, without a GPU, prints what they use of it, and checks that the
# assembly that is shipped is what comes of them.
#
#   scripts/kernels.sh [--write]      with --write, the assembly is made anew
set -euo pipefail
. "$(dirname "$0")/lib.sh"

case "${1:-}" in
    '' | --write) ;;
    *) sed -n '2,5s/^# \{0,1\}//p' "$0"; [ "$1" = --help ] && exit 0 || exit 2 ;;
esac

need_python
need flock util-linux
need unzip unzip
mkdir -p "$CACHE"

# wheel PACKAGE VERSION: downloads a wheel and unpacks it, once; prints where.
wheel() {
    local folder=$CACHE/$1-$2
    exec 8>"$folder.lock"
    flock 8
    if [ ! -e "$folder" ]; then
        rm -rf "$folder.part"
        quietly python3 -m pip download --no-deps --only-binary :all: --dest "$folder.part/wheel" "$1==$2" ||
            die "pip could not download $1. Run me again once that is mended"
        unzip -q "$folder.part"/wheel/*.whl -d "$folder.part"
        rm -r "$folder.part/wheel"
        mv "$folder.part" "$folder"
    fi
    exec 8>&-
    printf '%s\n' "$folder"
}

# The older compiler writes assembly that drivers of CUDA 12.0 and later read; the newer one knows the newest GPUs.
old=$(wheel nvidia-cuda-nvrtc-cu12 12.0.140)
new=$(wheel nvidia-cuda-nvrtc-cu12 12.9.86)
nvcc=$(wheel nvidia-cuda-nvcc-cu12 12.9.86)
ptxas=$nvcc/nvidia/cuda_nvcc/bin/ptxas
chmod +x "$ptxas"
# NVRTC looks for a part of its own by name.
export LD_LIBRARY_PATH=$old/nvidia/cuda_nvrtc/lib:$new/nvidia/cuda_nvrtc/lib
python3 "$ROOT/scripts/kernels.py" "$ROOT/codec/src/cuda/kernels" "$old/nvidia/cuda_nvrtc/lib/libnvrtc.so.12" \
    "$new/nvidia/cuda_nvrtc/lib/libnvrtc.so.12" "$ptxas" "$@"
