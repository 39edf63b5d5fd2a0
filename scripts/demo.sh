#!/usr/bin/env bash
# The whole of bigsmall on a real model, in a few minutes: compresses all-MiniLM-L6-v2 (as published in F32, and cast to
# BF16), mounts the result, loads it with unmodified safetensors and transformers, compares every tensor and the
# embeddings with the originals, decompresses, and shows sizes and times. Leaves nothing behind but data/ and the caches.
set -euo pipefail
. "$(dirname "$0")/lib.sh"

need_cargo
need_fuse
"$ROOT/scripts/test-data.sh"
build_release

# Everything is written below a folder of its own, and named from there, as a user would.
scratch=$(mktemp -d)
cd "$scratch"
mountpoint=$scratch/mount
mkdir mount
trap 'unmount "$BIGSMALL" "$mountpoint"; cd /; rm -rf "$scratch"' EXIT
trap 'exit 130' INT TERM

# Shows a bigsmall command as a user types it, and runs it.
bigsmall() {
    say "  \$ bigsmall ${*//$DATA/data}"
    "$BIGSMALL" "$@" | sed 's/^/    /'
}

# since START: the seconds from then to now.
since() { awk -v a="$1" -v b="$EPOCHREALTIME" 'BEGIN { printf "%.2f", b - a }'; }

load() { "$PYTHON" "$ROOT/scripts/measure_load.py" "$1"; }

# Cold means: neither the page cache nor the daemon has seen a byte. Without root only a fresh mount can be had, and no
# cold plain file.
cold_load() {
    if drop_caches; then load "$1"; else echo -; fi
}

# Cells of a row for column(1).
row() { (IFS='|' && printf '%s\n' "$*"); }

table=$(row model original compressed % compress decompress plain-cold mount-cold plain-warm mount-warm)
for model in minilm-f32 minilm-bf16; do
    plain=$DATA/$model
    step "$model"

    start=$EPOCHREALTIME
    bigsmall compress "$plain" -o $model.packed
    compress_s=$(since "$start")

    bigsmall mount $model.packed mount
    (cd mount && stat -c '    %A %12s bytes  %n' ./*)
    say "  The mount beside the original, for loaders that know nothing of bigsmall:"
    "$PYTHON" "$ROOT/tests/loaders/load_file.py" "$plain" mount | sed 's/^/    /'
    "$PYTHON" "$ROOT/tests/loaders/embeddings.py" "$plain" mount | sed 's/^/    /'
    bigsmall umount mount

    say "  Loading is timed, from the plain file and through a fresh mount."
    plain_cold=$(cold_load "$plain")
    plain_warm=$(load "$plain")
    "$BIGSMALL" mount $model.packed mount
    drop_caches || true
    mount_cold=$(load mount)
    mount_warm=$(load mount)
    "$BIGSMALL" umount mount

    start=$EPOCHREALTIME
    bigsmall decompress $model.packed -o $model.back
    decompress_s=$(since "$start")
    diff -r "$plain" $model.back || die "what was decompressed is not what was compressed"
    say "    Every file is what it was, says diff -r."

    from=$(stat -c %s "$plain/model.safetensors")
    to=$(stat -c %s $model.packed/model.bs)
    share=$(awk "BEGIN { printf \"%.2f\", 100 * $to / $from }")
    table+=$'\n'$(row $model "$((from / 1000000)) MB" "$((to / 1000000)) MB" "$share" "$compress_s s" "$decompress_s s" \
        "$plain_cold s" "$mount_cold s" "$plain_warm s" "$mount_warm s")
done

step "the weights, and the time to load them (load_file, then a byte of every page)"
column -t -s '|' <<<"$table"
say
say "Cold: the caches of the kernel and of the daemon are empty. Warm: the second load. $(nproc) cores, $(uname -sr)."
[ "$(id -u)" = 0 ] || say "Run as root, this also drops the kernel's caches and shows the plain file cold."
