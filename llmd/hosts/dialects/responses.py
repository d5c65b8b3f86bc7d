"""OpenAI's Responses: a chat completion's answer as items, whole or event by event."""

import time
import uuid
from collections.abc import Iterable, Mapping
from typing import Any, Final

from llmd.hosts.dialects.blocks import Begun, Block, Blocks, Ended, Grown, Step
from llmd.hosts.dialects.responses_body import chat_of
from llmd.hosts.dialects.translation import cached, choice_of, event
from llmd.hosts.openai_body import RequestError


_ECHOED: Final[Mapping[str, Any]] = {
    "instructions": None,
    "max_output_tokens": None,
    "metadata": {},
    "parallel_tool_calls": True,
    "temperature": None,
    "text": {"format": {"type": "text"}},
    "tool_choice": "auto",
    "tools": [],
    "top_p": None,
    "truncation": "disabled",
    "user": None,
}
"""What a response repeats of its request, and what it says where the request had nothing."""


class Responses:
    """One request to `/v1/responses`; a `Translation`.

    Raises:
        RequestError: The request cannot be served.
    """

    def __init__(self, body: Any, *, profile: str) -> None:
        self.chat = chat_of(body)
        self._id = f"resp_{uuid.uuid4().hex}"
        self._profile = profile
        self._created_s = int(time.time())
        self._echo = {
            name: body[name] if body.get(name) is not None else otherwise
            for name, otherwise in _ECHOED.items()
        }
        self._blocks = Blocks()
        self._items: list[dict[str, Any]] = []
        """What has been begun; the last one may still grow."""
        self._usage: dict[str, Any] | None = None
        self._finish: str | None = None
        self._sequence = 0

    def begun(self, prompt_tokens: int, cached_tokens: int) -> None:
        """Of `Translation`; usage is told at the end here."""

    def stopped_at(self, word: str) -> None:
        """Of `Translation`; not told here."""

    def whole(self, completion: dict[str, Any]) -> dict[str, Any]:
        """The response."""
        choice = choice_of(completion)
        self._note(completion, choice)
        for step in (*self._blocks.feed(choice.get("message") or {}), *self._blocks.end()):
            if isinstance(step, Ended):
                self._items.append(_item(step.block, _item_id(step.block), self._outcome()))
        return self._response(self._outcome())

    # --- a stream ---

    def chunk(self, chunk: dict[str, Any]) -> bytes:
        """Of `Translation`: items begin, grow and end."""
        choice = choice_of(chunk)
        self._note(chunk, choice)
        return self._start() + self._events(self._blocks.feed(choice.get("delta") or {}))

    def end(self) -> bytes:
        """Of `Translation`: the last item ends, then the response."""
        out = self._start() + self._events(self._blocks.end())
        outcome = self._outcome()
        return out + self._event(f"response.{outcome}", response=self._response(outcome))

    def broken(self, error: RequestError) -> bytes:
        """Of `Translation`."""
        told = error.to_openai()
        return self._event(
            "error", code=error.code, message=str(error), param=error.param, error=told["error"]
        )

    def _start(self) -> bytes:
        if self._sequence:
            return b""
        response = self._response("in_progress")
        return self._event("response.created", response=response) + self._event(
            "response.in_progress", response=response
        )

    def _events(self, steps: Iterable[Step]) -> bytes:
        return b"".join(self._told(step) for step in steps)

    def _told(self, step: Step) -> bytes:
        match step:
            case Begun(block):
                return self._begin(block)
            case Grown(block, text):
                return self._event(
                    f"response.{_GROWTH[block.kind]}.delta", **self._at(block, delta=text)
                )
            case Ended(block):
                return self._end_item(block)

    def _begin(self, block: Block) -> bytes:
        item = _item(Block(block.kind, name=block.name), _item_id(block), "in_progress")
        self._items.append(item)
        out = self._event(
            "response.output_item.added", output_index=len(self._items) - 1, item=item
        )
        if block.kind == "call":
            return out
        return out + self._event(
            "response.content_part.added", **self._at(block, part=_part(block.kind, ""))
        )

    def _end_item(self, block: Block) -> bytes:
        item = self._items[-1] = _item(block, self._items[-1]["id"], self._outcome())
        if block.kind == "call":
            done = {"arguments": block.text, "name": block.name}
        else:
            done = {"text": block.text}
        out = self._event(f"response.{_GROWTH[block.kind]}.done", **self._at(block, **done))
        if block.kind != "call":
            part = _part(block.kind, block.text)
            out += self._event("response.content_part.done", **self._at(block, part=part))
        return out + self._event(
            "response.output_item.done", output_index=len(self._items) - 1, item=item
        )

    def _at(self, block: Block, **fields: Any) -> dict[str, Any]:
        """*fields* of an event about the last item, and where that is."""
        place: dict[str, Any] = {
            "item_id": self._items[-1]["id"],
            "output_index": len(self._items) - 1,
        }
        if block.kind != "call":
            place["content_index"] = 0
        if block.kind == "text" and ("delta" in fields or "text" in fields):
            place["logprobs"] = []
        return {**place, **fields}

    def _event(self, kind: str, **fields: Any) -> bytes:
        told = {"type": kind, "sequence_number": self._sequence, **fields}
        self._sequence += 1
        return event(kind, told)

    # --- the response ---

    def _note(self, completion: Mapping[str, Any], choice: Mapping[str, Any]) -> None:
        self._finish = choice.get("finish_reason") or self._finish
        if usage := completion.get("usage"):
            self._usage = {
                "input_tokens": usage["prompt_tokens"],
                "input_tokens_details": {
                    "cached_tokens": cached(usage),
                    "cache_write_tokens": 0,
                },
                "output_tokens": usage["completion_tokens"],
                "output_tokens_details": {"reasoning_tokens": 0},
                "total_tokens": usage["total_tokens"],
            }

    def _outcome(self) -> str:
        return "incomplete" if self._finish == "length" else "completed"

    def _response(self, status: str) -> dict[str, Any]:
        cut = status == "incomplete"
        return {
            "id": self._id,
            "object": "response",
            "created_at": self._created_s,
            "completed_at": int(time.time()) if status == "completed" else None,
            "status": status,
            "error": None,
            "incomplete_details": {"reason": "max_output_tokens"} if cut else None,
            "model": self._profile,
            "output": [] if status == "in_progress" else self._items,
            "previous_response_id": None,
            "reasoning": {"effort": None, "summary": None},
            "store": False,
            "usage": self._usage,
            **self._echo,
        }


_GROWTH: Final = {
    "reasoning": "reasoning_text",
    "text": "output_text",
    "call": "function_call_arguments",
}
_ID_PREFIXES: Final = {"reasoning": "rs", "text": "msg", "call": "fc"}


def _item_id(block: Block) -> str:
    return f"{_ID_PREFIXES[block.kind]}_{uuid.uuid4().hex}"


def _item(block: Block, item_id: str, status: str) -> dict[str, Any]:
    """*block* as an item of the output."""
    content = [_part(block.kind, block.text)] if block.text else []
    match block.kind:
        case "reasoning":
            return {
                "id": item_id,
                "type": "reasoning",
                "status": status,
                "summary": [],
                "content": content,
                "encrypted_content": "",
            }
        case "text":
            return {
                "id": item_id,
                "type": "message",
                "status": status,
                "role": "assistant",
                "content": content,
            }
        case "call":
            return {
                "id": item_id,
                "type": "function_call",
                "status": status,
                "call_id": f"call_{item_id.partition('_')[2]}",
                "name": block.name,
                "arguments": block.text,
            }


def _part(kind: str, text: str) -> dict[str, Any]:
    if kind == "reasoning":
        return {"type": "reasoning_text", "text": text}
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}
