#!/usr/bin/env bash
# Measures sizes, speeds, memory and load times, beside peers in the same run, and writes docs/benchmarks.md.
# Takes about half an hour and 8 GB of memory (files of 1.2 GB in tmpfs); run it on an otherwise idle machine, as root
# for cold figures.
#
#   scripts/bench.sh                measures and writes docs/benchmarks.md
#   scripts/bench.sh --print        measures and prints the same to the terminal
set -euo pipefail
. "$(dirname "$0")/lib.sh"

case "${1:-}" in
    '') target=$ROOT/docs/benchmarks.md ;;
    --print) target=/dev/stdout ;;
    *) sed -n '2,7s/^# \{0,1\}//p' "$0"; [ "$1" = --help ] && exit 0 || exit 2 ;;
esac

need_cargo
need_fuse
need zstd zstd
"$ROOT/scripts/test-data.sh" --large
build_release

# The peers live in an environment of their own: they are measured, not used.
PEERS=$CACHE/peers
if [ ! -e "$PEERS/.complete" ]; then
    step "installing lmz in $PEERS"
    rm -rf "$PEERS"
    "$PYTHON" -m venv --without-pip "$PEERS"
    quietly "$PYTHON" -m pip --python "$PEERS/bin/python" install --quiet --no-deps lmzip==1.3.0 zstandard==0.25.0
    touch "$PEERS/.complete"
fi

result=$(mktemp)
decoding=$(mktemp)
trap 'rm -f "$result" "$decoding"' EXIT
step "cargo bench --bench decode"
(cd "$ROOT" && BIGSMALL_BENCH_JSON=$decoding cargo bench --locked -p bigsmall-codec --bench decode " 256  " >&2)
mkdir -p "$ROOT/docs/benchmarks"
"$PYTHON" "$ROOT/scripts/bench.py" --bigsmall "$BIGSMALL" --lmz "$PEERS/bin/lmz" --data "$DATA" \
    --decoding "$decoding" --pictures "$ROOT/docs/benchmarks" >"$result"
cat "$result" >"$target"
