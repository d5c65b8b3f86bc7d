"""Writing responses: head and framing towards one client. Values in, bytes out; no socket."""

from enum import StrEnum
from http import HTTPStatus
from typing import Final

from msgspec import Struct


_STATUS_LINES: Final = {
    status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() for status in HTTPStatus
}
_BODILESS: Final = frozenset({204, 304})

CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"


class Framing(StrEnum):
    """How the client is told where the body ends."""

    NONE = "none"
    LENGTH = "length"
    CHUNKED = "chunked"
    CLOSE = "close"


# Bound once: to look a member up in its class costs ten times as much, for each chunk.
_NONE: Final = Framing.NONE
_LENGTH: Final = Framing.LENGTH
_CHUNKED: Final = Framing.CHUNKED
_CLOSE: Final = Framing.CLOSE


class Reply(Struct):
    """The response to one request, from the point of view of its client.

    Attributes:
        lines: Header lines that every answer to this request carries (request id, CORS, profile).
        keep_alive: Whether the connection may be used again; the framing may turn it off.
        status: 0 until `head` was called.
    """

    lines: bytes
    minor: int = 1
    head_only: bool = False
    keep_alive: bool = True
    status: int = 0
    framing: Framing = _NONE

    def head(self, status: int, lines: bytes, length: int | None) -> bytes:
        """The response head.

        Args:
            status: Of HTTP.
            lines: Complete header lines, none of them about framing or the connection.
            length: Of the body, in bytes; None when it is not known before its end.
        """
        self.status = status
        line = _STATUS_LINES.get(status) or b"HTTP/1.1 %d \r\n" % status
        if self.head_only or status in _BODILESS:
            self.framing = _NONE
            # A HEAD answer names the length that GET would have; 204 must not.
            framing = (
                b"Content-Length: %d\r\n" % length if length is not None and status != 204 else b""
            )
        elif length is not None:
            self.framing = _LENGTH
            framing = b"Content-Length: %d\r\n" % length
        elif self.minor:
            self.framing = _CHUNKED
            framing = b"Transfer-Encoding: chunked\r\n"
        else:
            self.framing = _CLOSE
            self.keep_alive = False
            framing = b""
        if not self.keep_alive:
            framing += b"Connection: close\r\n"
        elif not self.minor:
            framing += b"Connection: keep-alive\r\n"
        return b"%b%b%b%b\r\n" % (line, lines, self.lines, framing)

    def encode(self, piece: bytes) -> bytes:
        """*piece* of the body, framed; it must not be empty."""
        if self.framing is _CHUNKED:
            return b"%x\r\n%b\r\n" % (len(piece), piece)
        return b"" if self.framing is _NONE else piece

    def tail(self) -> bytes:
        """What ends the body."""
        return b"0\r\n\r\n" if self.framing is _CHUNKED else b""

    def whole(self, status: int, lines: bytes, body: bytes) -> bytes:
        """A complete response at once."""
        head = self.head(status, lines, len(body))
        return head if self.framing is _NONE else head + body
