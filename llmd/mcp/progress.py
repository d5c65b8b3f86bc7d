"""Progress notifications: what a call is doing, while its client waits."""

import re
from collections.abc import Awaitable, Callable
from typing import Final

import anyio

from llmd.admin import wire


Report = Callable[[float, float | None, str | None], Awaitable[None]]
"""The SDK's: progress, total, message. Does nothing for a client that asked for none."""

TOKENS_EVERY_S: Final = 0.5
SAY_AGAIN_S: Final = 5.0
"""Clients that wait longer without a word give up."""

_OF: Final = re.compile(r"keepalive ([0-9]+)/([0-9]+)")


class Progress:
    """Tells the client of one call how far it is.

    The protocol wants a number that grows with each notification, and there is no honest one for a
    load, a prompt and an answer of unknown length together: it counts the notifications, and the
    message says the rest.
    """

    def __init__(self, report: Report) -> None:
        self._report = report
        self._told = 0
        self._last = ""
        self._last_s = 0.0
        self._last_tokens_s = -TOKENS_EVERY_S

    async def tell(self, message: str) -> None:
        """Say *message*; again, too, because that shows that somebody is there."""
        self._told += 1
        self._last, self._last_s = message, anyio.current_time()
        await self._report(float(self._told), None, message)

    async def tell_news(self, message: str) -> None:
        """Say *message* unless it was said just now."""
        if message != self._last or anyio.current_time() - self._last_s >= SAY_AGAIN_S:
            await self.tell(message)

    async def tell_tokens(self, profile: str, count: int, *, reasoning: bool) -> None:
        """Say how many pieces of its answer *profile* has written; now and then."""
        now_s = anyio.current_time()
        if now_s - self._last_tokens_s >= TOKENS_EVERY_S:
            self._last_tokens_s = now_s
            verb = "is thinking" if reasoning else "is writing"
            await self.tell(f"{profile} {verb}: {count} tokens")


def describe_stage(profile: str, stage: str, fraction: float | None) -> str:
    """A stage of a load in words: `code: loading weights, 40 %`."""
    far = "" if fraction is None else f", {fraction:.0%}".replace("%", " %")
    return f"{profile}: {stage or 'loading'}{far}"


def describe_wait(profile: wire.Profile) -> str:
    """What a request to *profile* waits for; empty when that cannot be told."""
    if profile.state == "waiting":
        return f"{profile.name} waits for {profile.waiting_for or 'room'}"
    if profile.state == "loading":
        return describe_stage(profile.name, "loading", profile.progress)
    if profile.state == "ready":
        queued = f", behind {profile.queued} others" if profile.queued > 1 else ""
        return f"{profile.name} is ready and reads the prompt{queued}"
    return ""


def describe_comment(profile: str, text: str) -> str:
    """A comment of an event stream in words."""
    if match := _OF.fullmatch(text):
        return f"{profile} reads the prompt: {match[1]} of {match[2]} tokens"
    return text or f"{profile} is at work"
