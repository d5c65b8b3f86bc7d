"""A head that is like the last one: clients and engines repeat themselves."""

import re
from typing import Final


_LENGTH: Final = re.compile(rb"\r\ncontent-length: ?(\d{1,18})(?=\r\n)", re.IGNORECASE)
_MOST_DIGITS: Final = 18
_MEMORABLE: Final = 4096
"""Larger heads are parsed each time."""


class KnownHead:
    """A head around the number in its Content-Length.

    Bytes that differ from it in that number only say the same, and need not be parsed.
    """

    __slots__ = ("_end", "_start")

    def __init__(self, start: bytes, end: bytes) -> None:
        self._start = start
        self._end = end

    @classmethod
    def of(cls, head: bytes) -> "KnownHead | None":
        """What to know *head* by; None when it is large, or has no plain Content-Length."""
        number = _LENGTH.search(head)
        if number is None or len(head) > _MEMORABLE:
            return None
        return cls(head[: number.start(1)], head[number.end(1) :])

    def find(self, data: bytes) -> tuple[int, int] | None:
        """If *data* begins with such a head, where that ends, and the length it says."""
        start, end = self._start, self._end
        if not data.startswith(start):
            return None
        begins = len(start)
        ends = data.find(end, begins, begins + _MOST_DIGITS + len(end))
        digits = data[begins:ends]
        if ends < 0 or not digits.isdigit():
            return None
        return ends + len(end), int(digits)
