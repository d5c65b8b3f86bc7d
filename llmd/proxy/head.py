"""The head of a request: read once, for all requests of a client that have the same one."""

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote

from llmd.errors import HeaderTooLargeError, InvalidRequestError, UnsupportedError
from llmd.proxy.headers import NOT_FORWARDED, ONCE
from llmd.proxy.paths import canonical


if TYPE_CHECKING:
    from llmd.proxy.gate import Upstream
    from llmd.proxy.guard import Guard


METHODS: Final = frozenset({b"GET", b"HEAD", b"POST", b"PUT", b"PATCH", b"DELETE", b"OPTIONS"})

_TYPES: Final = frozenset({b"content-type", b"content-encoding"})
_ABSOLUTE: Final = re.compile(rb"https?://([^/?#]*)(.*)\Z", re.IGNORECASE | re.DOTALL)
_ODD_CODE: Final = re.compile(rb"%(?![0-9A-Fa-f]{2})|%[01][0-9A-Fa-f]|%7[Ff]")
_ODD_VERSION: Final = re.compile(rb" HTTP/[023-9](\.\d)?\Z")
_DOT_SEGMENT: Final = re.compile(r"[/\\]\.\.?(?:[/\\]|\Z)")
_VERSIONS: Final = {b"HTTP/1.1": 1, b"HTTP/1.0": 0}


class Head:
    """What a request says before its body.

    Attributes:
        method: One of `METHODS`.
        target: Path and query as they came, without an authority.
        path: Of the target, decoded.
        name: The path as `paths.canonical` has it.
        minor: Of the HTTP version.
        forward: Header lines for the engine, without their line ends.
        fields: The headers that llmd reads, by lower-case name; most of them are not passed on.
        keep_alive: Whether the client wants to go on afterwards.
        length: What Content-Length says; -1 for a chunked body, 0 without a body.
        expects_continue: The body comes once it is asked for. Such a head is not used again.
        admitted: The guard that let it pass, and the CORS lines of its answers.
        outgoing: Where it went last, and what of it went there.
    """

    __slots__ = (
        "admitted", "expects_continue", "fields", "forward", "keep_alive", "length", "method",
        "minor", "name", "outgoing", "path", "target",
    )  # fmt: skip

    def __init__(self, method: bytes = b"GET", target: bytes = b"/", *, minor: int = 1) -> None:
        self.method = method
        self.minor = minor
        self.forward: list[bytes] = []
        self.fields: dict[bytes, bytes] = {}
        self.keep_alive = minor == 1
        self.length = 0
        self.expects_continue = False
        self.admitted: tuple[Guard, bytes] | None = None
        self.outgoing: tuple[Upstream, bytes] | None = None
        self.target = target
        # Engines decode it, too: it is judged as what they will see.
        self.path = unquote(target.partition(b"?")[0].decode("latin-1"))
        self.name = canonical(self.path)

    @property
    def query(self) -> str:
        """What follows the `?`, undecoded."""
        return self.target.partition(b"?")[2].decode("latin-1")


def parse(data: bytes, *, max_headers: int, check: Callable[[bytes], None]) -> Head:
    r"""The head in *data*, which ends with the first empty line.

    Args:
        data: All of it, and nothing else.
        max_headers: It may have.
        check: Raises InvalidRequestError unless each line is `name:value`, without folding or stray
            CR and LF, and the framing is unambiguous.

    Raises:
        InvalidRequestError: It is not a request, or one that is ambiguous.
        HeaderTooLargeError: It has too many headers.
        UnsupportedError: Its transfer coding, method or HTTP version is not spoken here.
    """
    lines = data.split(b"\r\n")
    parts = lines[0].split(b" ")
    minor = _VERSIONS.get(parts[-1])
    if len(parts) != 3 or minor is None:
        if _ODD_VERSION.search(lines[0]):
            raise UnsupportedError("llmd speaks HTTP/1.1 and HTTP/1.0")
        raise InvalidRequestError("malformed request line")
    if len(lines) - 3 > max_headers:
        raise HeaderTooLargeError(f"the request has more than {max_headers} headers")
    check(data)
    method = parts[0]
    if method not in METHODS:
        raise UnsupportedError(f"llmd does not serve {method.decode('latin-1')} requests")
    host, target = _split_target(method, parts[1])
    head = Head(method, target, minor=minor)
    if _DOT_SEGMENT.search(head.path):
        raise InvalidRequestError("the request target must not have `.` or `..` as a segment")
    _sort(head, lines[1:-2])
    if host is not None:
        head.fields[b"host"] = host
    _read_framing(head)
    return head


def _split_target(method: bytes, target: bytes) -> tuple[bytes | None, bytes]:
    """Host and path; the authority of an absolute target is the Host (RFC 9112, 3.2.2)."""
    host = None
    if not target.startswith(b"/"):
        absolute = _ABSOLUTE.match(target)
        if absolute is not None:
            host = absolute[1]
            target = absolute[2] if absolute[2].startswith(b"/") else b"/" + absolute[2]
        elif not (target == b"*" and method == b"OPTIONS"):
            raise InvalidRequestError("the request target must be a path")
    if b"#" in target:
        raise InvalidRequestError("the request target must not have a fragment")
    if _ODD_CODE.search(target.partition(b"?")[0]):
        raise InvalidRequestError("the request target has a malformed or control character")
    return host, target


def _sort(head: Head, lines: list[bytes]) -> None:
    """Which header lines are for the engine, and which for llmd."""
    forward, fields = head.forward, head.fields
    for line in lines:
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


def _read_framing(head: Head) -> None:
    fields = head.fields
    connection = fields.get(b"connection")
    if connection is not None:
        _apply_connection(head, connection)
    coding = fields.get(b"transfer-encoding")
    length = fields.pop(b"content-length", None)
    if coding is not None:
        # llhttp refuses the pair as well; twice is cheaper than once too few.
        if length is not None or head.minor == 0:
            raise InvalidRequestError("Transfer-Encoding is ambiguous here")
        if coding.strip().lower() != b"chunked":
            raise UnsupportedError("of the transfer codings only `chunked` is spoken here")
        head.length = -1
    elif length is not None:
        if not length.isdigit() or len(length) > 18:
            raise InvalidRequestError("Content-Length is not a number")
        head.length = int(length)
    if head.length:
        head.expects_continue = (
            head.minor == 1 and fields.get(b"expect", b"").lower() == b"100-continue"
        )


def _apply_connection(head: Head, connection: bytes) -> None:
    """Honour `Connection`: close, keep-alive (1.0), and headers named as hop-by-hop."""
    tokens = {token.strip().lower() for token in connection.split(b",")}
    if b"close" in tokens:
        head.keep_alive = False
    elif head.minor == 0:
        head.keep_alive = b"keep-alive" in tokens
    named = tokens - NOT_FORWARDED - {b"close", b""}
    if named:
        head.forward = [
            line for line in head.forward if line.partition(b":")[0].lower() not in named
        ]
