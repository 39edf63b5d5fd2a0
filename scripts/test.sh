#!/usr/bin/env bash
# Runs everything that must pass: unit, property and golden-file tests, real mounts, and the unmodified Python loaders.
# Prepares what they need first (see lib.sh). Arguments go to cargo test: scripts/test.sh --test loaders
set -euo pipefail
. "$(dirname "$0")/lib.sh"

SECONDS=0
need_cargo
need_test_tools
"$ROOT/scripts/test-data.sh"

# Of the suite itself, so that a slow download does not look like a slow test.
prepared=$SECONDS
step "cargo test --workspace"
cd "$ROOT"
status=0
# Under nohup or as a background job some signals are ignored, by the tests' children too; some tests send them.
env --default-signal=HUP,INT,TERM cargo test --locked --workspace "$@" || status=$?

# The codec once more with each of the instruction sets that a processor may lack. (One that this processor lacks itself
# falls back to the best that it has.)
if [ "$status" = 0 ] && [ $# = 0 ]; then
    for level in scalar avx2 avx512; do
        step "cargo test -p bigsmall-codec, BIGSMALL_SIMD=$level"
        BIGSMALL_SIMD=$level cargo test --locked -p bigsmall-codec --quiet || status=$?
    done
fi

took() { printf '%d min %02d s' $(($1 / 60)) $(($1 % 60)); }
if [ "$status" = 0 ]; then verdict="all tests passed"; else verdict="TESTS FAILED"; fi
say "$verdict in $(took $((SECONDS - prepared))), after $(took "$prepared") of preparation"
exit "$status"
