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

took() { printf '%d min %02d s' $(($1 / 60)) $(($1 % 60)); }
if [ "$status" = 0 ]; then verdict="all tests passed"; else verdict="TESTS FAILED"; fi
say "$verdict in $(took $((SECONDS - prepared))), after $(took "$prepared") of preparation"
exit "$status"
