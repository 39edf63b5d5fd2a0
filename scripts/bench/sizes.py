"""What each tool makes of each file."""

import tools
from data_sets import LARGE
from run import Failed, note, run, same


def measure(binary, peers, data, sets, scratch):
    """For each file the bytes that each tool needs for it, and whether the same bytes come back."""
    measured = []
    for data_set in sets:
        source = data_set.file(data)
        ours = [tools.bigsmall(binary, mode) for mode in ("--storage", "--balanced", "--inference")]
        others = tools.peers(peers, data_set.dtype)
        if peers:
            others.insert(1, tools.lmz(peers / "bin/lmz", "--mapped"))
        levels = [19, 3, 1] if peers and data_set != LARGE else [3, 1]  # -19 on 1.2 GB: ten minutes that tell nothing new
        for tool in [*ours, *others, *(tools.zstd(level) for level in levels)]:
            measured.append({
                "data": data_set.folder,
                "title": data_set.title,
                "original": source.stat().st_size,
                "tool": tool.name,
                **size(tool, source, scratch / "packed.bs", scratch / "back.safetensors"),
            })
    return measured


def size(tool, source, packed, back):
    """The bytes that a tool makes of a file. That a peer cannot do it, or not exactly, is a result; that we cannot is not."""
    note(f"size of {source.parent.name}, {tool.name}")
    try:
        run(tool.compress(source, packed), tool.env)
        stored = packed.stat().st_size
        run(tool.decompress(packed, back), tool.env)
        exact = same(source, back)
    except Failed as failed:
        if tool.ours:
            raise
        note(f"failed: {str(failed).splitlines()[-1]}")
        return {"failed": str(failed).splitlines()[-1]}
    finally:
        packed.unlink(missing_ok=True)
        back.unlink(missing_ok=True)
    if tool.ours and not exact:
        raise Failed(f"{source}: other bytes came back from {tool.name}")
    return {"stored": stored, "exact": exact}
