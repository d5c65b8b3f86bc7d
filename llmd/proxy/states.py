"""The stages of a client connection, and the states of an exchange, as a table.

WAITING ── GRANTED ──▶ CONNECTING ── CONNECTED ──▶ SENT ── HEAD ──▶ STREAMING
   │                     ▲    │                   │  │                 │
   │                     └────┼────── STALE ──────┘  ERROR_HEAD        │
   │                          │                   ▼  ▼                 │
   │                          └── BROKE ──▶ AUTOPSY  COLLECTING        │
   ▼                                           ▼        ▼              ▼
   └──────────────── REFUSED ──────────▶ DONE ◀── EXPLAINED, ENDED, CUT, LEFT
"""

from enum import StrEnum
from typing import Final


class Stage(StrEnum):
    """What the connection is at."""

    HEAD = "head"
    """Between requests, or within a head."""
    HELD = "held"
    """Like HEAD, but no request is begun: another image will, or this one when it is released."""
    BODY = "body"
    BUSY = "busy"
    """An exchange has the word; what the client sends meanwhile waits."""
    LINGERING = "lingering"
    """Answered before it was done sending: the rest is read and thrown away, else the kernel
    would reset the connection and take the answer with it."""
    CLOSING = "closing"


class S(StrEnum):
    """Where an exchange stands."""

    WAITING = "waiting"
    CONNECTING = "connecting"
    SENT = "sent"
    COLLECTING = "collecting"
    STREAMING = "streaming"
    AUTOPSY = "autopsy"
    DONE = "done"


class T(StrEnum):
    """What moves it."""

    REFUSED = "refused"
    GRANTED = "granted"
    CONNECTED = "connected"
    STALE = "stale"
    HEAD = "head"
    ERROR_HEAD = "error_head"
    OVERFLOWED = "overflowed"
    ENDED = "ended"
    BROKE = "broke"
    CUT = "cut"
    EXPLAINED = "explained"
    LEFT = "left"


TRANSITIONS: Final = {
    (S.WAITING, T.GRANTED): S.CONNECTING,
    (S.WAITING, T.REFUSED): S.DONE,
    (S.CONNECTING, T.REFUSED): S.DONE,  # the engine lacks the path, or the body cannot be edited
    (S.CONNECTING, T.CONNECTED): S.SENT,
    (S.CONNECTING, T.BROKE): S.AUTOPSY,
    (S.SENT, T.STALE): S.CONNECTING,  # a kept connection had ended unnoticed
    (S.SENT, T.HEAD): S.STREAMING,
    (S.SENT, T.ERROR_HEAD): S.COLLECTING,
    (S.SENT, T.BROKE): S.AUTOPSY,
    (S.COLLECTING, T.OVERFLOWED): S.STREAMING,
    (S.COLLECTING, T.ENDED): S.DONE,
    (S.COLLECTING, T.BROKE): S.AUTOPSY,
    (S.STREAMING, T.ENDED): S.DONE,
    (S.STREAMING, T.BROKE): S.AUTOPSY,  # of a stream of events: one more can say why
    (S.STREAMING, T.CUT): S.DONE,  # of anything else: only a broken connection says "incomplete"
    (S.AUTOPSY, T.EXPLAINED): S.DONE,
    (S.WAITING, T.LEFT): S.DONE,
    (S.CONNECTING, T.LEFT): S.DONE,
    (S.SENT, T.LEFT): S.DONE,
    (S.COLLECTING, T.LEFT): S.DONE,
    (S.STREAMING, T.LEFT): S.DONE,
    (S.AUTOPSY, T.LEFT): S.DONE,
}
