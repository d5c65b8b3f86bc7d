"""Chunked transfer coding of request bodies: bytes in, body and an exact end out."""

import re
from typing import Final

from llmd.errors import InvalidRequestError, TooLargeError, describe_bytes


_SIZE_LINE: Final = re.compile(rb"([0-9A-Fa-f]{1,16})(?:[ \t]*;[^\x00-\x08\x0a-\x1f\x7f]*)?\Z")
_MAX_LINE: Final = 4096
"""A chunk-size line or trailer line longer than this is nobody's."""
_TRAILER: Final = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+:[^\x00-\x08\x0a-\x1f\x7f]*\Z")
_MAX_EXTRA: Final = 64 * 2**10
"""Bytes of chunk extensions and trailers together; nobody reads either."""


def body_too_large(max_bytes: int) -> TooLargeError:
    """The refusal of a body that passes *max_bytes*."""
    return TooLargeError(
        f"the request body is larger than {describe_bytes(max_bytes)}",
        remedy="send less, or raise `max_body`",
    )


class ChunkedBody:
    """Decodes one chunked body and stops exactly behind it; extensions and trailers are dropped.

    llhttp parses chunks as well, but does not say where in the buffer a message ended, and a
    pipelined request may follow in the same read.
    """

    __slots__ = ("_extra_bytes", "_in_trailers", "_left", "_max_bytes", "_rest", "body", "complete")

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self.body = bytearray()
        self.complete = False
        self._left = 0
        """Bytes of the current chunk still to come, with its CRLF; 0 before a size line."""
        self._rest = b""
        self._in_trailers = False
        """Whether the last chunk has been seen."""
        self._extra_bytes = 0

    def feed(self, data: bytes) -> bytes:
        """Take *data*; return what lies behind the end of the body, empty until `complete`.

        Raises:
            InvalidRequestError: The coding is broken, or could be read in two ways.
            TooLargeError: The body has, or is about to have, more than *max_bytes*.
        """
        if self._rest:
            data = self._rest + data
            self._rest = b""
        position, size = 0, len(data)
        while position < size:
            if self._left > 2:
                taken = min(self._left - 2, size - position)
                self.body += memoryview(data)[position : position + taken]
                self._left -= taken
                position += taken
                continue
            if self._left:
                if size - position < 2:
                    break
                if data[position : position + 2] != b"\r\n":
                    raise InvalidRequestError("a chunk is longer than its size says")
                self._left = 0
                position += 2
                continue
            end = data.find(b"\n", position, position + _MAX_LINE)
            if end < 0:
                if size - position >= _MAX_LINE:
                    raise InvalidRequestError("a chunk size or trailer line is too long")
                break
            if data[end - 1 : end] != b"\r" or end == position:
                raise InvalidRequestError("a line within the chunked body ends without CR LF")
            line = data[position : end - 1]
            position = end + 1
            if not self._in_trailers:
                self._size_line(line)
            elif line:
                self._trailer_line(line)
            else:
                self.complete = True
                return data[position:]
        self._rest = data[position:]
        return b""

    def _size_line(self, line: bytes) -> None:
        match = _SIZE_LINE.match(line)
        if match is None:
            raise InvalidRequestError("a chunk size is not a hexadecimal number")
        self._spend(len(line) - len(match[1]))
        chunk_bytes = int(match[1], 16)
        if len(self.body) + chunk_bytes > self._max_bytes:
            raise body_too_large(self._max_bytes)
        if chunk_bytes:
            self._left = chunk_bytes + 2
        else:
            self._in_trailers = True

    def _trailer_line(self, line: bytes) -> None:
        self._spend(len(line))
        if _TRAILER.match(line) is None:
            raise InvalidRequestError("a trailer is not a header line")

    def _spend(self, extra_bytes: int) -> None:
        self._extra_bytes += extra_bytes
        if self._extra_bytes > _MAX_EXTRA:
            raise InvalidRequestError("the chunk extensions and trailers are too long")
