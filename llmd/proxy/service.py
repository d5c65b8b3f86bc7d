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
from llmd.proxy.request import Request


class Finished(Struct, frozen=True):
    """One line of an access log: nothing of what was said, only that it was.

    Attributes:
        profile: None when the request was answered without one.
        path: Without query.
        status: What the client was told; 499 when it hung up before it was told anything.
        cut: The answer did not reach its end.
        bytes_in: Of the request body.
        bytes_out: Of the response, with head and framing.
    """

    request_id: str
    port: int
    profile: str | None
    method: str
    path: str
    status: int
    cut: bool
    duration_s: float
    bytes_in: int
    bytes_out: int


_SANE_ID: Final = re.compile(rb"[A-Za-z0-9._:/+=@-]{1,128}\Z")

OnFinished = Callable[[Finished], None]

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
    on_finished: OnFinished | None = None
    on_rate: OnRate | None = None
    draining: bool = False
    held: bool = False
    _prefix: bytes = field(default_factory=lambda: urandom(5).hex().encode())
    _requests: int = 0

    def report(
        self,
        request: Request | None,
        request_id: bytes,
        *,
        profile: str | None,
        status: int,
        cut: bool,
        began_s: float,
        bytes_out: int,
    ) -> None:
        """Tell the access log of a request, or of bytes that never became one."""
        if self.on_finished is None:
            return
        self.on_finished(
            Finished(
                request_id=request_id.decode("latin-1"),
                port=self.port,
                profile=profile,
                method="-" if request is None else request.head.method.decode("latin-1"),
                path="-" if request is None else request.head.path,
                status=status or 499,
                cut=cut,
                duration_s=self.deadlines.now() - began_s,
                bytes_in=0 if request is None else request.body_bytes,
                bytes_out=bytes_out,
            )
        )

    def request_id(self, given: bytes | None) -> bytes:
        """The name of a request: the one it was *given* if that is sane, else a new one."""
        if given is not None and _SANE_ID.match(given):
            return given
        self._requests += 1
        return b"%b-%x" % (self._prefix, self._requests)
