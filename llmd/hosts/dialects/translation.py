"""One request in another dialect, answered by a chat completion."""

import json
from typing import Any, Protocol

from llmd.hosts.openai_body import RequestError


class Translation(Protocol):
    """Made of a request; it gives the chat completion to ask for, and takes what comes of it.

    Attributes:
        chat: The body of the chat completion, not yet looked at by `edit_body`.
    """

    chat: dict[str, Any]

    def begun(self, prompt_tokens: int, cached_tokens: int) -> None:
        """The prompt has been read; of its tokens, so many are remembered from earlier ones."""

    def stopped_at(self, word: str) -> None:
        """The answer ends where *word*, one of the request's, would have been next."""

    def chunk(self, chunk: dict[str, Any]) -> bytes:
        """The events that one object of a streamed completion becomes."""

    def end(self) -> bytes:
        """The events that end the stream."""

    def broken(self, error: RequestError) -> bytes:
        """The event that ends a stream that cannot be completed."""

    def whole(self, completion: dict[str, Any]) -> dict[str, Any]:
        """The answer that a completion becomes that was not streamed."""


def event(name: str, data: dict[str, Any]) -> bytes:
    """One server-sent event."""
    return b"event: %b\ndata: %b\n\n" % (name.encode(), json.dumps(data).encode())


def choice_of(completion: dict[str, Any]) -> dict[str, Any]:
    """The one choice of a completion or a chunk; empty in the chunk that only counts."""
    choices = completion.get("choices")
    found: dict[str, Any] = choices[0] if choices else {}
    return found


def cached(usage: dict[str, Any]) -> int:
    """Prompt tokens that were remembered, by a completion's *usage*."""
    return int((usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0)
