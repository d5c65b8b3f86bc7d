"""The tables and the chart of `llmd-ctl bench`."""

from collections.abc import Iterator, Sequence
from typing import Any, Final

from llmd.cli.bench_measure import LONG_TOKENS, SHORT_TOKENS
from llmd.cli.bench_result import Group, Metric, Result, groups, metrics
from llmd.cli.terminal import Cell, Palette, describe_bytes, describe_victims


_BAR_COLUMNS: Final = 40
_GAP: Final = 2
_SOURCES: Final = {
    "timings": "as the engine times itself",
    "usage": "from the engine's count of tokens, timed here",
    "chunks": "from the chunks that came: the engine does not count",
}


def document(results: Sequence[Result], repeats: int) -> dict[str, Any]:
    """All of it, for `--json`: medians with their spread, and each sample."""
    return {
        "repeats": repeats,
        "short_tokens": SHORT_TOKENS,
        "long_tokens": LONG_TOKENS,
        "profiles": [
            {
                "profile": result.profile,
                "engine": result.engine,
                "model": result.model,
                "base": result.base,
                "at_once": result.at_once,
                "source": result.source,
                "metrics": {
                    metric.name: metric.spread and metric.spread._asdict()
                    for metric in metrics(result)
                },
                "samples": {
                    "cold": result.cold,
                    "short": result.short,
                    "long": result.long,
                    "prefill": result.prefill,
                    "together_per_s": result.together_per_s,
                },
                "memory_bytes": result.memory_bytes,
                "error": result.error,
            }
            for result in results
        ],
        "speed_ups": [
            {
                "mlx": group.compared[0].profile,
                "gguf": group.compared[1].profile,
                "metrics": dict(zip(_names(group), group.speed_ups(), strict=True)),
            }
            for group in groups(results)
            if group.compared is not None
        ],
    }


def terminal_lines(results: Sequence[Result], palette: Palette, width: int) -> Iterator[str]:
    """Tables at most *width* columns wide, if one profile is; a chart; notes."""
    for group in groups(results):
        for part in _fitting(group, width):
            head, *rows = _rows(part)
            yield from palette.table(
                [
                    [Cell(text, "bold" if n else "", right=bool(n)) for n, text in enumerate(head)],
                    *([Cell(text, right=bool(n)) for n, text in enumerate(row)] for row in rows),
                ]
            )
            yield ""
    yield from _chart(results, palette)
    yield from notes(results)


def markdown_lines(results: Sequence[Result]) -> Iterator[str]:
    """The tables for a README or an issue."""
    for group in groups(results):
        head, *rows = _rows(group)
        yield _markdown_row(head)
        yield _markdown_row(["---", *(["---:"] * (len(head) - 1))])
        for row in rows:
            yield _markdown_row(row)
        yield ""
    for text in notes(results):
        yield f"- {text}"


def notes(results: Sequence[Result]) -> Iterator[str]:
    """What has to be known to read the tables: sources, short answers, failures."""
    for source, what in _SOURCES.items():
        names = [result.profile for result in results if result.source == source]
        if names:
            yield f"tok/s of {describe_victims(names)}: {what}"
    for result in results:
        asked = ((result.short, SHORT_TOKENS), (result.long, LONG_TOKENS))
        early = [
            f"{fewest} of {wanted}"
            for samples, wanted in asked
            if samples and (fewest := min(sample.tokens for sample in samples)) < wanted
        ]
        if early:
            yield f"{result.profile} ended its answers early: {describe_victims(early)} tokens"
    for result in results:
        if result.error is not None:
            yield f"{result.profile} failed: {result.error}"


def _chart(results: Sequence[Result], palette: Palette) -> Iterator[str]:
    """Decode rates as bars; nothing when there is nothing to compare."""
    rates = [(r.profile, r.decode_per_s.median) for r in results if r.decode_per_s]
    if len(rates) < 2:
        return
    fastest = max(rate for _, rate in rates)
    names = max(len(name) for name, _ in rates)
    for name, rate in rates:
        bar = palette.bar(rate / fastest, _BAR_COLUMNS, "cyan")
        yield f"{name:<{names}}  {bar} {_rate(rate)} tok/s"
    yield ""


def _fitting(group: Group, width: int) -> Iterator[Group]:
    """*group* in parts that fit *width*; the compared pair and its speed-ups are the last."""
    results = list(group.results)
    while results:
        count = len(results)
        while count > 1 and _width(Group(tuple(results[:count]), group.compared)) > width:
            count -= 1
        part = tuple(results[:count])
        del results[:count]
        yield Group(part, group.compared if not results else None)


def _width(group: Group) -> int:
    columns = zip(*_rows(group), strict=True)
    return sum(max(len(text) for text in column) + _GAP for column in columns) - _GAP


def _rows(group: Group) -> Iterator[list[str]]:
    """The head, the engines and each metric of *group*, as text."""
    compared = [] if group.compared is None else ["speed-up"]
    yield ["", *(result.profile for result in group.results), *compared]
    pair = [f"{group.compared[0].profile} / {group.compared[1].profile}"] if group.compared else []
    yield ["", *(result.engine for result in group.results), *pair]
    columns = [[_cell(metric) for metric in metrics(result)] for result in group.results]
    if group.compared is not None:
        columns.append(["-" if up is None else f"{up:.2f}x" for up in group.speed_ups()])
    for name, *cells in zip(_names(group), *columns, strict=True):
        yield [name, *cells]
    sizes = [str(result.at_once) for result in group.results]
    yield ["N", *sizes, *(["-"] if group.compared else [])]


def _names(group: Group) -> list[str]:
    return [metric.name for metric in metrics(group.results[0])]


def _cell(metric: Metric) -> str:
    if metric.spread is None:
        return "-"
    median, low, high = metric.spread
    if metric.unit == "bytes":
        return describe_bytes(int(median))
    show, unit = (_seconds, "s") if metric.unit == "s" else (_rate, "tok/s")
    if low == high:
        return f"{show(median)} {unit}"
    return f"{show(median)} {unit} ({show(low)}-{show(high)})"


def _seconds(value: float) -> str:
    return f"{value:.3f}" if value < 1 else f"{value:.2f}" if value < 10 else f"{value:.1f}"


def _rate(value: float) -> str:
    return f"{value:.1f}" if value < 100 else f"{value:.0f}"


def _markdown_row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |"
