"""Whole commands from tmpfs to tmpfs on two threads: time and peak memory."""

import shutil
import statistics

import tools
from run import Failed, note, run, same

RUNS = 5


def measure(binary, peers, data, data_set, tmpfs, runs=RUNS):
    """For each tool its commands in turn with those of the others, so that all have good and bad luck with the machine alike."""
    source = tmpfs / "model.safetensors"
    shutil.copyfile(data_set.file(data), source)
    ways = [tools.bigsmall(binary), tools.bigsmall(binary, "--storage"), tools.bigsmall(binary, "--inference")]
    ways += tools.peers(peers, data_set.dtype)
    ways += [tools.zstd(1), tools.zstd(3), tools.lz4(), tools.cp()]
    measured = {
        tool.name: {"tool": tool.name, "remark": tool.remark, "compress": [], "decompress": [], "verify": []} for tool in ways
    }
    for number in range(runs):
        for tool in ways:
            if not (tool.slow and number):
                note(f"run {number + 1} of {tool.name}")
                one_round(tool, source, tmpfs / "packed.bs", tmpfs / "back.safetensors", measured[tool.name])
    return {"data": data_set.folder, "original": source.stat().st_size, "tools": [summary(m) for m in measured.values()]}


def one_round(tool, source, packed, back, measured):
    """Adds what one run of each command cost."""
    measured["compress"].append(run(tool.compress(source, packed), tool.env))
    measured["stored"] = packed.stat().st_size
    measured["decompress"].append(run(tool.decompress(packed, back), tool.env))
    measured["exact"] = same(source, back)
    back.unlink()
    if tool.verify:
        measured["verify"].append(run(tool.verify(packed), tool.env))
    packed.unlink()
    if tool.ours and not measured["exact"]:
        raise Failed(f"{source}: other bytes came back from {tool.name}")


def summary(measured):
    """The median and the best time, and the highest peak, in place of all costs."""
    for action in ("compress", "decompress", "verify"):
        measured[action] = measured[action] and summary_of(measured[action])
    return measured


def summary_of(costs):
    """The same of the costs of one command."""
    seconds = [cost.seconds for cost in costs]
    peak = max(cost.peak_bytes for cost in costs)
    return {"seconds": statistics.median(seconds), "best": min(seconds), "runs": len(costs), "peak_bytes": peak}
