"""Charts of build/bench/*.json, as SVG that suits light and dark pages.

    python -m tests.bench.charts                    into etc/charts, for the README
    python -m tests.bench.charts DIRECTORY

`data_plane` is drawn from the figures of `rivals`, `swap` from those of `swap`, `victims` from
those of `eviction`: a row for each family, a mark for each policy, further left is better.
Where there are no figures there is no chart.
"""

import math
import sys
from html import escape
from pathlib import Path

from tests.bench.report import ROOT, load, number, say


WIDTH, LABEL, BAR, ROW = 680, 190, 390, 24
PAGE = """<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" \
viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="13">
<style>
.page {{ fill: #ffffff }} text {{ fill: #1f2933 }} .line {{ stroke: #c9d1d9 }}
.ours {{ fill: #2f6f4f }} .others {{ fill: #9aa5b1 }} .limit {{ fill: none; stroke: #1f2933 }}
.lfu {{ fill: #b45309 }} .gdsf {{ fill: #6d5bd0 }}
@media (prefers-color-scheme: dark) {{
.page {{ fill: #0d1117 }} text {{ fill: #d7dde3 }} .line {{ stroke: #3d444d }}
.ours {{ fill: #56b886 }} .others {{ fill: #6e7781 }} .limit {{ stroke: #d7dde3 }}
.lfu {{ fill: #e3a04f }} .gdsf {{ fill: #a99bf5 }}
}}
</style>
<rect class="page" width="100%" height="100%"/>
{body}
</svg>
"""
POLICIES = {"LFU": "lfu", "GDSF": "gdsf", "clairvoyant": "limit", "llmd": "ours"}
"""The marks of a row, in the order in which they are drawn, and their classes. LRU is the line."""
LEAST, MOST = 0.4, 1.6
"""Of the axis, in waiting under LRU; what lies beyond is drawn at its edge."""


def page(parts, height):
    return PAGE.format(width=WIDTH, height=height, body="\n".join(parts))


def text(x, y, words, *, anchor="start", more=""):
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{more}>{escape(words)}</text>'


def heading(y, words):
    return text(12, y, words, more=' font-size="15" font-weight="bold"')


def bars(title, values, *, top=0, logarithmic=False):
    """Horizontal bars below *title*, those of llmd in a colour: parts, and where they end."""
    scale = math.log10 if logarithmic else float
    most = scale(max(values.values()))
    parts = [heading(top + 24, title)]
    for index, (name, value) in enumerate(values.items()):
        y = top + 38 + index * ROW
        length = max(scale(max(value, 1)) / most * BAR, 1)
        kind = "ours" if name.startswith("llmd") else "others"
        parts += [
            text(LABEL - 8, y + 13, name, anchor="end"),
            f'<rect class="{kind}" x="{LABEL}" y="{y}" width="{length:.1f}" height="16"/>',
            text(LABEL + length + 8, y + 13, number(value)),
        ]
    return parts, top + 46 + len(values) * ROW


def data_plane(rows):
    rate = rows["requests/s, 32 connections"]
    added, middle = bars(
        "µs added to a small request, p50 (logarithmic)",
        rows["added to a small POST, p50, µs"],
        logarithmic=True,
    )
    through = {name: value for name, value in rate.items() if name != "direct"}
    rates, bottom = bars("requests/s, 32 connections", through, top=middle)
    return page(added + rates, bottom)


def swap(found):
    seconds = {
        name: row["median, s"] for name, row in found["first_token"].items() if "boot" not in name
    }
    return page(*bars("seconds from a request to its first token, cold port", seconds))


def victims(found):
    """Marks on a line for each family; no numbers but the axis': the table has them."""
    ratios = found["ratios"]["reported"]
    families = [
        name for name, row in ratios.items() if name not in {"worst family", "mean, other half"}
    ]
    bottom = 66 + len(families) * ROW
    parts = [heading(24, "seconds that users wait, LRU = 1")]
    for index, (policy, kind) in enumerate(POLICIES.items()):
        x = LABEL + index * 110
        parts += [mark(kind, x + 4, 44), text(x + 14, 48, policy)]
    for step in range(round(LEAST * 5), round(MOST * 5) + 1):
        x = across(step / 5)
        wide = 2 if step == 5 else 1
        parts += [
            f'<path class="line" stroke-width="{wide}" d="M{x:.1f} 58V{bottom}"/>',
            text(x, bottom + 16, f"{step / 5:.1f}", anchor="middle"),
        ]
    for index, family in enumerate(families):
        y = 74 + index * ROW
        parts.append(text(LABEL - 12, y + 4, family.replace("_", " "), anchor="end"))
        parts += [mark(kind, across(ratios[family][p]), y) for p, kind in POLICIES.items()]
    return page(parts, bottom + 26)


def across(ratio):
    return LABEL + (min(max(ratio, LEAST), MOST) - LEAST) / (MOST - LEAST) * (BAR + 60)


def mark(kind, x, y):
    return f'<circle class="{kind}" cx="{x:.1f}" cy="{y}" r="{5.5 if kind == "limit" else 4.5}"/>'


CHARTS = {
    "data_plane": ("rivals", data_plane),
    "swap": ("swap", swap),
    "victims": ("eviction", victims),
}
"""By name of the file: whose figures are drawn, and how."""


def main():
    place = Path(sys.argv[1]) if sys.argv[1:] else ROOT / "etc" / "charts"
    place.mkdir(parents=True, exist_ok=True)
    for name, (bench, draw) in CHARTS.items():
        saved = load(bench)
        if saved is not None:
            (place / f"{name}.svg").write_text(draw(saved["figures"]))
            say(f"drawn: {place / name}.svg")


if __name__ == "__main__":
    main()
