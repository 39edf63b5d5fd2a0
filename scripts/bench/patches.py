"""Patches: their sizes beside those of peers, whole commands, and ten of one base in a mount."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import commands
import tools
from run import Failed, note, run, same

# Fine-tunes of one base.
TUNES = 10
# How often each command and each way to load is measured, in turn with the others; the best counts.
RUNS = 3
# Pairs that scripts/make_finetune.py trains, within two minutes.
TRAINED = ["short", "lora"]


def measure(binary, peers, data, tmpfs, quick):
    """Everything about the fine-tunes of MiniLM in BF16; with `quick` of two made of noise, without peers and the mount."""
    base = data / "minilm-bf16/model.safetensors"
    pairs = {} if quick else trained(data)
    with tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR", "/var/tmp")) as scratch:
        scratch = Path(scratch)
        plain = scratch / "plain"
        plain.mkdir()
        tunes("noise", base, plain, 2 if quick else TUNES)
        pairs["noise"] = plain / "tune0.safetensors"
        measured = {
            "original": base.stat().st_size,
            "sizes": [sizes(binary, peers, base, name, tuned, tmpfs) for name, tuned in pairs.items()],
            "commands": timed(binary, base, next(iter(pairs.values())), tmpfs, 1 if quick else RUNS),
        }
        if not quick:
            measured["mount"] = mounted(binary, base, plain, scratch)
    return measured


def trained(data):
    """The pairs that are trained, made once."""
    out = data / "finetunes"
    missing = [kind for kind in TRAINED if not (out / kind / "model.safetensors").exists()]
    if missing:
        note(f"tuning {' and '.join(missing)}")
        script = Path(__file__).parent.parent / "make_finetune.py"
        subprocess.run([sys.executable, script, data, out, *missing], check=True, stdout=sys.stderr)
    return {kind: out / kind / "model.safetensors" for kind in TRAINED}


def tunes(*words):
    """What tunes.py says; it has torch, whose memory would otherwise count in that of the commands which are measured."""
    script = Path(__file__).with_name("tunes.py")
    return subprocess.run([sys.executable, script, *map(str, words)], check=True, stdout=subprocess.PIPE, text=True).stdout


# Sizes


def sizes(binary, peers, base, name, tuned, scratch):
    """What each tool needs for one fine-tune besides its base; that a peer fails is a result."""
    note(f"sizes of {name}")
    stored = {}
    for mode in ("--balanced", "--storage"):
        stored[f"bigsmall {mode}"] = ours(binary, base, tuned, scratch, mode)
    stored["container without base"] = compressed(tools.bigsmall(binary), tuned, scratch)
    stored["zstd -3 --patch-from"] = patch_from(base, tuned, scratch)
    if peers:
        stored["lmz 1.3.0"] = grown(peers, base, tuned, scratch)
        stored["z4ai 0.2.0"] = by_script(peers, "z4ai_delta.py", base, tuned)
    return {"pair": name, "changed": float(tunes("changed", base, tuned)), "original": tuned.stat().st_size, "stored": stored}


def ours(binary, base, tuned, scratch, mode):
    patch, back = scratch / "patch.bs", scratch / "back.safetensors"
    run([binary, "compress", "-q", mode, tuned, "--delta-from", base, "-o", patch])
    run([binary, "apply", "-q", base, patch, "-o", back])
    if not same(tuned, back):
        raise Failed(f"{tuned}: other bytes came back from its patch")
    size = patch.stat().st_size
    patch.unlink()
    back.unlink()
    return size


def compressed(tool, source, scratch):
    packed = scratch / "packed.bs"
    run(tool.compress(source, packed), tool.env)
    size = packed.stat().st_size
    packed.unlink()
    return size


def patch_from(base, tuned, scratch):
    packed = scratch / "packed.zst"
    run(["zstd", "-q", "-f", "-3", f"--patch-from={base}", tuned, "-o", packed])
    size = packed.stat().st_size
    packed.unlink()
    return size


def grown(peers, base, tuned, scratch):
    """By how much an archive of lmz that holds the base grows when the fine-tune is appended."""
    archive = scratch / "base.lmz"
    # Files of one name do not go into one archive.
    tune = scratch / "tune.safetensors"
    shutil.copyfile(tuned, tune)
    try:
        run([peers / "bin/lmz", "compress", "-q", "-j", tools.THREADS, base, archive])
        size = archive.stat().st_size
        run([peers / "bin/lmz", "append", archive, tune])
        return archive.stat().st_size - size
    except Failed as failed:
        note(f"failed: {str(failed).splitlines()[-1]}")
        return None
    finally:
        archive.unlink(missing_ok=True)
        tune.unlink()


def by_script(peers, script, base, tuned):
    """The number that a script prints which calls the library of a peer."""
    command = [peers / "bin/python", "-W", "ignore", Path(__file__).with_name(script), base, tuned]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        note(f"failed: {(done.stderr.strip() or 'without a word').splitlines()[-1]}")
        return None
    return int(done.stdout)


# Whole commands


def timed(binary, base, tuned, tmpfs, runs):
    """The commands from tmpfs to tmpfs on two threads, beside cp."""
    source, model, patch, back = [tmpfs / name for name in ("tuned.safetensors", "base.safetensors", "p.bs", "back")]
    run(["cp", tuned, source])
    run(["cp", base, model])
    threads = ["--threads", tools.THREADS]
    ways = {
        "compress --delta-from": [binary, "compress", "-q", source, "--delta-from", model, "-o", patch, "-f", *threads],
        "apply": [binary, "apply", "-q", model, patch, "-o", back, "-f", *threads],
        "verify --base": [binary, "verify", "-q", patch, "--base", model, *threads],
        "cp": ["cp", source, back],
    }
    costs = {name: [] for name in ways}
    for number in range(runs):
        note(f"run {number + 1} of patch commands")
        for name, command in ways.items():
            costs[name].append(run(command))
            if name == "apply" and not same(source, back):
                raise Failed(f"{tuned}: other bytes came back from its patch")
    return [{"command": name, **commands.summary_of(cost)} for name, cost in costs.items()]


# A mount


def drop_caches():
    os.sync()
    Path("/proc/sys/vm/drop_caches").write_text("3")


def load_all(folder):
    """Loads each tune as a program would, and touches every page of it: seconds."""
    return float(tunes("load", folder, TUNES))


def load_mounted(binary, source, options):
    """The same through a mount: seconds, the most memory of its process, and the chunks that it has decoded."""
    with tempfile.TemporaryDirectory() as mountpoint:
        subprocess.run([binary, "mount", *options, source, mountpoint], check=True)
        try:
            seconds = load_all(Path(mountpoint))
            stats = json.loads(os.getxattr(mountpoint, "user.bigsmall.stats"))
            status = Path(f"/proc/{stats['pid']}/status").read_text()
        finally:
            subprocess.run([binary, "umount", "--lazy", mountpoint], check=True)
    peak = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))
    return {"seconds": seconds, "peak_bytes": peak * 1024, "chunks": stats["chunks_decoded"]}


def mounted(binary, base, plain, scratch):
    """Ten fine-tunes as plain files, as containers and as patches: what they take on disk, and what loading all of them takes."""
    full, patches, over_plain = [scratch / name for name in ("full", "patches", "over-plain")]
    for folder in (full, patches, over_plain):
        folder.mkdir()
    run([binary, "compress", "-q", base, "-o", patches / "base.bs"])
    for number in range(TUNES):
        tune = plain / f"tune{number}.safetensors"
        run([binary, "compress", "-q", tune, "-o", full / f"tune{number}.bs"])
        run([binary, "compress", "-q", tune, "--delta-from", base, "-o", patches / f"tune{number}.bs"])
        os.link(patches / f"tune{number}.bs", over_plain / f"tune{number}.bs")
    size = lambda folder: sum(path.stat().st_size for path in folder.iterdir())
    ways = [
        ("ten plain files", plain, None, 0),
        ("ten containers", full, [], 0),
        ("ten patches and `base.bs`", patches, [], 0),
        ("ten patches and the plain base", over_plain, ["--base", base], base.stat().st_size),
    ]
    best = {}
    for number in range(RUNS):
        for name, folder, options, _ in ways:
            note(f"run {number + 1} of {name}")
            drop_caches()
            cost = {"seconds": load_all(folder)} if options is None else load_mounted(binary, folder, options)
            if name not in best or cost["seconds"] < best[name]["seconds"]:
                best[name] = cost
    return [{"way": name, "stored": size(folder) + extra, **best[name]} for name, folder, _, extra in ways]
