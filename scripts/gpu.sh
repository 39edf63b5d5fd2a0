#!/usr/bin/env bash
# Proves what can be proven of the decoder for GPUs without one: the kernels compile for each kind of GPU, and run on the
# processor, under sanitizers, as they should; the program works with the feature and without a driver. See docs/gpu.md.
#
#   scripts/gpu.sh
set -euo pipefail
. "$(dirname "$0")/lib.sh"

need_cargo
need "${CXX:-c++}" g++
step "kernels"
"$ROOT/scripts/kernels.sh"
cd "$ROOT"
step "lint, feature cuda"
cargo clippy --locked --workspace --all-targets --features cuda -- -D warnings
step "tests, feature cuda"
cargo test --locked -p bigsmall-codec --features cuda --lib --quiet cuda::
cargo test --locked --features cuda --test cli --quiet -- doctor gpu
cargo test --locked --features cuda --test mount --quiet gpu
cargo test --locked -p bigsmall-c --features cuda --quiet
