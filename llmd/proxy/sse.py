"""Server-sent events on their way: whole events only, so that one can be put between two."""

import re
from typing import Final


_DONE: Final = re.compile(rb"(?:\A|[\r\n])data: ?\[DONE\]\s*\Z")
_BLANK_LINES: Final = (b"\n\n", b"\n\r\n", b"\r\r")
_TAIL: Final = 64

STREAM_LINES: Final = (
    b"Content-Type: text/event-stream; charset=utf-8\r\n"
    b"Cache-Control: no-cache\r\n"
    b"X-Accel-Buffering: no\r\n"
)
"""The head of a stream that llmd begins before the engine has answered."""


def comment(text: str) -> bytes:
    """An SSE comment: keeps the connection in use and is not an event."""
    return b": %b\n\n" % " ".join(text.split()).encode() if text else b":\n\n"


class EventStream:
    r"""Passes a stream on, but holds an unfinished event back until its blank line has come.

    A client acts on an event only at its blank line, so nothing reaches it later. In return a
    comment or an error event can be inserted at any time, and a client never sees half an event.
    An event larger than *hold_bytes* is passed on in pieces; `between_events` is False meanwhile.
    """

    __slots__ = ("_held", "_hold_bytes", "_last", "between_events", "count")

    def __init__(self, hold_bytes: int) -> None:
        self._hold_bytes = hold_bytes
        self._held = b""
        self._last = b""
        self.between_events = True
        self.count = 0
        """How many events came so far, near enough for tokens per second."""

    def feed(self, piece: bytes) -> bytes:
        """Take a *piece* as it came; return what can be passed on now."""
        self.count += piece.count(b"data:")
        whole = self.between_events
        if self._held:
            piece = self._held + piece
            self._held = b""
        elif whole and piece.endswith(_BLANK_LINES[:2]):
            self._last = piece
            return piece
        # A blank line may begin in what was passed on already, if that was not a whole event.
        before = b"" if whole else self._last[-2:]
        end = _end_of_last_event(before + piece) - len(before)
        if end > 0:
            self.between_events = True
            if len(piece) - end <= self._hold_bytes:
                self._last = self._behind(piece[:end], whole=whole)
                self._held = piece[end:]
                return piece[:end]
            self._last = piece[end:]
        elif whole and len(piece) <= self._hold_bytes:
            self._held = piece
            return b""
        else:
            self._last = self._behind(piece, whole=whole)
        self.between_events = False
        return piece

    def _behind(self, piece: bytes, *, whole: bool) -> bytes:
        """What to remember of *piece*: it starts with an event, or follows what came before."""
        if whole:
            return piece
        # The dot keeps the cut from looking like the start of a line.
        last = self._last
        return (last if len(last) <= _TAIL else b"." + last[-_TAIL:]) + piece

    def rest(self) -> bytes:
        """What is held back, for a stream that ended well without a last blank line."""
        rest, self._held = self._held, b""
        if rest:
            self._last = rest
        return rest

    def gap(self) -> bytes:
        """What must be sent before an event can be inserted; drops what is held back."""
        self._held = b""
        return b"" if self.between_events else b"\n\n"

    @property
    def done(self) -> bool:
        """Whether the last line that was passed on is `data: [DONE]`."""
        return _DONE.search(self._last, max(0, len(self._last) - _TAIL)) is not None


def _end_of_last_event(data: bytes) -> int:
    """The position behind the last blank line in *data*; 0 when there is none."""
    return max(data.rfind(blank) + len(blank) if blank in data else 0 for blank in _BLANK_LINES)
