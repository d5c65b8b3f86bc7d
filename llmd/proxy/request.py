"""Reading requests: bytes in, whole requests out, nothing that could be read in two ways.

llhttp (httptools) checks the head; where a head and a body end is found here, so that a pipelined
request behind it stays untouched until its turn. No socket and no clock.
"""

import re
from typing import Final

import httptools
from msgspec import Struct

from llmd.errors import HeaderTooLargeError, InvalidRequestError
from llmd.proxy.chunks import ChunkedBody, body_too_large
from llmd.proxy.head import Head, parse
from llmd.proxy.known import KnownHead
from llmd.proxy.limits import Limits


_EMPTY_LINES: Final = re.compile(rb"(?:\r\n)*")
_BARE_LF: Final = re.compile(rb"(?<!\r)\n")
_SILENT: Final = object()
"""llhttp only checks; without callbacks it copies nothing into Python."""
_TOKEN_START: Final = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZ")


class Request(Struct):
    """One request. `body` is whole once the reader says so.

    Attributes:
        head: Of other requests of this client, too.
        length: Of the body as it is announced; -1 while only its end will tell.
        body_bytes: The size of the body as it came, so far.
    """

    head: Head
    length: int
    body: bytes | bytearray = b""
    body_bytes: int = 0


class RequestReader:
    """Takes bytes as they come and gives requests one after the other.

    Call `read_head` until it gives a request, then `read_body` until it says True, then `read_head`
    again. Either raises an `LlmdError` when the connection cannot go on.
    """

    __slots__ = (
        "_body_left", "_buffer", "_checked", "_chunked", "_known", "_limits", "_parser", "_request",
        "_seen",
    )  # fmt: skip

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._buffer = b""
        self._seen = 0
        """How much of the buffer was searched for the end of a head in vain."""
        self._parser = httptools.HttpRequestParser(_SILENT)
        self._request: Request | None = None
        self._body_left = 0
        self._chunked: ChunkedBody | None = None
        self._checked = True
        """Whether llhttp has seen the head, and so must see the body."""
        self._known: tuple[KnownHead, Head] | None = None
        """The last head with a Content-Length."""

    @property
    def pending(self) -> int:
        """Bytes held that belong to no complete request yet."""
        return len(self._buffer)

    @property
    def unparsed(self) -> bytes:
        """The bytes of `pending`: between two requests, all that was read and not used."""
        return self._buffer

    def feed(self, data: bytes) -> None:
        """Add *data*, as read from the client."""
        self._buffer = self._buffer + data if self._buffer else data

    # --- the head ---

    def read_head(self) -> Request | None:
        """Parse the next head when it is complete.

        Raises:
            InvalidRequestError: It is not a request, or one that is ambiguous.
            HeaderTooLargeError: It passes `max_head_bytes` or `max_headers`.
            UnsupportedError: Its transfer coding, method or HTTP version is not spoken here.
        """
        buffer = self._buffer
        if buffer.startswith(b"\r\n") and (empty := _EMPTY_LINES.match(buffer)):
            # RFC 9112, 2.2: an empty line before a request is an old habit of some clients.
            buffer = self._buffer = buffer[empty.end() :]
        if not buffer:
            return None
        end = buffer.find(b"\r\n\r\n", self._seen)
        if end < 0:
            self._check_unfinished(buffer)
            return None
        if end > self._limits.max_head_bytes:
            raise self._head_too_large()
        self._seen = 0
        data, self._buffer = buffer[: end + 4], buffer[end + 4 :]
        request = self._request = self._read_known(data) or self._read_new(data)
        return request

    def _check_unfinished(self, buffer: bytes) -> None:
        """Refuse at once what will never become a head, instead of waiting for the time-out."""
        if buffer[0] not in _TOKEN_START and buffer != b"\r":
            hint = "this port speaks plain HTTP; use http://" if buffer[0] == 0x16 else ""
            raise InvalidRequestError("this is not an HTTP request", remedy=hint)
        if len(buffer) > self._limits.max_head_bytes:
            raise self._head_too_large()
        if _BARE_LF.search(buffer, self._seen):
            raise InvalidRequestError("a header line ends without CR LF")
        self._seen = max(0, len(buffer) - 3)

    def _head_too_large(self) -> HeaderTooLargeError:
        return HeaderTooLargeError(
            f"the request's headers are larger than {self._limits.max_head_bytes} bytes"
        )

    def _read_known(self, data: bytes) -> Request | None:
        """The request that *data* begins, if only Content-Length differs from the last head."""
        if self._known is None:
            return None
        known, head = self._known
        found = known.find(data)
        if found is None:
            return None
        self._checked = False
        self._body_left = length = found[1]
        return Request(head, length)

    def _read_new(self, data: bytes) -> Request:
        self._checked = True
        head = parse(data, max_headers=self._limits.max_headers, check=self._check)
        if head.length < 0:
            self._chunked = ChunkedBody(self._limits.max_body_bytes)
        else:
            self._body_left = head.length
            known = KnownHead.of(data)
            if known is not None and self._checked and not head.expects_continue:
                self._known = (known, head)
        return Request(head, head.length)

    def _check(self, head: bytes) -> None:
        """What llhttp says of *head*."""
        try:
            self._parser.feed_data(head)
        except httptools.HttpParserUpgrade:
            # An offer (h2c, WebSocket) that a server may ignore. The parser is done for.
            self._checked = False
            self._parser = httptools.HttpRequestParser(_SILENT)
        except httptools.HttpParserError as exc:
            raise InvalidRequestError(f"malformed request: {exc}") from None

    # --- the body ---

    def read_body(self) -> bool:
        """Move what has come into the current request's body; True when it is whole.

        Raises:
            InvalidRequestError: The chunked coding is broken.
            TooLargeError: It passes `max_body_bytes`, or Content-Length says that it will.
        """
        request, data = self._request, self._buffer
        if request is None:
            raise RuntimeError("a body without a head")
        if self._chunked is not None:
            return self._read_chunked(request, self._chunked)
        left = self._body_left
        if not left:
            return True
        if request.length > self._limits.max_body_bytes:
            raise body_too_large(self._limits.max_body_bytes)
        if not data:
            return False
        if len(data) > left:
            data, self._buffer = data[:left], data[left:]
        else:
            self._buffer = b""
        self._body_left = left - len(data)
        if self._checked:
            self._pass(data)
        if not request.body:
            request.body = data
        else:
            if isinstance(request.body, bytes):
                request.body = bytearray(request.body)
            request.body += data
        request.body_bytes += len(data)
        return not self._body_left

    def _read_chunked(self, request: Request, chunked: ChunkedBody) -> bool:
        data = self._buffer
        if not data:
            return False
        self._buffer = b""
        rest = chunked.feed(data)
        if self._checked:
            self._pass(data[: len(data) - len(rest)] if rest else data)
        request.body_bytes = len(chunked.body)
        if not chunked.complete:
            return False
        self._buffer = rest
        request.body = chunked.body
        self._chunked = None
        return True

    def _pass(self, data: bytes) -> None:
        """Show llhttp a piece of the body, so that it knows where the next head begins."""
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as exc:
            raise InvalidRequestError(f"malformed request body: {exc}") from None
