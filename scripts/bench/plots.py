"""Draws charts as SVG, readable on light and on dark pages."""

import math
from html import escape

# Colours that people who see few of them can tell apart (Okabe and Ito, 2008), without the ones that vanish on white or
# on black.
COLOURS = ["#0072b2", "#56b4e9", "#009e73", "#e69f00", "#d55e00", "#cc79a7", "#999999"]
WIDTH, LEFT, RIGHT = 760, 172, 48
TITLE, LEGEND_LINE, AXIS = 30, 20, 40
FONT = "ui-sans-serif, system-ui, 'Segoe UI', 'DejaVu Sans', sans-serif"

STYLE = f"""
text {{ font: 12px {FONT}; fill: #24292f }}
.title {{ font-size: 15px; font-weight: 600 }}
.small {{ font-size: 10px; fill: #57606a }}
.grid {{ stroke: #d0d7de }}
.line {{ stroke: #8c959f }}
@media (prefers-color-scheme: dark) {{
  text {{ fill: #e6edf3 }}
  .small {{ fill: #9da7b1 }}
  .grid {{ stroke: #30363d }}
  .line {{ stroke: #6e7681 }}
}}
"""


class Scale:
    """Where values lie across the chart, and which of them are marked below it."""

    def __init__(self, low, high, ticks, logarithmic=False):
        self.ticks = ticks
        self.of = math.log if logarithmic else float
        self.low, self.high = self.of(low), self.of(high)

    def x(self, value):
        share = (self.of(value) - self.low) / (self.high - self.low)
        return LEFT + (WIDTH - LEFT - RIGHT) * min(max(share, 0), 1)


def linear(low, high):
    """A scale with some round ticks."""
    step = next(step for step in (0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100) if (high - low) / step <= 9)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return Scale(low, high, [number * step for number in range(first, last + 1)])


def logarithmic(low, high):
    """A scale on which the same distance is the same factor."""
    ticks = [digit * 10.0**power for power in range(-4, 6) for digit in (1, 2, 5)]
    inside = [tick for tick in ticks if low * 0.999 <= tick <= high * 1.001]
    return Scale(low, high, inside, logarithmic=True)


def legend(series, mark):
    """The names of the series with their marks, in as many lines as they need; and how many those are."""
    out, x, line = [], 8, 0
    for name, colour in zip(series, COLOURS):
        width = 14 + 7 * len(name) + 16
        if x + width > WIDTH and x > 8:
            x, line = 8, line + 1
        y = TITLE + LEGEND_LINE * line + 10
        out.append(mark(x + 5, y - 4, colour))
        out.append(f'<text x="{x + 14}" y="{y}">{escape(name)}</text>')
        x += width
    return out, line + 1


def chart(title, series, scale, unit, height, mark, draw):
    """The frame of a chart; `draw(top)` gives what is in it, whose rows are `height` high together."""
    names, lines = legend(series, mark)
    top = TITLE + LEGEND_LINE * lines + 12
    bottom = top + height
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {bottom + AXIS}" width="{WIDTH}" '
        f'height="{bottom + AXIS}" role="img">',
        f"<title>{escape(title)}</title><style>{STYLE}</style>",
        f'<text class="title" x="8" y="19">{escape(title)}</text>',
        *names,
    ]
    for tick in scale.ticks:
        x = scale.x(tick)
        out.append(f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{top - 6}" y2="{bottom}"/>')
        out.append(f'<text class="small" x="{x:.1f}" y="{bottom + 14}" text-anchor="middle">{tick:.4g}</text>')
    out.append(f'<text class="small" x="{WIDTH - RIGHT}" y="{bottom + 30}" text-anchor="end">{escape(unit)}</text>')
    return "\n".join([*out, *draw(top), "</svg>"]) + "\n"


def row_name(name, middle):
    return f'<text x="{LEFT - 10}" y="{middle + 4:.1f}" text-anchor="end">{escape(name)}</text>'


def square(x, y, colour):
    return f'<rect x="{x - 5}" y="{y - 5}" width="10" height="10" rx="1" fill="{colour}"/>'


def disc(x, y, colour):
    return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="5" fill="{colour}"/>'


BAR, GROUP_GAP = 10, 10


def bars(title, groups, series, unit):
    """A chart of horizontal bars: `groups` are (name, values), a value (or None) for each of the names in `series`."""
    scale = linear(0, max(value for _, values in groups for value in values if value is not None))
    rows = [sum(value is not None for value in values) for _, values in groups]

    def draw(y):
        out = []
        for (name, values), row in zip(groups, rows):
            out.append(row_name(name, y + row * BAR / 2))
            for value, colour in zip(values, COLOURS):
                if value is None:
                    continue
                end = scale.x(value)
                out.append(f'<rect x="{LEFT}" y="{y}" width="{end - LEFT:.1f}" height="{BAR - 2}" fill="{colour}"/>')
                out.append(f'<text class="small" x="{end + 4:.1f}" y="{y + BAR - 2}">{value:.2g}</text>')
                y += BAR
            y += GROUP_GAP
        return out

    return chart(title, series, scale, unit, sum(row * BAR + GROUP_GAP for row in rows), square, draw)


ROW = 26


def dots(title, rows, series, scale, unit, zero=None):
    """A chart of dots on a line a row: `rows` are (name, values) as for `bars`; `zero` is a value that they are measured from.

    What lies beyond the scale is drawn at its end, with its value.
    """

    def draw(top):
        out = []
        for number, (name, values) in enumerate(rows):
            y = top + number * ROW + ROW / 2
            out.append(row_name(name, y))
            out.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
            # The first series last, on top of the others.
            for value, colour in reversed(list(zip(values, COLOURS))):
                if value is None:
                    continue
                out.append(disc(scale.x(value), y, colour))
                if value > math.nextafter(scale.ticks[-1], math.inf) and scale.x(value) >= WIDTH - RIGHT:
                    out.append(f'<text class="small" x="{WIDTH - RIGHT + 8}" y="{y + 4:.1f}">{value:.3g}</text>')
        if zero is not None:
            x = scale.x(zero)
            out.append(f'<line class="line" x1="{x:.1f}" x2="{x:.1f}" y1="{top - 6}" y2="{top + len(rows) * ROW}"/>')
        return out

    return chart(title, series, scale, unit, len(rows) * ROW, disc, draw)
