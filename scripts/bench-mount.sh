#!/usr/bin/env bash
# Measures the mount beside a plain file on the same disk, beside lmz's mount, and beside itself serving zeros, which is
# all that FUSE can move. Prints Markdown tables; the runs on standard error. Ten minutes on an otherwise idle machine.
# As root: cold figures need the kernel's caches dropped. Arguments go to bench_mount.py: scripts/bench-mount.sh --only read
set -euo pipefail
. "$(dirname "$0")/lib.sh"

case "${1:-}" in
    -h | --help) sed -n '2,4s/^# \{0,1\}//p' "$0"; exit ;;
esac

need_cargo
need_fuse
drop_caches || die "run me as root: cold figures need the kernel's caches dropped"
"$ROOT/scripts/test-data.sh" --large
step "building bigsmall (release, able to serve zeros)"
(cd "$ROOT" && cargo build --release --locked --features serve-zeros) || die "the build failed"
BIGSMALL=${CARGO_TARGET_DIR:-$ROOT/target}/release/bigsmall

ensure_peers
exec "$PYTHON" "$ROOT/scripts/bench_mount.py" --bigsmall "$BIGSMALL" --lmz "$PEERS/bin/lmz" \
    --original "$DATA/large-bf16/model.safetensors" "$@"
