"""What a client of Ollama's API gets: an engine's stream of events as lines, or as one document."""

from collections.abc import Callable, Mapping
from typing import Any, Final

from llmd.proxy import dialect, sse
from llmd.proxy.limits import Limits
from llmd.proxy.ollama.lines import Lines
from llmd.proxy.ollama.question import Question
from llmd.proxy.relay import Relay
from llmd.proxy.reply import Reply
from llmd.proxy.upstream import UpstreamConnection


_LINES: Final = b"Content-Type: application/x-ndjson\r\nCache-Control: no-cache\r\n"
_EVENTS: Final = b"text/event-stream"


class OllamaRelay(Relay):
    """The way of one answer. The engine is always asked to stream.

    Until `ask` is called, it is good for errors alone.
    """

    __slots__ = ("_lines", "_streamed")

    def __init__(self, reply: Reply, path: str, limits: Limits) -> None:
        super().__init__(reply, path, limits)
        self._lines: Lines | None = None
        self._streamed = False

    def ask(self, question: Question, now: Callable[[], float]) -> bytes | None:
        """The answer will be to *question*; durations are told by *now*, in seconds.

        Returns it if no engine is needed for it.
        """
        self._lines = Lines(question, now)
        self._streamed = question.streamed
        return self._lines.whole() if question.purpose == "unload" else None

    # --- waiting ---

    def comment(self, text: str, profile: str | None) -> bytes:
        """A line that says nothing; for one document, nothing at all."""
        del text
        if self._lines is None or not self._streamed:
            return b""
        out = b""
        if not self._reply.status:
            self.early = True
            if profile is not None:
                self.name_profile(profile)
            out = self._reply.head(200, _LINES, None)
        return out + self._reply.encode(self._lines.waiting())

    # --- the engine's answer ---

    def head(self, connection: UpstreamConnection) -> bytes:
        """The head of the lines; one document has it when it is whole."""
        del connection
        self.events = sse.EventStream(self._limits.max_event_bytes)
        if self._lines is not None:
            self._lines.begin()
        if self.early or not self._streamed:
            return b""
        return self._reply.head(200, _LINES, None)

    def fits(self, connection: UpstreamConnection) -> bool:
        """Only events can be made into lines."""
        return connection.content_type.startswith(_EVENTS)

    def piece(self, body: bytes) -> bytes:
        """The lines that a piece of the engine's stream completes."""
        if self.events is None or self._lines is None:
            return b""
        lines = self._lines.feed(self.events.feed(body))
        return self._reply.encode(lines) if lines else b""

    def ended_well(self, connection: UpstreamConnection) -> bool:
        """As for any chat completion: what ends by closing must have said that it was through."""
        return not connection.until_close or self.events is None or self.events.done

    def end(self) -> bytes:
        """The last lines, or the document."""
        if self.events is None or self._lines is None:
            return self._reply.tail()
        out = self._lines.feed(self.events.rest() + b"\n")
        failure = self._lines.failure
        if self._streamed:
            out += b"" if failure is not None else self._lines.end()
            return (self._reply.encode(out) if out else b"") + self._reply.tail()
        if failure is not None:
            return self._reply.whole(502, dialect.JSON_LINES, self._lines.broken(failure))
        return self._reply.whole(200, dialect.JSON_LINES, self._lines.whole())

    # --- errors ---

    def collect(self, body: bytes) -> bool:
        """Gather a piece of an error; of a very long one, its beginning."""
        super().collect(body)
        return True

    def _event(self, document: Mapping[str, Any]) -> bytes:
        line = dialect.render(document, self._path) + b"\n"
        return self._reply.encode(line) + self._reply.tail()
