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

scratch=$(mktemp -d)
mountpoint=$scratch/mount
mkdir "$mountpoint"
trap 'unmount "$BIGSMALL" "$mountpoint"; rm -rf "$scratch"' EXIT
trap 'exit 130' INT TERM

# since START: the seconds from then to now.
since() { awk -v a="$1" -v b="$EPOCHREALTIME" 'BEGIN { printf "%.2f", b - a }'; }

show() { # a command as a user would type it, with the long paths cut
    local line="$*"
    line=${line//$BIGSMALL/bigsmall}
    line=${line//$scratch\//}
    say "  \$ ${line//$ROOT\//}"
}

load() { "$PYTHON" "$ROOT/scripts/measure_load.py" "$1"; }

# Cold means: neither the page cache nor the daemon has seen a byte. Without root only a fresh mount can be had, and no
# cold plain file.
cold_load() {
    if drop_caches; then load "$1"; else echo -; fi
}

mount_it() { "$BIGSMALL" mount "$packed" "$mountpoint"; }

bytes_of() { du -bs "$1" | cut -f1; }

table=$(printf '%s|' model original compressed '%' compress decompress 'plain, cold' 'mount, cold' 'plain, warm' 'mount, warm')
for model in minilm-f32 minilm-bf16; do
    plain=$DATA/$model
    packed=$scratch/$model.packed
    back=$scratch/$model.back
    step "$model"

    show "$BIGSMALL" compress "$plain" -o "$packed"
    start=$EPOCHREALTIME
    "$BIGSMALL" compress "$plain" -o "$packed"
    compress_s=$(since "$start")

    show "$BIGSMALL" mount "$packed" "$mountpoint"
    mount_it
    (cd "$mountpoint" && stat -c '    %A %12s bytes, %6b blocks  %n' ./*)
    say "  the mount, compared with the original by loaders that know nothing of bigsmall:"
    "$PYTHON" "$ROOT/tests/loaders/load_file.py" "$plain" "$mountpoint" | sed 's/^/    /'
    "$PYTHON" "$ROOT/tests/loaders/embeddings.py" "$plain" "$mountpoint" | sed 's/^/    /'
    unmount "$BIGSMALL" "$mountpoint"

    say "  times to load_file and touch every page, cold and warm"
    plain_cold=$(cold_load "$plain")
    plain_warm=$(load "$plain")
    mount_it
    drop_caches || true
    mount_cold=$(load "$mountpoint")
    mount_warm=$(load "$mountpoint")
    show "$BIGSMALL" umount "$mountpoint"
    "$BIGSMALL" umount "$mountpoint"

    show "$BIGSMALL" decompress "$packed" -o "$back"
    start=$EPOCHREALTIME
    "$BIGSMALL" decompress "$packed" -o "$back"
    decompress_s=$(since "$start")
    diff -r "$plain" "$back" || die "what was decompressed is not what was compressed"
    say "    every file is what it was (diff -r)"

    from=$(bytes_of "$plain/model.safetensors")
    to=$(bytes_of "$packed/model.bs")
    table+=$(printf '\n%s|%.1f MB|%.1f MB|%s|%s s|%s s|%s s|%s s|%s s|%s s' "$model" \
        "$((from / 100000))e-1" "$((to / 100000))e-1" "$(awk -v a="$to" -v b="$from" 'BEGIN { printf "%.2f", 100 * a / b }')" \
        "$compress_s" "$decompress_s" "$plain_cold" "$mount_cold" "$plain_warm" "$mount_warm")
done

step "the weights, and the time to load them (load_file, then a byte of every page)"
column -t -s '|' <<<"$table"
say
say "Cold: the caches of the kernel and of the daemon are empty. Warm: the second load. $(nproc) cores, $(uname -sr)."
[ "$(id -u)" = 0 ] || say "Run as root, this also drops the kernel's caches and shows the plain file cold."
