"""An answer on its way to the terminal or into a pipe."""

import os
import sys
from http.client import HTTPResponse
from typing import Final, Protocol, Self

from llmd.cli import asking
from llmd.cli.tally import Tally
from llmd.cli.terminal import Palette, harmless, is_terminal, note


_CLEAR_LINE: Final = "\r\x1b[K"
_NEWS_COLUMNS: Final = 79


class Page(Protocol):
    """Where an answer is shown. Once `end` is called, all that was shown is there to stay."""

    def reasoning(self, text: str) -> None:
        """Show more of the reasoning."""

    def answer(self, text: str) -> None:
        """Show more of the answer."""

    def end(self) -> None:
        """End the last line. Called also when the answer was cut off."""


class PlainPage:
    """Text as it comes. Into a pipe only the answer goes, byte for byte."""

    def __init__(self) -> None:
        self._out = sys.stdout
        self._terminal = is_terminal(sys.stdout)
        self._palette = Palette.of(sys.stdout)
        self._section = ""
        self._ends_line = True

    def reasoning(self, text: str) -> None:
        """Dimmed on a terminal; left out elsewhere."""
        if self._terminal:
            self._show(harmless(text), "reasoning")

    def answer(self, text: str) -> None:
        """As it is, but for what would command the terminal."""
        self._show(harmless(text) if self._terminal else text, "answer")

    def end(self) -> None:
        """End the last line."""
        if not self._ends_line:
            self.write("\n")
            self._ends_line = True

    def _show(self, text: str, section: str) -> None:
        if self._section == "reasoning" and section == "answer":
            text = ("\n" if self._ends_line else "\n\n") + text.lstrip("\n")
        self._section = section
        self.write(self._palette.paint(text, "dim" if section == "reasoning" else ""))
        self._ends_line = text.endswith("\n")

    def write(self, text: str) -> None:
        """Let *text* be seen now."""
        self._out.write(text)
        self._out.flush()


class News:
    """One line on stderr that tells what is waited for, and goes when there is more to see."""

    def __init__(self) -> None:
        self._terminal = is_terminal(sys.stderr)
        self._shown = False

    def tell(self, text: str) -> None:
        """Replace the line, on a terminal."""
        if self._terminal and text:
            sys.stderr.write(f"{_CLEAR_LINE}{harmless(text)[:_NEWS_COLUMNS]}")
            sys.stderr.flush()
            self._shown = True

    def clear(self) -> None:
        """Take the line away."""
        if self._shown:
            sys.stderr.write(_CLEAR_LINE)
            sys.stderr.flush()
            self._shown = False


def page_for(*, plain: bool) -> Page:
    """Rendered Markdown where a person looks at it, else plain text."""
    if plain or not is_terminal(sys.stdout) or os.environ.get("TERM", "dumb") == "dumb":
        return PlainPage()
    from llmd.cli.markdown import RenderedPage  # rich takes a while

    return RenderedPage()


class Progress:
    """How work on a profile is followed on stderr: one line that changes, elsewhere a line a step.

    To be used as a context: leaving it takes the line away.
    """

    def __init__(self, profile: str) -> None:
        self._profile = profile
        self._terminal = is_terminal(sys.stderr)
        self._news = News()
        self._step = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._news.clear()

    def step(self, text: str) -> None:
        """Something new begins."""
        self._step = text
        if self._terminal:
            self.detail("")
        else:
            note(f"{self._profile}: {text}")

    def detail(self, text: str) -> None:
        """How far it is: for terminals."""
        self._news.tell(f"{self._profile}: {self._step}{f', {text}' if text else ''}")

    def warn(self, text: str) -> None:
        """Something about the step that should be known afterwards."""
        self._news.clear()
        note(f"{self._profile}: {self._step}: {text}")


def stream(response: HTTPResponse, profile: str, page: Page) -> Tally:
    """Show the events of *response* on *page*, to their end.

    Raises:
        AnsweredError: The stream ended with an error.
        CutShortError: It ended without saying so.
    """
    tally, news = Tally(), News()

    def comment(text: str) -> None:
        if tally.first_s is None:
            news.tell(text)

    try:
        for event in asking.events(response, comment):
            for piece in tally.take(event):
                news.clear()
                (page.reasoning if piece.reasoning else page.answer)(piece.text)
    finally:
        news.clear()
        page.end()
    if tally.finish == "length" and is_terminal(sys.stderr):
        note(f"({profile} stopped at the limit of tokens)")
    return tally
