"""Writes what was measured into docs/benchmarks.md, between its markers, and draws the pictures beside it.

The page has a pair of markers for each part, `<!-- begin PART -->` and `<!-- end PART -->`; what stands around them is
written by people. A part that was not measured keeps what it says.
"""

import re
import statistics

import plots
from data_sets import DATA_SETS, GGUF, LARGE

GB = 1e9
# A load average above which there was somebody else on the two cores.
BUSY = 0.7
NOT_OURS = ("memcpy", "whole", "zstd -1", "lz4")


class Table:
    """A Markdown table."""

    def __init__(self, *columns):
        self.rows = [columns, ["---"] + ["---:"] * (len(columns) - 1)]

    def add(self, *cells):
        self.rows.append(cells)

    def __str__(self):
        return "\n".join("| " + " | ".join(str(cell) for cell in row) + " |" for row in self.rows) + "\n"


def about(part, timed=True):
    """Under which circumstances a part was measured; for times also what else the machine did."""
    out = f"`{part['command']}`, {part['date']}, revision `{part['revision']}`; {part['machine']}"
    if timed:
        out += f"; load average when it began {part['load_average']:.2f}"
        out += ", **other work took its share: times are rough**" if part["load_average"] > BUSY else ""
    return f"{out}.\n"


def percent(part, whole):
    return 100 * part / whole


# Sizes


def sizes_of(measured):
    """{folder: {tool: % of the original, or None where the tool failed}}"""
    found = {}
    for line in measured:
        value = percent(line["stored"], line["original"]) if "stored" in line else None
        found.setdefault(line["data"], {})[line["tool"]] = value
    return found


def sizes(part):
    return f"{sizes_table(part)}\n![Sizes beside those of peers](benchmarks/sizes.svg)\n"


def sizes_table(part):
    measured = part["measured"]
    tools = list(dict.fromkeys(line["tool"] for line in measured))
    found = sizes_of(measured)
    inexact = {(line["data"], line["tool"]) for line in measured if line.get("exact") is False}
    table = Table("original", "size", *(f"`{t.removeprefix('bigsmall ')}`" if " --" in t else t for t in tools))
    for data_set in [d for d in [*DATA_SETS, *GGUF] if d.folder in found]:
        row = found[data_set.folder]
        best = min(value for value in row.values() if value is not None)
        cells = []
        for tool in tools:
            if tool not in row:
                cells.append("")
            elif row[tool] is None:
                cells.append("fails")
            else:
                cell = f"{row[tool]:.2f}" + ("\\*" if (data_set.folder, tool) in inexact else "")
                cells.append(f"**{cell}**" if round(row[tool], 2) == round(best, 2) else cell)
        original = next(line["original"] for line in measured if line["data"] == data_set.folder)
        table.add(data_set.title, f"{original / 1e6:.1f} MB", *cells)
    starred = "\n\\* What comes back is not the same file (the weights in it may be).\n" if inexact else ""
    return f"{about(part, timed=False)}\n{table}{starred}"


def plot_sizes(part):
    """How many points more of the original each tool needs than the default mode."""
    found = sizes_of(part["measured"])
    ours = "bigsmall --balanced"
    series = [ours, "bigsmall --storage", "lmz 1.3.0", "ZipNN 0.5.4", "bigsmall 3.13.1 (Python)", "zstd -19"]
    rows = []
    for data_set in [d for d in DATA_SETS if d.folder in found and d != LARGE]:
        row = found[data_set.folder]
        rows.append((data_set.title, [row[t] - row[ours] if row.get(t) is not None else None for t in series]))
    low = min(value for _, values in rows for value in values if value is not None)
    scale = plots.linear(min(low, 0) - 0.1, 4)
    title = "What more each needs than bigsmall (left is better)"
    return plots.dots(title, rows, series, scale, "points of the original's size; what is beyond 4 has its value beside it", zero=0)


# Encoding and decoding in memory


def kept(lines, **wanted):
    return [line for line in lines if all(line[key] == value for key, value in wanted.items())]


def by(lines, *keys):
    return {tuple(line[key] for key in keys): line for line in lines}


def distinct(lines, key):
    return list(dict.fromkeys(line[key] for line in lines))


def ours(lines):
    return [name for name in distinct(lines, "implementation") if name not in NOT_OURS and ", planned" not in name]


def decoding(part):
    lines = part["measured"]
    usual = kept(lines, mode="balanced", chunk_kib=256)
    found, levels = by(usual, "what", "implementation"), ours(usual)
    names = [*levels, "whole", "zstd -1", "lz4"]
    table = Table("of `memcpy` (GB/s), one core", "size %", "`memcpy`", *names)
    for what in distinct(usual, "what"):
        cells = [found[what, name] for name in names]
        copied = found[what, "memcpy"]["gb_s"]
        shown = [f"{cell['of_memcpy']:.2f} ({cell['gb_s']:.1f})" for cell in cells]
        table.add(what, f"{cells[0]['percent']:.2f}", f"{copied:.1f}", *shown)
    best = levels[-1]
    cases = list(dict.fromkeys((line["mode"], line["chunk_kib"]) for line in lines))
    cases.sort(key=lambda case: (case[0] != "balanced", case))
    found = by(kept(lines, implementation=best), "what", "mode", "chunk_kib")
    chunks = Table(
        f"`{best}`: of `memcpy` (GB/s)",
        *(f"`--{mode}`, {kib} KiB" for mode, kib in cases),
        "two threads / one, 256 KiB",
    )
    for what in distinct(lines, "what"):
        cells = [found.get((what, *case)) for case in cases]
        two = found.get((what, "balanced", 256))
        chunks.add(
            what,
            *(f"{cell['of_memcpy']:.2f} ({cell['gb_s']:.1f})" if cell else "" for cell in cells),
            f"{two['two_threads_gb_s'] / two['gb_s']:.2f}" if two else "",
        )
    return f"{about(part)}\n{table}\n![Decoding](benchmarks/decoding.svg)\n\n{chunks}"


def plot_decoding(part):
    usual = kept(part["measured"], mode="balanced", chunk_kib=256)
    series = [*reversed(ours(usual)), "whole", "zstd -1"]
    found = by(usual, "what", "implementation")
    groups = [
        (what, [found[what, name]["of_memcpy"] if (what, name) in found else None for name in series])
        for what in distinct(usual, "what")
    ]
    title = "Decoding on one core, chunks of 256 KiB (right is better)"
    return plots.bars(title, groups, series, "speed as a share of that of memcpy in the same run")


def encoding(part):
    lines = kept(part["measured"], mode="balanced", chunk_kib=256)
    found, levels = by(lines, "what", "implementation"), ours(lines)
    names = [*levels, f"{levels[-1]}, planned", "lz4"]
    table = Table(
        "of `zstd -1` (GB/s), one core", "`zstd -1`", *names, "`whole`, GB/s", "`whole`, 2 threads, GB/s"
    )
    for what in distinct(lines, "what"):
        cells = []
        for name in names:
            cell = found.get((what, name))
            cells.append(f"{cell['of_zstd']:.2f} ({cell['gb_s']:.2f})" if cell else "")
        zstd, whole = found.get((what, "zstd -1")), found.get((what, "whole"))
        cells += [f"{whole['gb_s']:.2f}", f"{whole['two_threads_gb_s']:.2f}"] if whole else ["", ""]
        table.add(what, f"{zstd['gb_s']:.2f}" if zstd else "", *cells)
    return f"{about(part)}\n{table}"


def hashing(part):
    table = Table("hash", "GB/s, one core")
    for line in part["measured"]:
        table.add(line["implementation"], f"{line['gb_s']:.2f}")
    return f"{about(part)}\n{table}"


# Whole commands


def commands(part):
    measured = part["measured"]
    total, found = measured["original"], {tool["tool"]: tool for tool in measured["tools"]}
    out = [about(part)]
    for action in ("compress", "decompress", "verify"):
        tools = [tool for tool in found.values() if tool[action]]
        lmz = found.get("lmz 1.3.0", {}).get(action)
        copy = found["cp"][action] if action != "verify" else None
        columns = [*(["times as fast as lmz"] if lmz else []), *(["times as long as `cp`"] if copy else [])]
        columns += ["s", "GB/s", "peak MB", *(["size %"] if action == "compress" else [])]
        table = Table(f"`{action}`", *columns)
        for tool in tools:
            cost = tool[action]
            cells = [f"{lmz['seconds'] / cost['seconds']:.2f}"] if lmz else []
            cells += [f"{cost['seconds'] / copy['seconds']:.2f}"] if copy else []
            cells += [f"{cost['seconds']:.2f}", f"{total / cost['seconds'] / GB:.2f}", f"{cost['peak_bytes'] / 1e6:.0f}"]
            cells += [f"{percent(tool['stored'], total):.2f}"] if action == "compress" else []
            remark = f" ({tool['remark']})" if tool["remark"] else ""
            table.add(f"{tool['tool']}{remark}", *cells)
        out.append(f"\n{table}")
    inexact = [tool["tool"] for tool in found.values() if not tool["exact"]]
    if inexact:
        out.append(f"\nNot the same file came back from {' and '.join(inexact)} (the weights in it may be).\n")
    return "".join(out) + "\n![Whole commands](benchmarks/commands.svg)\n"


def plot_commands(part):
    tools = part["measured"]["tools"]
    series = ["decompress", "compress", "verify"]
    rows = [(t["tool"], [t[a]["seconds"] if t[a] else None for a in series]) for t in tools]
    seconds = [value for _, values in rows for value in values if value is not None]
    scale = plots.logarithmic(min(seconds) / 1.2, max(seconds) * 1.2)
    title = "Whole commands on a file of 1.2 GB in memory, two threads (left is better)"
    return plots.dots(title, rows, series, scale, "seconds, each tick a factor of about 2")


# Patches


def differences(part):
    lines = part["measured"]
    names = distinct(lines, "implementation")
    table = Table("one core, GB/s", "size %", *(f"decode, `{name}`" for name in names), *(f"encode, `{name}`" for name in names))
    found = by(lines, "what", "implementation")
    for what in distinct(lines, "what"):
        cells = [found[what, name] for name in names]
        speeds = [*(f"{cell['gb_s']:.2f}" for cell in cells), *(f"{cell['encode_gb_s']:.2f}" for cell in cells)]
        table.add(what, f"{cells[-1]['percent']:.2f}", *speeds)
    return f"{about(part)}\n{table}"


def patches(part):
    measured = part["measured"]
    tools = list(dict.fromkeys(tool for line in measured["sizes"] for tool in line["stored"]))
    table = Table("pair", "weights changed", *(f"`{tool.removeprefix('bigsmall ')}`" if "--" in tool else tool for tool in tools))
    for line in measured["sizes"]:
        values = [line["stored"].get(tool) for tool in tools]
        cells = ["fails" if value is None else f"{percent(value, line['original']):.2f}" for value in values]
        table.add(line["pair"], f"{100 * line['changed']:.0f} %", *cells)
    total = measured["original"]
    copy = next(line for line in measured["commands"] if line["command"] == "cp")
    times = Table("command", "times as long as `cp`", "s", "GB/s", "peak MB")
    for line in measured["commands"]:
        seconds = line["seconds"]
        cells = [f"{seconds / copy['seconds']:.2f}", f"{seconds:.3f}", f"{total / seconds / GB:.2f}"]
        times.add(f"`{line['command']}`", *cells, f"{line['peak_bytes'] / 1e6:.0f}")
    out = f"{about(part)}\nWhat each needs for a fine-tune besides its base, % of the original:\n\n{table}\n{times}"
    if "mount" in measured:
        whole = measured["mount"][0]["stored"]
        loads = Table("", "on disk", "s to load all", "peak MB of the mount", "chunks decoded")
        for line in measured["mount"]:
            cells = [f"{line['stored'] / 1e6:.0f} MB ({percent(line['stored'], whole):.1f} %)", f"{line['seconds']:.2f}"]
            cells += [f"{line['peak_bytes'] / 1e6:.0f}", f"{line['chunks']:,}"] if "chunks" in line else ["", ""]
            loads.add(line["way"], *cells)
        out += f"\n{loads}"
    return out


def mount(part):
    return f"{about(part)}\n{part['measured'].strip()}\n"


# The summary


def summary(parts):
    """What one wants to know first, as ratios; of the parts that there are."""
    out = []
    if "sizes" in parts:
        found = sizes_of(parts["sizes"]["measured"])
        others = lambda row: [v for tool, v in row.items() if not tool.startswith("bigsmall --") and v is not None]
        better = {folder: min(others(row)) - row["bigsmall --balanced"] for folder, row in found.items() if others(row)}
        won = sum(value > 0 for value in better.values())
        median = statistics.median(better.values())
        out.append(
            f"* **Size:** the default mode is smaller than every peer measured on {won} of {len(better)} files, in the median by "
            f"{median:.2f} points of the original."
        )
    if "decode" in parts:
        lines = kept(parts["decode"]["measured"], mode="balanced", chunk_kib=256)
        best = ours(lines)[-1]
        of = [line["of_memcpy"] for line in kept(lines, implementation=best)]
        zstd = by(kept(lines, implementation="zstd -1"), "what")
        times = [line["gb_s"] / zstd[line["what"],]["gb_s"] for line in kept(lines, implementation=best)]
        out.append(
            f"* **Decoding in memory** (`{best}`, one core): {min(of):.2f} to {max(of):.2f} of `memcpy`, {min(times):.1f} to "
            f"{max(times):.1f} times as fast as `zstd -1`."
        )
    if "commands" in parts:
        measured = parts["commands"]["measured"]
        found = {tool["tool"]: tool for tool in measured["tools"]}
        us, copy, lmz = found["bigsmall"], found["cp"], found.get("lmz 1.3.0")
        for action in ("compress", "decompress", "verify"):
            told = []
            if lmz:
                told.append(f"{lmz[action]['seconds'] / us[action]['seconds']:.1f} times as fast as lmz 1.3.0")
            if copy[action]:
                told.append(f"{us[action]['seconds'] / copy[action]['seconds']:.2f} times as long as `cp`")
            if told:
                out.append(f"* **`{action}`**, {measured['original'] / GB:.2g} GB on two threads: {', '.join(told)}.")
    return "\n".join(out) + "\n"


BLOCKS = {
    "sizes": sizes,
    "gguf": sizes_table,
    "decode": decoding,
    "encode": encoding,
    "delta": differences,
    "hash": hashing,
    "commands": commands,
    "patches": patches,
    "mount": mount,
}
PICTURES = {"sizes": plot_sizes, "decode": plot_decoding, "commands": plot_commands}
PICTURE_NAMES = {"sizes": "sizes.svg", "decode": "decoding.svg", "commands": "commands.svg"}


def fill(page, name, text):
    """The page with `text` between the markers of that name."""
    begin, end = f"<!-- begin {name} -->", f"<!-- end {name} -->"
    if page.count(begin) != 1 or page.count(end) != 1:
        raise SystemExit(f"docs/benchmarks.md must have {begin} and {end} once each")
    return re.sub(f"{re.escape(begin)}.*{re.escape(end)}", lambda _: f"{begin}\n{text}{end}", page, flags=re.DOTALL)


def render(parts, page, pictures):
    """Fills `page`, a file, and draws into the folder `pictures` what has been measured."""
    text = page.read_text()
    for name, block in BLOCKS.items():
        if name in parts:
            text = fill(text, name, block(parts[name]))
    if {"sizes", "decode", "commands"} <= parts.keys():
        text = fill(text, "summary", summary(parts))
    pictures.mkdir(parents=True, exist_ok=True)
    for name, picture in PICTURES.items():
        if name in parts:
            (pictures / PICTURE_NAMES[name]).write_text(picture(parts[name]))
    page.write_text(text)
