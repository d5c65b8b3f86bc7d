"""What the client gets: the engine's answer, or an error in its place, in one dialect and framing.

Values in, bytes out; the exchange decides when. An answer that was begun early, while the request
still waited, is a stream of events, and so is everything after it: comments, the engine's events,
and in the worst case an error event instead of a clean end.
"""

from collections.abc import Mapping
from typing import Any

from llmd.errors import LlmdError
from llmd.proxy import dialect, sse
from llmd.proxy.limits import Limits
from llmd.proxy.paths import ENDS_WITH_DONE, JSON_ENDPOINTS
from llmd.proxy.reply import Reply
from llmd.proxy.upstream import UpstreamConnection


_EVENTS = b"text/event-stream"
_JSON = b"application/json"


class Relay:
    """The way of one answer.

    Attributes:
        early: The head went out before the engine's.
        events: Splits a stream of events; None for any other body.
    """

    __slots__ = ("_collected", "_last_piece", "_limits", "_path", "_reply", "early", "events")

    def __init__(self, reply: Reply, path: str, limits: Limits) -> None:
        self._reply = reply
        self._path = path
        self._limits = limits
        self._collected = b""
        self._last_piece = b""
        self.early = False
        self.events: sse.EventStream | None = None

    @property
    def can_explain(self) -> bool:
        """Whether an error can still be told: before the head, or as an event."""
        return not self._reply.status or self.early or self.events is not None

    @property
    def said_done(self) -> bool:
        """Whether a stream has said `[DONE]`: whatever happens next, the answer is whole."""
        return self.events is not None and self._path in ENDS_WITH_DONE and self.events.done

    def name_profile(self, profile: str) -> None:
        """The answer will say who gave it."""
        self._reply.lines += b"X-LLMD-Profile: %b\r\n" % profile.encode()

    # --- waiting ---

    def comment(self, text: str, profile: str | None) -> bytes:
        """A sign of life, behind the head of a stream if none was sent; b"" where none fits.

        *profile* is named in that head, unless `name_profile` has done so.
        """
        out = b""
        if not self._reply.status:
            self.early = True
            if profile is not None:
                self.name_profile(profile)
            out = self._reply.head(200, sse.STREAM_LINES, None)
        elif not (self.early if self.events is None else self.events.between_events):
            return b""
        return out + self._reply.encode(sse.comment(text))

    # --- the engine's answer ---

    def head(self, connection: UpstreamConnection) -> bytes:
        """Its head; nothing when one was sent early."""
        lines = connection.lines
        if connection.content_type.startswith(_EVENTS):
            self.events = sse.EventStream(self._limits.max_event_bytes)
            if b"x-accel-buffering" not in lines.lower():
                lines += b"X-Accel-Buffering: no\r\n"
        if self.early:
            return b""
        return self._reply.head(connection.status, lines, connection.length)

    def fits(self, connection: UpstreamConnection) -> bool:
        """Whether its body can follow what was sent: behind an early head, only events can."""
        return not self.early or connection.content_type.startswith(_EVENTS)

    def piece(self, body: bytes) -> bytes:
        """A piece of its body."""
        if self.events is not None:
            body = self.events.feed(body)
        elif not body.isspace():
            self._last_piece = body
        return self._reply.encode(body) if body else b""

    def ended_well(self, connection: UpstreamConnection) -> bool:
        """Whether its end can be trusted.

        A killed engine closes its connection as politely as one that is through, so a stream that
        ends by closing must have said `[DONE]`, and a JSON object must have its last brace.
        """
        if not connection.until_close:
            return True
        if self.events is not None:
            return self._path not in ENDS_WITH_DONE or self.events.done
        return (
            self._path not in JSON_ENDPOINTS
            or not connection.content_type.startswith(_JSON)
            or self._reply.head_only
            or self._last_piece.rstrip().endswith(b"}")
        )

    def end(self) -> bytes:
        """The end of a complete body."""
        rest = b"" if self.events is None else self.events.rest()
        return (self._reply.encode(rest) if rest else b"") + self._reply.tail()

    # --- the engine's errors ---

    def collects(self, connection: UpstreamConnection) -> bool:
        """Whether the answer that begins is an error to be put into OpenAI's shape."""
        return (
            connection.status >= 400
            and not self._reply.head_only
            and not connection.content_type.startswith(_EVENTS)
            and (self.early or (connection.length or 0) <= self._limits.max_error_bytes)
        )

    def collect(self, body: bytes) -> bool:
        """Gather a piece of an error; False when it has become too large to be one."""
        if len(self._collected) <= self._limits.max_error_bytes:
            self._collected += body
        return self.early or len(self._collected) <= self._limits.max_error_bytes

    def give_up_collecting(self, connection: UpstreamConnection) -> bytes:
        """Pass on what was collected, and the rest of it as it comes."""
        collected, self._collected = self._collected, b""
        return self.head(connection) + self.piece(collected)

    def engine_error(self, connection: UpstreamConnection) -> bytes:
        """What was collected, as an OpenAI error; ends the answer."""
        document = dialect.normalise(connection.status, self._collected)
        if self.early:
            return self._event(document)
        lines = connection.lines.splitlines(keepends=True)
        retry = b"".join(line for line in lines if line.lower().startswith(b"retry-"))
        body = dialect.render(document, self._path)
        return self._reply.whole(connection.status, dialect.JSON_LINES + retry, body)

    # --- llmd's errors ---

    def error(self, error: LlmdError) -> bytes:
        """*error* in place of an answer, or of its end; ends the answer, without `[DONE]`."""
        if self._reply.status:
            return self._event(error.to_openai())
        body = dialect.render(error.to_openai(), self._path)
        return self._reply.whole(error.status, dialect.error_lines(error), body)

    def _event(self, document: Mapping[str, Any]) -> bytes:
        gap = b"" if self.events is None else self.events.gap()
        event = gap + dialect.error_event(document, self._path)
        return self._reply.encode(event) + self._reply.tail()
