"""One HTTP exchange, in little code.

`http.client` brings the email parser and TLS along: a fifth of what `llmd-ctl status` takes to
start. The other end is our own server on a Unix socket, and a connection carries one request.
"""

from collections.abc import Iterator
from io import BufferedReader
from typing import Final


MAX_LINE_BYTES: Final = 65_536
MAX_HEADERS: Final = 100
_BLOCK_BYTES: Final = 65_536


class BadAnswerError(Exception):
    """What came is not HTTP, or ended too early."""


class Answer:
    """The answer to one request; read it once, with `read` or line by line.

    Attributes:
        status: The status code.
        reason: Its words.
        headers: By name in lower case; of repeated ones the last.
    """

    def __init__(self, stream: BufferedReader) -> None:
        """Read the head of the answer from *stream*.

        Raises:
            BadAnswerError: It is no HTTP, or nothing came.
        """
        self._stream = stream
        version, _, rest = self._line().partition(" ")
        code, _, self.reason = rest.partition(" ")
        if not version.startswith("HTTP/1.") or not (code.isascii() and code.isdigit()):
            raise BadAnswerError("no status line")
        self.status = int(code)
        self.headers: dict[str, str] = {}
        for _ in range(MAX_HEADERS):
            line = self._line()
            if not line:
                return
            name, _, value = line.partition(":")
            self.headers[name.lower()] = value.strip()
        raise BadAnswerError("too many headers")

    def read(self) -> bytes:
        """The whole body."""
        return b"".join(self._blocks())

    def __iter__(self) -> Iterator[bytes]:
        """The body's lines without their ends, each as soon as it is complete."""
        rest = b""
        for block in self._blocks():
            *lines, rest = (rest + block).split(b"\n")
            yield from lines
        if rest:
            yield rest

    def _blocks(self) -> Iterator[bytes]:
        """The body, in the pieces in which it comes.

        Raises:
            BadAnswerError: It ended before its end.
        """
        if self.headers.get("transfer-encoding", "").lower() == "chunked":
            yield from self._chunks()
        elif "content-length" in self.headers:
            length = self.headers["content-length"]
            yield self._exactly(_size(length, 10))
        else:
            while block := self._stream.read1(_BLOCK_BYTES):
                yield block

    def _chunks(self) -> Iterator[bytes]:
        while size := _size(self._line().partition(";")[0], 16):
            yield self._exactly(size)
            if self._line():
                raise BadAnswerError("a chunk is longer than it says")
        while self._line():
            pass  # trailers

    def _exactly(self, size: int) -> bytes:
        block = self._stream.read(size)
        if len(block) < size:
            raise BadAnswerError("cut short")
        return block

    def _line(self) -> str:
        line = self._stream.readline(MAX_LINE_BYTES)
        if not line.endswith(b"\n"):
            raise BadAnswerError("cut short")
        return line.rstrip(b"\r\n").decode("latin-1")


def request(method: str, path: str, body: bytes, headers: dict[str, str]) -> bytes:
    """The bytes of a request, the only one on its connection.

    *path* is quoted already; *headers* come from this program, not from outside.
    """
    fields = {"Host": "localhost", "Connection": "close", "Content-Length": str(len(body))}
    head = "".join(f"{name}: {value}\r\n" for name, value in (fields | headers).items())
    return f"{method} {path} HTTP/1.1\r\n{head}\r\n".encode("latin-1") + body


def _size(text: str, base: int) -> int:
    try:
        size = int(text, base)
    except ValueError as error:
        raise BadAnswerError(f"{text[:20]!r} is no size") from error
    if size < 0:
        raise BadAnswerError(f"{text[:20]!r} is no size")
    return size
