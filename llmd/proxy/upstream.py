"""One connection to a host: the request goes out, the answer comes in piece by piece."""

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, Protocol, cast

import httptools

from llmd.proxy.headers import CORS, NOT_PASSED_BACK
from llmd.proxy.known import KnownHead


if TYPE_CHECKING:
    from llmd.proxy.pool import Shelf


_MAX_BARREN: Final = 256 * 2**10
"""Bytes without any of a body: heads, interim answers, chunk extensions, trailers."""
_USUAL: Final = frozenset({b"close", b"keep-alive"})


class Receiver(Protocol):
    """Who waits for an answer."""

    def received(self, connection: "UpstreamConnection", body: bytes) -> None:
        """Something came: a head (`fresh_head`), a piece of *body*, the end (`complete`)."""

    def broke(self, connection: "UpstreamConnection") -> None:
        """The connection ended, or turned out not to speak HTTP, before the answer was complete."""


class UpstreamConnection(asyncio.Protocol):
    """A connection that serves one request at a time, and again after a clean answer.

    Attributes:
        reused: It has served a request before, so its end may have nothing to do with this one.
        started: A byte of the current answer has come.
        fresh_head: The head was completed by this read.
        length: Of the body by Content-Length; None when only its end will tell.
        until_close: The end of the connection is the end of the body.
        lines: Header lines for the client, each with its end.
        fault: What was wrong with the engine's HTTP; empty while nothing is.
    """

    __slots__ = (
        "_barren_bytes", "_head_only", "_headers", "_interim", "_keeps_alive", "_known", "_named",
        "_on_idle_end", "_parser", "_pieces", "_shelf", "_transport", "chunked", "complete",
        "content_type", "fault", "fresh_head", "idle_since_s", "length", "lines", "lost", "on_body",
        "receiver", "reused", "started", "status", "until_close",
    )  # fmt: skip

    def __init__(self, shelf: "Shelf", on_idle_end: Callable[["UpstreamConnection"], None]) -> None:
        self._shelf = shelf
        self._on_idle_end = on_idle_end
        self._transport: asyncio.Transport | None = None
        self._pieces: list[bytes] = []
        self.on_body = self._pieces.append
        """llhttp's callback, without a Python frame in between."""
        self._parser = httptools.HttpResponseParser(self)
        self._known: tuple[KnownHead, int, bytes, bytes] | None = None
        """The head of an answer that came in one piece: its status, lines and content type."""
        self.receiver: Receiver | None = None
        self.lost = False
        self.reused = False
        self.idle_since_s = 0.0
        self._forget_answer()

    def _forget_answer(self) -> None:
        self.status = 0
        self.lines = b""
        self._headers: list[bytes] = []
        self.length: int | None = None
        self.chunked = False
        self.until_close = False
        self.content_type = b""
        self.started = False
        self.fresh_head = False
        self.complete = False
        self.fault = ""
        self._barren_bytes = 0
        """Since a piece of the body came last."""
        self._named: list[bytes] = []
        """Headers that are for llmd only, because `Connection` names them."""
        self._interim = False
        self._head_only = False
        self._keeps_alive = False

    @property
    def shelf(self) -> "Shelf":
        """Where it returns to."""
        return self._shelf

    # --- for the one who sends ---

    def send(
        self, receiver: Receiver, head: bytes, body: bytes | bytearray, *, head_only: bool
    ) -> None:
        """Send a request; *receiver* hears the answer. The connection must be free."""
        self._forget_answer()
        self.receiver = receiver
        self._head_only = head_only
        transport = self._transport
        if transport is None:
            raise RuntimeError("the connection was not made")
        if not body:
            transport.write(head)
        elif len(body) < 16384:
            transport.write(head + body)
        else:
            transport.writelines((head, body))

    @property
    def open(self) -> bool:
        """Whether it is still connected, as far as is known."""
        return not self.lost and self._transport is not None and not self._transport.is_closing()

    @property
    def reusable(self) -> bool:
        """Whether another request may follow the answer that is complete now."""
        return (
            self.complete
            and self._keeps_alive
            and not self.until_close
            and not self._head_only
            and not self.fault
            and self.open
            and self._transport is not None
            and self._transport.get_write_buffer_size() == 0
        )

    def pause(self) -> None:
        """Read no more until `resume`: the client is slower than the engine."""
        if self._transport is not None:
            self._transport.pause_reading()

    def resume(self) -> None:
        """Read on."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()

    def abort(self) -> None:
        """Close at once and tell nobody; to an engine this means: stop working on it."""
        self.receiver = None
        if self._transport is not None:
            self._transport.abort()

    # --- what happens ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Of asyncio."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Parse what came and pass it to the receiver in one call."""
        receiver = self.receiver
        if receiver is None:
            # Nothing was asked: whatever this is, it must not answer the next request.
            self.abort()
            return
        if self._known is not None and not self.started:
            found = self._known[0].find(data)
            if found is not None and len(data) == found[0] + found[1]:
                self._take_whole(*self._known[1:], length=found[1])
                receiver.received(self, data[found[0] :])
                self.fresh_head = False
                return
        first, self.started = not self.started, True
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self.fault = "it switched protocols"
        except httptools.HttpParserError as exc:
            self.fault = self.fault or str(exc)
        pieces = self._pieces
        if not pieces:
            body = b""
            self._barren_bytes += len(data)
            if self._barren_bytes > _MAX_BARREN and not self.complete:
                self.fault = self.fault or "its headers do not end"
        else:
            self._barren_bytes = 0
            body = pieces[0] if len(pieces) == 1 else b"".join(pieces)
            pieces.clear()
        if first and self.complete:
            self._remember(data)
        if self.status and (body or self.fresh_head or self.complete):
            receiver.received(self, body)
            self.fresh_head = False
        if self.fault and self.receiver is receiver:
            self._end()

    def _take_whole(self, status: int, lines: bytes, content_type: bytes, *, length: int) -> None:
        """Note an answer that llhttp does not get to see: it is between two, before and after."""
        self.started = self.fresh_head = self.complete = self._keeps_alive = True
        self.length, self.status, self.lines, self.content_type = (
            length,
            status,
            lines,
            content_type,
        )

    def _remember(self, data: bytes) -> None:
        """Of an answer that came in one piece: know its head again."""
        end = data.find(b"\r\n\r\n") + 4
        known = KnownHead.of(data[:end])
        if known is not None and len(data) - end == self.length:
            self._known = (known, self.status, self.lines, self.content_type)

    def eof_received(self) -> None:
        """Of asyncio; the transport closes itself next."""

    def connection_lost(self, exc: Exception | None) -> None:
        """The host closed, or died; for some answers that is the regular end."""
        self.lost = True
        receiver = self.receiver
        if receiver is None:
            self._on_idle_end(self)
        elif self.until_close and exc is None and not self.fault:
            self.complete = True
            receiver.received(self, b"")
        else:
            self._end()

    def _end(self) -> None:
        receiver, self.receiver = self.receiver, None
        if self._transport is not None:
            self._transport.abort()
        if receiver is not None:
            receiver.broke(self)

    # --- llhttp's callbacks; they note, `data_received` acts ---

    def on_message_begin(self) -> None:
        """A head begins: the answer, one after an interim answer, or one that nobody asked for."""
        if self.complete:
            raise _SurplusError

    def on_header(self, name: bytes, value: bytes) -> None:
        """Sort a header; trailers come here too and are dropped."""
        if self.status:
            return
        lower = name.lower()
        if lower == b"content-length":
            self.length = int(value)
        elif lower == b"transfer-encoding":
            if self.chunked or value.strip().lower() != b"chunked":
                self.fault = f"its transfer coding is {value.decode('latin-1')!r}"
            self.chunked = True
        elif lower == b"connection":
            tokens = (token.strip() for token in value.lower().split(b","))
            self._named += (token for token in tokens if token not in _USUAL)
        elif lower not in NOT_PASSED_BACK and not lower.startswith(CORS):
            if lower == b"content-type":
                self.content_type = value.lower()
            self._headers.append(b"%b: %b\r\n" % (name, value))

    def on_headers_complete(self) -> None:
        """The head is whole; an interim one (1xx) is forgotten."""
        status = self._parser.get_status_code()
        if status < 100:
            self.fault = f"its status is {status}"
        if status < 200 or self.fault:
            self._interim = True
            return
        self._interim = False
        self.status = status
        self.fresh_head = True
        if self._named:
            self._headers = [
                line for line in self._headers if line.partition(b":")[0].lower() not in self._named
            ]
        self.lines = b"".join(self._headers)
        # Not to be asked later: llhttp forgets when the message is complete.
        self._keeps_alive = self._parser.should_keep_alive()
        if self._head_only or status in {204, 304}:
            # llhttp cannot be told that this answers a HEAD; the connection is not used again.
            self.complete = True
        elif self.length is None and not self.chunked:
            self.until_close = True

    def on_message_complete(self) -> None:
        """The body is whole."""
        if self._interim:
            self._headers.clear()
            self.length, self.chunked, self.content_type = None, False, b""
            self._named.clear()
        else:
            self.complete = True


class _SurplusError(Exception):
    """More than one answer to one request."""
