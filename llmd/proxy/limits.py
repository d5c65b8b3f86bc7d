"""How much the data plane takes from a stranger, and how long it waits for one."""

from msgspec import Struct


class Limits(Struct, frozen=True):
    """Bounds of one listener and of the upstream pool: bytes, seconds and counts."""

    max_head_bytes: int = 64 * 2**10
    """Request line and headers; more is a 431."""
    max_headers: int = 128
    """Header fields of one request; more is a 431."""
    max_body_bytes: int = 64 * 2**20
    """A request body; more is a 413."""
    max_connections: int = 1024
    """Client connections of one listener; further ones get a 503."""
    max_pipelined_bytes: int = 256 * 2**10
    """Read ahead behind an unanswered request; beyond it the socket is left alone."""
    max_linger_bytes: int = 2**30
    """What a refused client may still send and have thrown away before it is cut off."""
    max_error_bytes: int = 256 * 2**10
    """An engine's error body is put into OpenAI's shape up to this size."""
    max_event_bytes: int = 64 * 2**10
    """How much of an unfinished server-sent event is held back until it is whole."""

    head_timeout_s: float = 30.0
    """From the first byte of a request to the end of its headers."""
    body_timeout_s: float = 60.0
    """Silence within a request body."""
    body_step_bytes: int = 16 * 2**10
    """So much of a body must come for each further `body_timeout_s` that it takes in all."""
    keep_alive_s: float = 75.0
    """Silence between two requests of a connection."""
    stall_s: float = 300.0
    """A client that reads nothing of an answer for so long is cut off."""
    linger_s: float = 10.0
    """How long what a refused client still sends is read and thrown away."""
    comment_s: float = 5.0
    """Silence after which a waiting stream gets a comment."""

    connect_timeout_s: float = 10.0
    """To reach an upstream, TLS included."""
    upstream_idle_s: float = 15.0
    """An unused upstream connection is kept so long."""
    upstream_idle_max: int = 256
    """Unused connections kept for one upstream."""
