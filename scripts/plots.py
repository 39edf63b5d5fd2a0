"""Draws bar charts as SVG, readable on light and on dark pages. Used by bench.py."""

from html import escape

# Colours that people who see few of them can tell apart (Okabe and Ito, 2008).
COLOURS = ["#0072b2", "#56b4e9", "#009e73", "#e69f00", "#d55e00", "#cc79a7", "#999999"]
LEFT, RIGHT, TOP, BAR, GAP, LEGEND = 150, 60, 64, 11, 14, 20
WIDTH = 760

STYLE = """
text { font: 12px system-ui, sans-serif; fill: #222 }
.title { font-size: 15px; font-weight: 600 }
.small { font-size: 10px }
.grid { stroke: #ccc }
@media (prefers-color-scheme: dark) { text { fill: #ddd } .grid { stroke: #444 } }
"""


def bars(title, groups, series, unit):
    """A chart of horizontal bars: `groups` are (name, values), a value (or None) for each of the names in `series`."""
    highest = max(value for _, values in groups for value in values if value is not None)
    step = next(step for step in (0.5, 1, 2, 5, 10, 20, 50) if highest / step <= 8)
    scale = (WIDTH - LEFT - RIGHT) / highest
    rows = [sum(value is not None for value in values) for _, values in groups]
    height = TOP + sum(row * BAR + GAP for row in rows) + 24
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" role="img">',
        f"<title>{escape(title)}</title><style>{STYLE}</style>",
        f'<text class="title" x="8" y="20">{escape(title)}</text>',
    ]
    x = 8
    for name, colour in zip(series, COLOURS):
        out.append(f'<rect x="{x}" y="32" width="10" height="10" fill="{colour}"/>')
        out.append(f'<text x="{x + 14}" y="41">{escape(name)}</text>')
        x += LEGEND + 14 + 7 * len(name)
    bottom = height - 24
    for tick in range(int(highest / step) + 1):
        at = LEFT + tick * step * scale
        out.append(f'<line class="grid" x1="{at:.1f}" x2="{at:.1f}" y1="{TOP - 8}" y2="{bottom}"/>')
        out.append(f'<text class="small" x="{at:.1f}" y="{bottom + 14}" text-anchor="middle">{tick * step:g}</text>')
    out.append(f'<text class="small" x="{WIDTH - 6}" y="{bottom + 14}" text-anchor="end">{escape(unit)}</text>')
    y = TOP
    for (name, values), row in zip(groups, rows):
        middle = y + row * BAR / 2 + 4
        out.append(f'<text x="{LEFT - 8}" y="{middle:.1f}" text-anchor="end">{escape(name)}</text>')
        for value, colour in zip(values, COLOURS):
            if value is None:
                continue
            out.append(f'<rect x="{LEFT}" y="{y}" width="{value * scale:.1f}" height="{BAR - 2}" fill="{colour}"/>')
            out.append(f'<text class="small" x="{LEFT + value * scale + 4:.1f}" y="{y + BAR - 3}">{value:.4g}</text>')
            y += BAR
        y += GAP
    out.append("</svg>")
    return "\n".join(out) + "\n"
