"""The README's charts, drawn from build/bench/*.json: `python -m tests.bench.charts`.

Bars and nothing else, as SVG: light enough to be kept with the text that they belong to.
"""

from html import escape

from tests.bench.report import ROOT, load, number, say


PLACE = ROOT / "etc" / "charts"
WIDTH, LABEL, BAR, ROW = 640, 190, 340, 26
OURS, OTHERS = "#2f6f4f", "#9aa5b1"

PAGE = """<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" \
viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="13">
<rect width="100%" height="100%" fill="#ffffff"/>
<text x="12" y="24" font-size="15" font-weight="bold" fill="#1f2933">{title}</text>
{rows}
</svg>
"""
LINE = """<text x="{name_x}" y="{text_y}" text-anchor="end" fill="#1f2933">{name}</text>
<rect x="{x}" y="{y}" width="{length:.1f}" height="18" fill="{color}"/>
<text x="{value_x:.1f}" y="{text_y}" fill="#1f2933">{value}</text>"""


def bars(title, values):
    """A chart of horizontal bars; llmd's are in another colour."""
    largest = max(values.values())
    rows = []
    for index, (name, value) in enumerate(values.items()):
        y = 40 + index * ROW
        length = max(value / largest * BAR, 1)
        rows.append(
            LINE.format(
                name_x=LABEL - 8, text_y=y + 14, name=escape(name), x=LABEL, y=y, length=length,
                color=OURS if name.startswith("llmd") else OTHERS, value_x=LABEL + length + 8,
                value=number(value),
            )
        )  # fmt: skip
    height = 52 + len(values) * ROW
    return PAGE.format(width=WIDTH, height=height, title=escape(title), rows="\n".join(rows))


def charts():
    """Each chart that there are figures for, by the name of its file."""
    rivals, swap = load("rivals"), load("swap")
    if rivals is not None:
        yield (
            "latency",
            bars("µs added to a small request, p50", rivals["added to a small POST, p50, µs"]),
        )
        rate = rivals["requests/s, 32 connections"]
        through = {name: value for name, value in rate.items() if name != "direct"}
        yield "throughput", bars("requests/s, 32 connections", through)
    if swap is not None:
        seconds = {name: row["median, s"] for name, row in swap["first_token"].items()}
        now = {name: value for name, value in seconds.items() if "boot" not in name}
        yield "swap", bars("seconds from a request to its first token, cold port", now)


def main():
    PLACE.mkdir(exist_ok=True)
    for name, drawing in charts():
        file = PLACE / f"{name}.svg"
        file.write_text(drawing)
        say(f"drawn: {file.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
