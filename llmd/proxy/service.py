"""What all connections of one port share."""

import re
from collections.abc import Callable
from os import urandom
from typing import Final

from msgspec import Struct, field

from llmd.proxy.deadlines import Deadlines
from llmd.proxy.gate import Gate
from llmd.proxy.guard import Guard
from llmd.proxy.limits import Limits
from llmd.proxy.pool import UpstreamPool


_SANE_ID: Final = re.compile(rb"[A-Za-z0-9._:/+=@-]{1,128}\Z")

OnRate = Callable[[str, float], None]
"""Told a profile, and the tokens per second that one stream of it came at."""


class Service(Struct):
    """The collaborators of one port's connections.

    Attributes:
        port: As bound; the gate knows the port by it.
        on_rest: Called when a connection has come to rest while the port is `held`.
        draining: Each answer is the last on its connection.
        held: No further request is begun.
    """

    port: int
    gate: Gate
    guard: Guard
    pool: UpstreamPool
    limits: Limits
    deadlines: Deadlines
    on_rest: Callable[[], None]
    on_rate: OnRate | None = None
    draining: bool = False
    held: bool = False
    _prefix: bytes = field(default_factory=lambda: urandom(5).hex().encode())
    _requests: int = 0

    def request_id(self, given: bytes | None) -> bytes:
        """The name of a request: the one it was *given* if that is sane, else a new one."""
        if given is not None and _SANE_ID.match(given):
            return given
        self._requests += 1
        return b"%b-%x" % (self._prefix, self._requests)
