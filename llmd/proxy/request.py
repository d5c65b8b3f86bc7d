"""Reading requests: bytes in, whole requests out, nothing that could be read in two ways.

llhttp (httptools) checks the head; where a head and a body end is found here, so that a pipelined
request behind it stays untouched until its turn. No socket and no clock.
"""

import re
from typing import Final
from urllib.parse import unquote

import httptools

from llmd.errors import HeaderTooLargeError, InvalidRequestError, UnsupportedError
from llmd.proxy.chunks import ChunkedBody, body_too_large
from llmd.proxy.headers import NOT_FORWARDED, ONCE
from llmd.proxy.limits import Limits


METHODS: Final = frozenset({b"GET", b"HEAD", b"POST", b"PUT", b"PATCH", b"DELETE", b"OPTIONS"})

_TYPES: Final = frozenset({b"content-type", b"content-encoding"})
_ABSOLUTE: Final = re.compile(rb"https?://([^/?#]*)(.*)\Z", re.IGNORECASE | re.DOTALL)
_EMPTY_LINES: Final = re.compile(rb"(?:\r\n)*")
_ODD_CODE: Final = re.compile(rb"%(?![0-9A-Fa-f]{2})|%[01][0-9A-Fa-f]|%7[Ff]")
_DOT_SEGMENT: Final = re.compile(r"[/\\]\.\.?(?:[/\\]|\Z)")
_BARE_LF: Final = re.compile(rb"(?<!\r)\n")
_VERSIONS: Final = {b"HTTP/1.1": 1, b"HTTP/1.0": 0}
_LENGTH: Final = re.compile(rb"\r\ncontent-length: ?(\d{1,18})(?=\r\n)", re.IGNORECASE)
_MEMORABLE: Final = 4096
"""Larger heads are parsed each time."""
_SILENT: Final = object()
"""llhttp only checks; without callbacks it copies nothing into Python."""
_TOKEN_START: Final = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZ")


class Request:
    """One request. `body` is whole once the reader says so.

    Attributes:
        forward: Header lines for the engine, without their line ends.
        fields: The headers that llmd reads, by lower-case name; most of them are not passed on.
        path: Of the target, decoded.
        length: What Content-Length says; -1 for a chunked body, 0 without a body.
        body_bytes: The size of the body as it came, so far.
    """

    __slots__ = (
        "body", "body_bytes", "expects_continue", "fields", "forward", "keep_alive", "length",
        "method", "minor", "path", "target",
    )  # fmt: skip

    def __init__(self) -> None:
        self.method = b""
        self.target = b""
        self.path = ""
        self.minor = 1
        self.forward: list[bytes] = []
        self.fields: dict[bytes, bytes] = {}
        self.length = 0
        self.keep_alive = True
        self.expects_continue = False
        self.body: bytes | bytearray = b""
        self.body_bytes = 0

    def again(self, length: int) -> "Request":
        """A request with the same head, but for a body of *length* bytes."""
        copy = Request()
        copy.method = self.method
        copy.target = self.target
        copy.path = self.path
        copy.minor = self.minor
        copy.forward = self.forward
        copy.fields = self.fields
        copy.keep_alive = self.keep_alive
        copy.length = length
        return copy

    @property
    def query(self) -> str:
        """What follows the `?`, undecoded."""
        return self.target.partition(b"?")[2].decode("latin-1")


class RequestReader:
    """Takes bytes as they come and gives requests one after the other.

    Call `read_head` until it gives a request, then `read_body` until it says True, then `read_head`
    again. Either raises an `LlmdError` when the connection cannot go on.
    """

    __slots__ = (
        "_body_left", "_buffer", "_checked", "_chunked", "_known", "_known_rest", "_limits",
        "_parser", "_request", "_seen",
    )  # fmt: skip

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._buffer = b""
        self._seen = 0
        """How much of the buffer was searched for the end of a head in vain."""
        self._parser = httptools.HttpRequestParser(_SILENT)
        self._request: Request = Request()
        self._body_left = 0
        self._chunked: ChunkedBody | None = None
        self._checked = True
        """Whether llhttp has seen the head, and so must see the body."""
        self._known: Request | None = None
        self._known_rest = b""
        """The last head with a Content-Length, without it: clients repeat themselves."""

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
        head, self._buffer = buffer[: end + 4], buffer[end + 4 :]
        return self._parse(head)

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

    def _parse(self, head: bytes) -> Request:
        """The request that *head* begins; quick when only Content-Length differs from the last."""
        length = _LENGTH.search(head)
        if length is None:
            return self._parse_anew(head)
        rest = head[: length.start()] + head[length.end() :]
        if rest == self._known_rest and self._known is not None:
            request = self._request = self._known.again(int(length[1]))
            self._body_left = request.length
            self._checked = False
            return request
        request = self._parse_anew(head)
        if self._checked and not request.expects_continue and len(rest) <= _MEMORABLE:
            self._known, self._known_rest = request, rest
        return request

    def _parse_anew(self, head: bytes) -> Request:
        request = self._request = Request()
        self._checked = True
        lines = head.split(b"\r\n")
        parts = lines[0].split(b" ")
        version = _VERSIONS.get(parts[-1])
        if len(parts) != 3 or version is None:
            raise self._odd_request_line(lines[0])
        if len(lines) - 3 > self._limits.max_headers:
            raise HeaderTooLargeError(
                f"the request has more than {self._limits.max_headers} headers"
            )
        try:
            self._parser.feed_data(head)
        except httptools.HttpParserUpgrade:
            # An offer (h2c, WebSocket) that a server may ignore. The parser is done for.
            self._checked = False
            self._parser = httptools.HttpRequestParser(_SILENT)
        except httptools.HttpParserError as exc:
            raise InvalidRequestError(f"malformed request: {exc}") from None
        request.method = method = parts[0]
        if method not in METHODS:
            raise UnsupportedError(f"llmd does not serve {method.decode('latin-1')} requests")
        request.minor = version
        request.keep_alive = version == 1
        request.target = parts[1]
        # llhttp has seen to it that each line is `name:value`, without folding or stray CR and LF.
        forward, fields = request.forward, request.fields
        for line in lines[1:-2]:
            name, _, value = line.partition(b":")
            name = name.lower()
            # Servers that hand headers on as variables take `_` for `-`.
            if name.replace(b"_", b"-") not in NOT_FORWARDED:
                forward.append(line)
                if name not in _TYPES:
                    continue
            value = value.strip(b" \t")
            if name in fields:
                if name in ONCE:
                    raise InvalidRequestError(f"the header {name.decode('latin-1')} comes twice")
                value = fields[name] + b", " + value
            fields[name] = value
        self._target(request)
        self._framing(request)
        return request

    def _odd_request_line(self, line: bytes) -> InvalidRequestError | UnsupportedError:
        if re.search(rb" HTTP/[023-9](\.\d)?\Z", line):
            return UnsupportedError("llmd speaks HTTP/1.1 and HTTP/1.0")
        return InvalidRequestError("malformed request line")

    def _target(self, request: Request) -> None:
        """Split the target; the authority of an absolute one is the Host (RFC 9112, 3.2.2)."""
        target = request.target
        if not target.startswith(b"/"):
            absolute = _ABSOLUTE.match(target)
            if absolute is not None:
                request.fields[b"host"] = absolute[1]
                target = absolute[2] if absolute[2].startswith(b"/") else b"/" + absolute[2]
            elif not (target == b"*" and request.method == b"OPTIONS"):
                raise InvalidRequestError("the request target must be a path")
        if b"#" in target:
            raise InvalidRequestError("the request target must not have a fragment")
        request.target = target
        path = target.partition(b"?")[0]
        if _ODD_CODE.search(path):
            raise InvalidRequestError("the request target has a malformed or control character")
        # Engines decode it, too: it is judged as what they will see.
        request.path = unquote(path.decode("latin-1"))
        if _DOT_SEGMENT.search(request.path):
            raise InvalidRequestError("the request target must not have `.` or `..` as a segment")

    def _framing(self, request: Request) -> None:
        fields = request.fields
        connection = fields.get(b"connection")
        if connection is not None:
            _apply_connection(request, connection)
        coding = fields.get(b"transfer-encoding")
        length = fields.pop(b"content-length", None)
        if coding is not None:
            # llhttp refuses the pair as well; twice is cheaper than once too few.
            if length is not None or request.minor == 0:
                raise InvalidRequestError("Transfer-Encoding is ambiguous here")
            if coding.strip().lower() != b"chunked":
                raise UnsupportedError("of the transfer codings only `chunked` is spoken here")
            request.length = -1
            self._chunked = ChunkedBody(self._limits.max_body_bytes)
        elif length is not None:
            digits = length.strip(b" \t")
            if not digits.isdigit() or len(digits) > 18:
                raise InvalidRequestError("Content-Length is not a number")
            request.length = self._body_left = int(digits)
        if request.length:
            request.expects_continue = (
                request.minor == 1 and fields.get(b"expect", b"").lower() == b"100-continue"
            )

    # --- the body ---

    def read_body(self) -> bool:
        """Move what has come into the current request's body; True when it is whole.

        Raises:
            InvalidRequestError: The chunked coding is broken.
            TooLargeError: It passes `max_body_bytes`, or Content-Length says that it will.
        """
        data = self._buffer
        if self._chunked is not None:
            return self._read_chunked(data)
        left = self._body_left
        if not left:
            return True
        request = self._request
        if request.length > self._limits.max_body_bytes:
            raise body_too_large(self._limits.max_body_bytes)
        if not data:
            return False
        if len(data) > left:
            data, self._buffer = data[:left], data[left:]
        else:
            self._buffer = b""
        self._body_left = left - len(data)
        self._pass(data)
        if not request.body:
            request.body = data
        else:
            if isinstance(request.body, bytes):
                request.body = bytearray(request.body)
            request.body += data
        request.body_bytes += len(data)
        return not self._body_left

    def _read_chunked(self, data: bytes) -> bool:
        chunked = self._chunked
        if chunked is None or not data:
            return False
        self._buffer = b""
        rest = chunked.feed(data)
        self._pass(data[: len(data) - len(rest)] if rest else data)
        self._request.body_bytes = len(chunked.body)
        if not chunked.complete:
            return False
        self._buffer = rest
        self._request.body = chunked.body
        self._chunked = None
        return True

    def _pass(self, data: bytes) -> None:
        """Show llhttp a piece of the body, so that it knows where the next head begins."""
        if not self._checked:
            return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as exc:
            raise InvalidRequestError(f"malformed request body: {exc}") from None


def _apply_connection(request: Request, connection: bytes) -> None:
    """Honour `Connection`: close, keep-alive (1.0), and headers named as hop-by-hop."""
    tokens = {token.strip().lower() for token in connection.split(b",")}
    if b"close" in tokens:
        request.keep_alive = False
    elif request.minor == 0:
        request.keep_alive = b"keep-alive" in tokens
    named = tokens - NOT_FORWARDED - {b"close", b""}
    if named:
        request.forward = [
            line for line in request.forward if line.partition(b":")[0].lower() not in named
        ]
