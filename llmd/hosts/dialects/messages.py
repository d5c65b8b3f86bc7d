"""Anthropic's Messages: a chat completion's answer as blocks, whole or event by event."""

import json
import uuid
from typing import Any

from llmd.hosts.dialects.blocks import Begun, Block, Blocks, Ended, Grown, Step
from llmd.hosts.dialects.messages_body import chat_of
from llmd.hosts.dialects.translation import cached, choice_of, event
from llmd.hosts.openai_body import RequestError


_STOP_REASONS = {"length": "max_tokens", "tool_calls": "tool_use"}


class Messages:
    """One request to `/v1/messages`; a `Translation`.

    Raises:
        RequestError: The request cannot be served.
    """

    def __init__(self, body: Any, *, profile: str) -> None:
        self.chat = chat_of(body)
        self._id = f"msg_{uuid.uuid4().hex}"
        self._profile = profile
        self._blocks = Blocks()
        self._prompt_tokens = self._cached_tokens = self._completion_tokens = 0
        self._finish: str | None = None
        self._stop_sequence: str | None = None
        self._started = False

    def begun(self, prompt_tokens: int, cached_tokens: int) -> None:
        """Of `Translation`."""
        self._prompt_tokens, self._cached_tokens = prompt_tokens, max(0, cached_tokens)

    def stopped_at(self, word: str) -> None:
        """Of `Translation`."""
        self._stop_sequence = word

    def whole(self, completion: dict[str, Any]) -> dict[str, Any]:
        """The message."""
        self._count(completion)
        choice = choice_of(completion)
        self._finish = choice.get("finish_reason")
        for _ in (*self._blocks.feed(choice.get("message") or {}), *self._blocks.end()):
            pass
        content = [_content(block) for block in self._blocks.whole]
        return self._message(content, self._stop_reason())

    # --- a stream ---

    def chunk(self, chunk: dict[str, Any]) -> bytes:
        """Of `Translation`: blocks begin, grow and end."""
        self._count(chunk)
        choice = choice_of(chunk)
        self._finish = choice.get("finish_reason") or self._finish
        return self._start() + self._events(self._blocks.feed(choice.get("delta") or {}))

    def end(self) -> bytes:
        """Of `Translation`: the last block ends, then the message."""
        blocks = self._start() + self._events(self._blocks.end())
        delta = {"stop_reason": self._stop_reason(), "stop_sequence": self._stop_sequence}
        return (
            blocks
            + event(
                "message_delta", {"type": "message_delta", "delta": delta, "usage": self._usage()}
            )
            + event("message_stop", {"type": "message_stop"})
        )

    def broken(self, error: RequestError) -> bytes:
        """Of `Translation`."""
        told = {**error.to_openai()["error"], "type": "api_error"}
        return event("error", {"type": "error", "error": told})

    def _start(self) -> bytes:
        if self._started:
            return b""
        self._started = True
        return event("message_start", {"type": "message_start", "message": self._message([], None)})

    def _events(self, steps: Any) -> bytes:
        return b"".join(event(each["type"], each) for step in steps for each in self._told(step))

    def _told(self, step: Step) -> list[dict[str, Any]]:
        index = len(self._blocks.whole)
        match step:
            case Begun(block):
                empty = _content(Block(block.kind, name=block.name))
                return [{"type": "content_block_start", "index": index, "content_block": empty}]
            case Grown(block, text):
                return [_delta(index, *_GROWTH[block.kind], text)]
            case Ended(block):
                # What other servers sign; clients send it back and nobody looks at it.
                signed = [_delta(index, "signature_delta", "signature", "")]
                over = {"type": "content_block_stop", "index": index}
                return [*(signed if block.kind == "reasoning" else ()), over]

    # --- the message ---

    def _message(self, content: list[Any], stop_reason: str | None) -> dict[str, Any]:
        return {
            "id": self._id,
            "type": "message",
            "role": "assistant",
            "model": self._profile,
            "content": content,
            "stop_reason": stop_reason,
            "stop_sequence": self._stop_sequence,
            "usage": self._usage(),
        }

    def _stop_reason(self) -> str:
        if self._stop_sequence is not None and self._finish == "stop":
            return "stop_sequence"
        called = any(block.kind == "call" for block in self._blocks.whole)
        if self._finish == "tool_calls" and not called:
            return "end_turn"  # what looked like a call could not be read
        return _STOP_REASONS.get(self._finish or "", "end_turn")

    def _usage(self) -> dict[str, int]:
        return {
            "input_tokens": self._prompt_tokens - self._cached_tokens,
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": self._cached_tokens,
            "output_tokens": self._completion_tokens,
        }

    def _count(self, completion: dict[str, Any]) -> None:
        if usage := completion.get("usage"):
            self.begun(usage["prompt_tokens"], cached(usage))
            self._completion_tokens = usage["completion_tokens"]


_GROWTH = {
    "reasoning": ("thinking_delta", "thinking"),
    "text": ("text_delta", "text"),
    "call": ("input_json_delta", "partial_json"),
}


def _delta(index: int, kind: str, field: str, text: str) -> dict[str, Any]:
    return {"type": "content_block_delta", "index": index, "delta": {"type": kind, field: text}}


def _content(block: Block) -> dict[str, Any]:
    match block.kind:
        case "reasoning":
            return {"type": "thinking", "thinking": block.text, "signature": ""}
        case "text":
            return {"type": "text", "text": block.text}
        case "call":
            called = json.loads(block.text or "{}")
            return {
                "type": "tool_use",
                "id": f"toolu_{uuid.uuid4().hex}",
                "name": block.name,
                "input": called,
            }
