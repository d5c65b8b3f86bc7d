"""A streamed chat completion, as the lines of Ollama's answer."""

import json
from collections.abc import Callable
from typing import Any, Final

import msgspec

from llmd.proxy.ollama.names import timestamp
from llmd.proxy.ollama.question import Question


MAX_EVENT_BYTES: Final = 16 * 2**20
"""A whole event is read at once; a tool call of mlx_lm comes in one."""

_NS: Final = 1_000_000_000
_NS_IN_MS: Final = 1_000_000


class Function(msgspec.Struct):
    """A part of a call: its name first, then pieces of its arguments."""

    name: str | None = None
    arguments: str | None = None


class Call(msgspec.Struct):
    """A part of one of the calls."""

    index: int = 0
    id: str | None = None
    function: Function = msgspec.field(default_factory=Function)


class Delta(msgspec.Struct):
    """What was added to the message."""

    content: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    tool_calls: list[Call] | None = None


class Choice(msgspec.Struct):
    """The one choice."""

    delta: Delta = msgspec.field(default_factory=Delta)
    finish_reason: str | None = None


class Usage(msgspec.Struct):
    """Tokens."""

    prompt_tokens: int = 0
    completion_tokens: int = 0


class Timings(msgspec.Struct):
    """What llama.cpp measured itself, in milliseconds."""

    prompt_ms: float = 0.0
    predicted_ms: float = 0.0


class Chunk(msgspec.Struct):
    """One event, as far as it matters here."""

    choices: list[Choice] = []
    usage: Usage | None = None
    timings: Timings | None = None
    error: Any = None


_CHUNK: Final = msgspec.json.Decoder(Chunk)


class Lines:
    """Takes the bytes of a stream as they come and gives lines.

    What a client that wants one document gets is gathered; a stream keeps nothing but its calls.

    Args:
        question: What was asked.
        now: Seconds, monotonic.

    Attributes:
        failure: What went wrong in the middle, in the engine's words.
    """

    def __init__(self, question: Question, now: Callable[[], float]) -> None:
        self._question = question
        self._now = now
        self._asked_s = now()
        self._begun_s = self._first_s = self._last_s = 0.0
        self._rest = b""
        self._calls: dict[int, Call] = {}
        self._text = self._thoughts = ""
        self._finish = "stop"
        self._usage = Usage()
        self._timings: Timings | None = None
        self.failure: str | None = None

    def begin(self) -> None:
        """The engine has begun to answer; what was before is called loading."""
        self._begun_s = self._now()

    def feed(self, data: bytes) -> bytes:
        """The lines that *data* completes; for a client that wants one document, none."""
        if self.failure is not None:
            return b""
        *lines, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) > MAX_EVENT_BYTES:
            return self._fail(f"the engine sent an event of more than {MAX_EVENT_BYTES} bytes")
        return b"".join(self._line(line) for line in lines)

    def waiting(self) -> bytes:
        """A line that says nothing, for clients that would give up on silence."""
        return self._write("", "")

    def end(self) -> bytes:
        """The last lines: the calls, then what it took."""
        calls = [_call(call) for call in self._calls.values()]
        calls = [call for call in calls if call is not None]
        out = self._write("", "", calls) if calls else b""
        return out + self._encode({**self._said("", ""), **self._summary()})

    def whole(self) -> bytes:
        """The one document."""
        calls = [_call(call) for call in self._calls.values()]
        said = self._said(self._text, self._thoughts, [call for call in calls if call is not None])
        return msgspec.json.encode({**said, **self._summary()})

    def broken(self, message: str) -> bytes:
        """The line that ends a stream that cannot be completed."""
        return self._encode({"error": message})

    # --- events ---

    def _line(self, line: bytes) -> bytes:
        if not line.startswith(b"data:") or self.failure is not None:
            return b""
        data = line[5:].strip()
        if data == b"[DONE]":
            return b""
        try:
            chunk = _CHUNK.decode(data)
        except (msgspec.DecodeError, RecursionError):
            return self._fail("the engine's stream cannot be read")
        if chunk.error is not None:
            return self._fail(_message(chunk.error))
        self._usage = chunk.usage or self._usage
        self._timings = chunk.timings or self._timings
        return self._choice(chunk.choices[0]) if chunk.choices else b""

    def _choice(self, choice: Choice) -> bytes:
        delta = choice.delta
        self._finish = choice.finish_reason or self._finish
        text, thoughts = delta.content or "", delta.reasoning_content or delta.reasoning or ""
        if self._question.purpose:
            return b""
        for part in delta.tool_calls or ():
            self._add(part)
        if text or thoughts or delta.tool_calls:
            self._last_s = self._now()
            self._first_s = self._first_s or self._last_s
        if not self._question.thinking:
            thoughts = ""
        if not self._question.streamed:
            self._text += text
            self._thoughts += thoughts
            return b""
        return self._write(text, thoughts) if text or thoughts else b""

    def _add(self, part: Call) -> None:
        call = self._calls.setdefault(part.index, part)
        if call is not part:
            more = part.function.arguments or ""
            call.function.arguments = (call.function.arguments or "") + more

    def _fail(self, message: str) -> bytes:
        self.failure, self._rest = message, b""
        return self.broken(message) if self._question.streamed else b""

    # --- lines ---

    def _said(self, text: str, thoughts: str, calls: list[Any] | None = None) -> dict[str, Any]:
        head = {"model": self._question.model, "created_at": timestamp()}
        if self._question.generate:
            return {**head, "response": text, **({"thinking": thoughts} if thoughts else {})}
        message: dict[str, Any] = {"role": "assistant", "content": text}
        if thoughts:
            message["thinking"] = thoughts
        if calls:
            message["tool_calls"] = calls
        return {**head, "message": message}

    def _write(self, text: str, thoughts: str, calls: list[Any] | None = None) -> bytes:
        return self._encode({**self._said(text, thoughts, calls), "done": False})

    def _encode(self, document: dict[str, Any]) -> bytes:
        return msgspec.json.encode(document) + b"\n"

    def _summary(self) -> dict[str, Any]:
        if self._question.purpose:
            return {"done": True, "done_reason": self._question.purpose}
        end_s = self._now()
        begun_s = self._begun_s or end_s
        first_s = self._first_s or end_s
        prompt_ns = round((first_s - begun_s) * _NS)
        answer_ns = round(((self._last_s or end_s) - first_s) * _NS)
        if self._timings is not None:
            prompt_ns = round(self._timings.prompt_ms * _NS_IN_MS)
            answer_ns = round(self._timings.predicted_ms * _NS_IN_MS)
        total_ns = round((end_s - self._asked_s) * _NS)
        return {
            "done": True,
            "done_reason": "length" if self._finish == "length" else "stop",
            "total_duration": total_ns,
            "load_duration": max(0, total_ns - prompt_ns - answer_ns),
            "prompt_eval_count": self._usage.prompt_tokens,
            "prompt_eval_duration": prompt_ns,
            "eval_count": self._usage.completion_tokens,
            "eval_duration": answer_ns,
        }


def _call(call: Call) -> dict[str, Any] | None:
    """*call* with its arguments as an object; None when they were cut off."""
    try:
        arguments = json.loads(call.function.arguments or "{}")
    except (ValueError, RecursionError):
        return None
    return {"function": {"name": call.function.name or "", "arguments": arguments}}


def _message(error: Any) -> str:
    """What an engine's error object says, whatever its shape."""
    if isinstance(error, dict) and isinstance(error.get("message"), str):
        return str(error["message"])
    return error if isinstance(error, str) else "the engine failed"
