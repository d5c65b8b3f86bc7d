"""What the events of an answer add up to: its text, its tokens, and when they came."""

import time
from collections.abc import Callable, Iterator
from typing import Any, Literal, NamedTuple

from llmd.admin import asking
from llmd.cli.terminal import describe_seconds


class Piece(NamedTuple):
    """A part of an answer, as it arrived."""

    text: str
    reasoning: bool


class Tally:
    """Takes the events of one stream, in order. Times are monotonic seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._content: list[str] = []
        self._pieces = 0
        self.finish: str | None = None
        self.usage: dict[str, Any] = {}
        self.timings: dict[str, Any] = {}
        self.began_s = clock()
        self.first_s: float | None = None
        self.ended_s = self.began_s

    def take(self, event: dict[str, Any]) -> Iterator[Piece]:
        """Count *event*, and give what text is in it."""
        self.ended_s = self._clock()
        self.usage = event.get("usage") or self.usage
        self.timings = event.get("timings") or self.timings
        for choice in event.get("choices") or ():
            self.finish = choice.get("finish_reason") or self.finish
            delta = choice.get("delta") or {}
            reasoning, content = asking.reasoning_of(delta), delta.get("content") or ""
            if (reasoning or content) and self.first_s is None:
                self.first_s = self.ended_s
            for text, is_reasoning in ((reasoning, True), (content, False)):
                if text:
                    self._pieces += 1
                    if not is_reasoning:
                        self._content.append(text)
                    yield Piece(text, is_reasoning)

    @property
    def content(self) -> str:
        """The answer so far, without its reasoning."""
        return "".join(self._content)

    @property
    def source(self) -> Literal["timings", "usage", "chunks"]:
        """How tokens are known: the engine's own measure, its count, or what arrived."""
        if self.timings.get("predicted_n"):
            return "timings"
        return "usage" if self.usage.get("completion_tokens") else "chunks"

    @property
    def tokens(self) -> int:
        """Tokens of the answer, reasoning included."""
        counted = self.usage.get("completion_tokens") or self.timings.get("predicted_n")
        return int(counted or self._pieces)

    @property
    def prompt_tokens(self) -> int:
        """Tokens of the prompt; 0 when the engine does not tell."""
        return int(self.usage.get("prompt_tokens") or 0)

    @property
    def cached_tokens(self) -> int:
        """Those of the prompt that the engine still knew."""
        details = self.usage.get("prompt_tokens_details") or {}
        return int(details.get("cached_tokens") or self.timings.get("cache_n") or 0)

    @property
    def wait_s(self) -> float | None:
        """From the question to the first token; None when none came."""
        return None if self.first_s is None else self.first_s - self.began_s

    @property
    def total_s(self) -> float:
        """From the question to the end."""
        return self.ended_s - self.began_s

    @property
    def decode_per_s(self) -> float | None:
        """Tokens per second after the first; None for answers too short to tell."""
        if self.first_s is None or self.tokens < 2:
            return None
        if self.source == "timings" and self.timings.get("predicted_per_second"):
            return float(self.timings["predicted_per_second"])
        lasted_s = self.ended_s - self.first_s
        return (self.tokens - 1) / lasted_s if lasted_s > 0 else None

    def summary(self, profile: str) -> str:
        """Tokens and their rate in one line, for `-v`."""
        if self.wait_s is None:
            return f"{profile}: no token"
        parts = [f"{self.tokens} tokens"]
        if self.prompt_tokens:
            parts.insert(0, f"prompt of {self.prompt_tokens} tokens")
        if (rate := self.decode_per_s) is not None:
            parts.append(f"{rate:.1f} tok/s")
        parts.append(f"first after {describe_seconds(self.wait_s)}")
        parts.append(f"{describe_seconds(self.total_s)} in all")
        return f"{profile}: {', '.join(parts)}"
