#!/usr/bin/env bash
# Measures sizes, speeds, memory and times to load, beside peers in the same run; keeps the results in
# data/benchmarks.json and writes them into docs/benchmarks.md, with pictures in docs/benchmarks/.
# All of it takes about an hour and 12 GB of memory (files of 1.2 GB in tmpfs); run it on an otherwise idle machine, as
# root for the mount's cold figures.
#
#   scripts/bench.sh                  all of it
#   scripts/bench.sh --part PART...   only decode, encode, delta, hash, commands, sizes, gguf, patches or mount; what is known
#                                     of the others stays
#   scripts/bench.sh --render         measures nothing, writes the page again
#   scripts/bench.sh --quick          whether all that works, within a minute: little data, no peers and no mount, built as
#                                     the tests are; prints the page and changes nothing
set -euo pipefail
. "$(dirname "$0")/lib.sh"

usage() { sed -n '2,13s/^# \{0,1\}//p' "$0"; }

results=$DATA/benchmarks.json
page=$ROOT/docs/benchmarks.md
pictures=$ROOT/docs/benchmarks
quick='' render=''
parts=()
while [ $# != 0 ]; do
    case "$1" in
        --part) shift; [ $# != 0 ] || { usage; exit 2; }; while [ $# != 0 ] && [[ $1 != -* ]]; do parts+=(--part "$1"); shift; done; continue ;;
        --quick) quick=yes ;;
        --render) render=yes ;;
        --help) usage; exit ;;
        *) usage; exit 2 ;;
    esac
    shift
done

need_cargo
need cmp diffutils
need zstd zstd
need lz4 lz4
ensure_venv
arguments=(--data "$DATA")
if [ -n "$render" ]; then
    arguments+=(--render)
elif [ -n "$quick" ]; then
    "$ROOT/scripts/test-data.sh"
    # As the tests build it, since it is not the speed that is looked at.
    (cd "$ROOT" && cargo build --locked) || die "the build failed"
    BIGSMALL=${CARGO_TARGET_DIR:-$ROOT/target}/debug/bigsmall
    aside=$(mktemp -d)
    trap 'rm -rf "$aside"' EXIT
    cp "$page" "$aside/benchmarks.md"
    results=$aside/results.json page=$aside/benchmarks.md pictures=$aside/benchmarks
    arguments+=(--quick --bigsmall "$BIGSMALL")
else
    need_fuse
    "$ROOT/scripts/test-data.sh" --large
    build_release
    ensure_peers
    arguments+=(--bigsmall "$BIGSMALL" --peers "$PEERS")
fi
"$PYTHON" "$ROOT/scripts/bench" "${arguments[@]}" ${parts[@]+"${parts[@]}"} \
    --results "$results" --page "$page" --pictures "$pictures"
[ -z "$quick" ] || cat "$page"
