#!/usr/bin/env bash
# Runs the codec's tests and its fuzzers under AddressSanitizer, with every decoder that this processor has: an access out
# of bounds that a damaged or forged file could bring about ends in a report.
#
#   scripts/sanitize.sh [SECONDS]     for each fuzzer and decoder; by default 60
set -euo pipefail
. "$(dirname "$0")/lib.sh"

case "${1:-60}" in
    [1-9]*) seconds=${1:-60} ;;
    *) sed -n '2,5s/^# \{0,1\}//p' "$0"; [ "${1:-}" = --help ] && exit 0 || exit 2 ;;
esac

need_cargo
host=$(rustc -vV | sed -n 's/^host: //p')
# Sanitizers are behind a flag that only nightly compilers take, but all of them have what it needs.
export RUSTC_BOOTSTRAP=1 RUSTFLAGS="${RUSTFLAGS:-} -Zsanitizer=address" BIGSMALL_FUZZ_SECONDS=$seconds
# That there is no memory for absurd lengths is what some tests are about.
export ASAN_OPTIONS=allocator_may_return_null=1
cd "$ROOT"
for simd in scalar avx2 avx512 avx512vbmi2; do
    step "BIGSMALL_SIMD=$simd, tests and $seconds seconds of each fuzzer"
    # Optimised, and with the checks of arithmetic that a release lacks.
    BIGSMALL_SIMD=$simd cargo test --locked --target "$host" -p bigsmall-codec --lib \
        --test fuzz --test fuzz_beside --test special --test compatibility --test patch
done
step "the files of the Python package"
cargo test --locked --target "$host" -p bigsmall-codec --test upstream --test upstream_hostile --test upstream_fuzz
say "nothing out of bounds"
