#!/usr/bin/env bash
# Everyday tools on a model directory and on what is shown of it: shell_tools.sh PLAIN SHOWN TOOL
# Exit codes as in compare.py: 0 the same, 3 different.
set -euo pipefail

plain=$1 shown=$2 tool=$3
scratch=$(mktemp -d)
trap 'chmod -R u+w "$scratch"; rm -rf "$scratch"' EXIT

different() {
    echo "DIFFERENT: $*"
    exit 3
}

# The weight files, relative to the directories, in a stable order.
weights() { (cd "$plain" && find . -name '*.safetensors' | sort); }
[ -n "$(weights)" ] || different "$plain holds no weights, so nothing would be compared"

case $tool in
    cp)
        cp -r "$shown" "$scratch/copy"
        diff -r "$plain" "$scratch/copy" >&2 || different "a copy by cp -r"
        ;;
    cmp)
        for file in $(weights); do
            cmp "$plain/$file" "$shown/$file" >&2 || different "$file, says cmp"
        done
        ;;
    md5sum)
        (cd "$plain" && find . -type f -exec md5sum {} +) >"$scratch/sums"
        (cd "$shown" && md5sum --quiet --check "$scratch/sums") >&2 || different "an MD5 sum"
        ;;
    rsync)
        # A copy through the mount is the plain directory, and the mount is the copy, when contents are compared.
        rsync --recursive --checksum "$shown/" "$scratch/copy/"
        for pair in "$plain $scratch/copy" "$shown $plain"; do
            read -r from to <<<"$pair"
            changes=$(rsync --recursive --checksum --delete --dry-run --itemize-changes "$from/" "$to/" | grep -v '^\.' || true)
            [ -z "$changes" ] || different "rsync would change: $changes"
        done
        ;;
    tar)
        tar -cf - -C "$shown" . | tar -xf - -C "$scratch"
        diff -r "$plain" "$scratch" >&2 || different "a copy by tar"
        ;;
    dd)
        for file in $(weights); do
            size=$(stat -c %s "$plain/$file")
            # Blocks of odd lengths from one end to the other, then some odd places, the very end among them.
            for block in 65537 1000003; do
                dd if="$shown/$file" bs=$block status=none | cmp - "$plain/$file" >&2 || different "$file by dd bs=$block"
            done
            for offset in 1 4095 4097 131071 262145 $((size / 2 + 1)) $((size - 5)); do
                for side in plain shown; do
                    dd if="${!side}/$file" bs=777777 count=1 skip=$offset iflag=skip_bytes,fullblock status=none >"$scratch/$side"
                done
                cmp "$scratch/plain" "$scratch/shown" >&2 || different "$file at $offset by dd"
            done
        done
        ;;
    *)
        echo "unknown tool: $tool" >&2
        exit 2
        ;;
esac
echo "$tool: the same"
