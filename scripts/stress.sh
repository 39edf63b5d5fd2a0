#!/usr/bin/env bash
# Stresses a mount for minutes: a storm of page faults from 64 threads beside 16 processes that read in sequence, random
# operations compared with a model, random reads of every kind and fio's verification, 16 processes that load a model at once with transformers' parallel loader, and 8 that map
# GGUF files at once with llama.cpp. Each has a watchdog or a time limit. As root. scripts/test.sh runs the first two for seconds.
#
#   scripts/stress.sh [SECONDS]       of storm; by default 180
#   scripts/stress.sh --huge          also compresses and mounts 110 GB of repeated weights (some minutes, 2 GB of disk)
set -euo pipefail
. "$(dirname "$0")/lib.sh"

seconds=180 huge=
for argument; do
    case "$argument" in
        --huge) huge=yes ;;
        [1-9]*) seconds=$argument ;;
        *) sed -n '2,7s/^# \{0,1\}//p' "$0"; [ "$argument" = --help ] && exit 0 || exit 2 ;;
    esac
done

need_cargo
need_test_tools
"$ROOT/scripts/test-data.sh"
build_release

scratch=$(mktemp -d)
finish() {
    unmount "$BIGSMALL" "$scratch/mnt"
    rm -rf "$scratch"
}
trap finish EXIT
mkdir "$scratch/mnt"
cd "$ROOT"

step "a storm of faults, $seconds seconds"
BIGSMALL_STRESS_SECONDS=$seconds cargo test --locked --release --test stress -- --nocapture

# Runs a command with so many MB of memory, what the kernel caches for it included.
with_memory() {
    local group limit
    if [ -e /sys/fs/cgroup/cgroup.controllers ]; then
        group=/sys/fs/cgroup/bigsmall-stress-$$ limit=memory.max
    else
        group=/sys/fs/cgroup/memory/bigsmall-stress-$$ limit=memory.limit_in_bytes
    fi
    mkdir "$group" 2>/dev/null || die "no memory can be taken away: $group cannot be made. Run me as root, with cgroups mounted"
    echo "$1M" >"$group/$limit" || die "$group has no $limit"
    shift
    local code=0
    bash -c 'echo $$ >"$0/cgroup.procs" && exec "$@"' "$group" "$@" || code=$?
    # Those that were killed are gone a moment later.
    for _ in {1..50}; do
        rmdir "$group" 2>/dev/null && return $code
        sleep 0.1
    done
    die "$group cannot be removed"
}

step "the same with 96 MB of memory for all of it, 64 threads, 32 processes and the mount"
BIGSMALL_STRESS_SECONDS=$((seconds / 3 + 1)) with_memory 96 cargo test --locked --release --test stress -- --nocapture

step "random operations beside a model of them"
BIGSMALL_RANDOM_CASES=$((seconds / 4 + 1)) cargo test --locked --release --test mount -- random_operations --nocapture

step "random reads of every kind, and fio's verification"
BIGSMALL_FSX_OPERATIONS=$((seconds * 500)) cargo test --locked --release --test mount -- random_reads_of_every_kind fio_verifies --nocapture

step "16 processes that load a model at once"
"$BIGSMALL" compress -q "$DATA/minilm-sharded" -o "$scratch/models"
"$BIGSMALL" mount --cache-size 1MiB "$scratch/models" "$scratch/mnt"
HF_ENABLE_PARALLEL_LOADING=true timeout 600 "$PYTHON" tests/loaders/parallel.py "$DATA/minilm-sharded" "$scratch/mnt"
"$BIGSMALL" mounts
"$BIGSMALL" umount "$scratch/mnt"

step "8 processes that map GGUF files at once with llama.cpp, one model in parts, four times each"
ensure_gguf
mkdir "$scratch/gguf"
cp -r "$DATA/llama-q4_k_m" "$DATA/llama-q4_k_m-3-parts" "$DATA/llama-q8_0" "$scratch/gguf/"
"$BIGSMALL" compress -q "$scratch/gguf" -o "$scratch/gguf-models"
"$BIGSMALL" mount --cache-size 1MiB "$scratch/gguf-models" "$scratch/mnt"
loads=()
for _ in {1..8}; do
    timeout 600 "$GGUF_PYTHON" tests/loaders/llama.py "$scratch/gguf" "$scratch/mnt" &
    loads+=($!)
done
for load in "${loads[@]}"; do wait "$load" || die "one of them ended with $?"; done
"$BIGSMALL" mounts
"$BIGSMALL" umount "$scratch/mnt"

if [ -n "$huge" ]; then
    step "a model of 110 GB"
    "$PYTHON" scripts/huge_model.py "$BIGSMALL" "$scratch"
fi
say "nothing stalled, nothing differed"
