"""Words, numbers and colours for people. Imports nothing that takes time."""

import math
import os
import sys
from collections.abc import Sequence
from typing import Final, NamedTuple, TextIO

from llmd.errors import describe_bytes


_STYLES: Final = {
    "bold": "1",
    "dim": "2",
    "red": "31",
    "green": "32",
    "yellow": "33",
    "blue": "34",
    "cyan": "36",
}
_DEFAULT_COLUMNS: Final = 80
_DEFAULT_ROWS: Final = 24
_CONTROLS: Final = dict.fromkeys(
    code for code in (*range(0x20), *range(0x7F, 0xA0)) if chr(code) not in "\t\n"
)


class Cell(NamedTuple):
    """A table's field: text, and how it is painted."""

    text: str
    style: str = ""
    right: bool = False


class Palette:
    """Paints text with escape codes, or leaves it as it is."""

    def __init__(self, *, enabled: bool, unicode: bool = True) -> None:
        self.enabled = enabled
        self.unicode = unicode

    @classmethod
    def of(cls, stream: TextIO) -> "Palette":
        """Colours on a terminal that has them, unless NO_COLOR is set; blocks where UTF-8 is."""
        terminal = is_terminal(stream) and os.environ.get("TERM") != "dumb"
        encoding = (getattr(stream, "encoding", None) or "ascii").lower()
        return cls(
            enabled=terminal and not os.environ.get("NO_COLOR"),
            unicode=encoding.replace("-", "") == "utf8",
        )

    def paint(self, text: str, style: str) -> str:
        """*text* in *style* (`red`, `bold`, `""`)."""
        if not (self.enabled and style and text):
            return text
        return f"\x1b[{_STYLES[style]}m{text}\x1b[0m"

    def bar(self, fraction: float, width: int, style: str) -> str:
        """A bar of *width* columns, filled to *fraction*. Never empty nor full unless it is."""
        fraction = min(1.0, max(0.0, fraction))
        filled = round(fraction * width)
        if 0 < fraction < 1:
            filled = min(width - 1, max(1, filled))
        full, empty = ("█", "░") if self.unicode else ("#", ".")
        return self.paint(full * filled, style) + self.paint(empty * (width - filled), "dim")

    def cut(self, text: str, width: int) -> str:
        """*text* in at most *width* columns; says when something is missing."""
        if len(text) <= width:
            return text
        mark = "…" if self.unicode else "~"
        return text[: max(0, width - 1)] + mark

    def wrap(self, text: str, width: int, *, lines: int) -> list[str]:
        """*text* on at most *lines* lines of *width* columns, broken between words."""
        out: list[str] = []
        rest = " ".join(text.split())
        while len(rest) > width and len(out) < lines - 1:
            at = rest.rfind(" ", 1, width + 1)
            at = width if at < 0 else at
            out.append(rest[:at])
            rest = rest[at:].lstrip()
        return [*out, self.cut(rest, width)]

    def table(self, rows: Sequence[Sequence[Cell]]) -> list[str]:
        """*rows* as aligned lines, two blanks between columns."""
        widths = [max(len(cell.text) for cell in column) for column in zip(*rows, strict=True)]
        lines = []
        for row in rows:
            parts = []
            for cell, width in zip(row, widths, strict=True):
                pad = " " * (width - len(cell.text))
                text = self.paint(cell.text, cell.style)
                parts.append(pad + text if cell.right else text + pad)
            lines.append("  ".join(parts).rstrip())
        return lines


def is_terminal(stream: TextIO) -> bool:
    """Whether a person looks at *stream*."""
    try:
        return stream.isatty()
    except ValueError:  # it is closed
        return False


def harmless(text: str) -> str:
    """*text* without control characters but tab and line end.

    What a model or an engine wrote must not move the cursor, retitle the window, or type.
    """
    return text.translate(_CONTROLS)


def rows(stream: TextIO) -> int:
    """How high *stream*'s terminal is; 24 when there is no telling."""
    try:
        return os.get_terminal_size(stream.fileno()).lines or _DEFAULT_ROWS
    except (OSError, ValueError):
        return _DEFAULT_ROWS


def columns(stream: TextIO) -> int:
    """How wide *stream* is: its terminal's width, else COLUMNS, else 80."""
    try:
        return os.get_terminal_size(stream.fileno()).columns or _DEFAULT_COLUMNS
    except (OSError, ValueError):
        width = os.environ.get("COLUMNS", "")
        return int(width) if width.isdigit() and int(width) > 0 else _DEFAULT_COLUMNS


def describe_seconds(seconds: float) -> str:
    """A duration as people say it: `0.4 s`, `12 s`, `3 min 5 s`, `2 h 10 min`, `3 d 4 h`."""
    if math.isinf(seconds):
        return "for ever"
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    rest = round(seconds)
    for size, unit, smaller, part in (
        (86400, "d", 3600, "h"),
        (3600, "h", 60, "min"),
        (60, "min", 1, "s"),
    ):
        if rest >= size:
            more = rest % size // smaller
            return f"{rest // size} {unit} {more} {part}" if more else f"{rest // size} {unit}"
    return f"{rest} s"


def describe_victims(names: Sequence[str]) -> str:
    """*names* as a list in a sentence: `chat`, `chat and raw`, `chat, raw and lab`."""
    if len(names) < 2:
        return "".join(names)
    return f"{', '.join(names[:-1])} and {names[-1]}"


def note(text: str) -> None:
    """Tell the person at the terminal something that is no result."""
    print(text, file=sys.stderr, flush=True)


__all__ = [
    "Cell",
    "Palette",
    "columns",
    "describe_bytes",
    "describe_seconds",
    "describe_victims",
    "harmless",
    "is_terminal",
    "note",
    "rows",
]
