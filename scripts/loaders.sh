#!/usr/bin/env bash
# Compares a mount with the plain directory by the eyes of loaders that are too heavy for the tests: candle, which takes
# minutes to build, and llama.cpp's converter, whose package is 50 MB. By hand; as root or with fusermount3.
#
#   scripts/loaders.sh [MODEL]      a directory of data/; by default minilm-f32
set -euo pipefail
. "$(dirname "$0")/lib.sh"

case "${1:-}" in
    -h | --help) sed -n '2,5s/^# \{0,1\}//p' "$0"; exit ;;
esac
need_fuse
"$ROOT/scripts/test-data.sh"
plain=$DATA/${1:-minilm-f32}
[ -d "$plain" ] || die "$plain: there is no such model"
build_release

scratch=$(mktemp -d)
trap 'unmount "$BIGSMALL" "$scratch/mount"; rm -rf "$scratch"' EXIT
trap 'exit 130' INT TERM
mkdir "$scratch/mount"
"$BIGSMALL" compress -q "$plain" -o "$scratch/packed"
"$BIGSMALL" mount "$scratch/packed" "$scratch/mount"

step "candle"
cargo run --quiet --manifest-path "$ROOT/tests/loaders/candle/Cargo.toml" --target-dir "$CACHE/candle" -- "$plain" "$scratch/mount"

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
for way in plain mount; do
    from=$plain
    [ $way = plain ] || from=$scratch/mount
    quietly "$convert/bin/python" "$convert/convert_hf_to_gguf.py" "$from" --outfile "$scratch/$way.gguf" --outtype f16 || die "the converter failed"
done
cmp "$scratch/plain.gguf" "$scratch/mount.gguf" || die "what the converter made of the two differs"
say "convert_hf_to_gguf.py: $(stat -c %s "$scratch/plain.gguf") bytes are the same"
