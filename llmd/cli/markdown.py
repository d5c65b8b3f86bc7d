"""Markdown on a terminal, while it is being written. Imports rich: only for who needs it.

Nothing that was written gets lost on the way to the screen: what Markdown would swallow (tags,
link targets, the backslashes of formulas, single line ends) is shown as it is.
"""

import sys
import time
from collections.abc import Callable
from typing import Final, TextIO

from markdown_it import MarkdownIt
from rich.console import Console
from rich.markdown import Markdown

from llmd.cli.answer import PlainPage
from llmd.cli.blocks import split_finished
from llmd.cli.terminal import columns, harmless, rows


_THEME: Final = "ansi_dark"  # the terminal's own colours, on its own background
_PARSER: Final = (
    MarkdownIt("commonmark", {"html": False})
    .enable(["strikethrough", "table"])
    .disable(["autolink", "entity", "escape", "image", "reference"])
)
_REST_PER_DRAW: Final = 4
"""Drawing takes at most a fifth of the time, however long the block has become."""


class LiveArea:
    """The last rows of the terminal, drawn again where they change."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._shown: list[str] = []

    def draw(self, lines: list[str]) -> None:
        """Show *lines*, each narrower than the terminal, in place of those before."""
        same = 0
        for old, new in zip(self._shown, lines, strict=False):
            if old != new:
                break
            same += 1
        if same == len(self._shown) == len(lines):
            return
        up = len(self._shown) - same
        begin = f"\x1b[{up}A\r\x1b[J" if up else ""
        self._out.write(begin + "".join(f"{line}\n" for line in lines[same:]))
        self._out.flush()
        self._shown = lines

    def keep(self) -> None:
        """Leave what is shown where it is, and begin anew below."""
        self._shown = []


class MarkdownStream:
    """Renders a growing text: finished blocks for good, the last one again as it grows.

    Of a last block that is higher than the terminal only its end is shown, until it is finished.
    """

    def __init__(self, out: TextIO, clock: Callable[[], float] = time.monotonic) -> None:
        self._area = LiveArea(out)
        self._out = out
        self._clock = clock
        self._rest = ""
        self._any = False
        self._next_draw_s = 0.0

    def feed(self, text: str) -> None:
        """Add *text*."""
        self._rest += text
        finished: list[str] = []
        if "\n" in text:
            finished, self._rest = split_finished(self._rest)
        for block in finished:
            self._finish(block)
        began_s = self._clock()
        if finished or began_s >= self._next_draw_s:
            self._area.draw(self._render(self._rest)[-max(1, rows(self._out) - 1) :])
            now_s = self._clock()
            self._next_draw_s = now_s + (now_s - began_s) * _REST_PER_DRAW

    def end(self) -> None:
        """Show all that is left."""
        self._finish(self._rest)
        self._rest = ""

    def _finish(self, block: str) -> None:
        self._area.draw(self._render(block))
        self._area.keep()
        self._any = self._any or bool(block.strip())

    def _render(self, block: str) -> list[str]:
        """*block* as lines for the terminal, an empty one before all but the first."""
        if not block.strip():
            return []
        # A column to spare: terminals and rich do not agree on the width of every character.
        console = Console(
            file=self._out,
            width=max(20, columns(self._out) - 1),
            force_terminal=True,
            highlight=False,
        )
        with console.capture() as captured:
            console.print(_Markdown(block))
        lines = [line.rstrip(" ") for line in captured.get().rstrip("\n").split("\n")]
        return ["", *lines] if self._any else lines


class RenderedPage(PlainPage):
    """Reasoning as it comes, dimmed; the answer as rendered Markdown."""

    def __init__(self) -> None:
        super().__init__()
        self._stream = MarkdownStream(sys.stdout)
        self._begun = False

    def answer(self, text: str) -> None:
        """Render *text* with what came before."""
        if not self._begun:
            text = text.lstrip("\n")
            if not text:
                return
            self._begun = True
            if self._section == "reasoning":
                self.write("\n" if self._ends_line else "\n\n")
                self._ends_line = True
        self._stream.feed(harmless(text))

    def end(self) -> None:
        """Show what is left."""
        self._stream.end()
        super().end()


class _Markdown(Markdown):
    """rich's Markdown, read by a parser that drops nothing."""

    def __init__(self, text: str) -> None:
        super().__init__("", code_theme=_THEME, hyperlinks=False)
        self.parsed = _PARSER.parse(text)
        for token in self.parsed:
            for child in token.children or ():
                if child.type == "softbreak":
                    child.type = "hardbreak"  # models end lines on purpose
