#!/usr/bin/env bash
# Fuzzes everything that reads stored bytes, for a long time: scripts/fuzz.sh [SECONDS PER TARGET, 600 unless given]
# Each decoder that this processor has is fuzzed in turn. A failure names the seed that repeats it.
set -euo pipefail
cd "$(dirname "$0")/.."
export BIGSMALL_FUZZ_SECONDS="${1:-600}"
for simd in scalar avx2 avx512 avx512vbmi2; do
    echo "== BIGSMALL_SIMD=$simd"
    BIGSMALL_SIMD=$simd cargo test --release -p bigsmall-codec --test fuzz -- --nocapture
done
echo "== the files of the Python package"
cargo test --release -p bigsmall-codec --test upstream_fuzz -- --nocapture
echo "== journals and sidecars"
cargo test --release -p bigsmall-codec --test fuzz_beside -- --nocapture
