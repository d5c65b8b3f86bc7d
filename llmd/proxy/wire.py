"""The lower half of a client connection: transport, stage, alarm, and the ways it can end."""

import asyncio
import os
import socket
import struct
from collections.abc import Callable
from typing import Final, cast

from llmd.proxy.deadlines import Alarm
from llmd.proxy.service import Service
from llmd.proxy.states import Stage


_RESET_ON_CLOSE: Final = struct.pack("ii", 1, 0)
_HIGH_WATER: Final = 64 * 2**10
_LOW_WATER: Final = 16 * 2**10


class Wire(asyncio.Protocol):
    """What a connection does whatever its bytes mean; the upper half gives them their meaning.

    Args:
        ring: Called when the alarm rings.

    Attributes:
        write_paused: The client reads slower than we write.
    """

    __slots__ = (
        "_reading_paused", "_service", "_stage", "_transport", "alarm", "write_paused",
    )  # fmt: skip

    def __init__(self, service: Service, ring: Callable[[], None]) -> None:
        self._service = service
        self._stage = Stage.HEAD
        self._transport: asyncio.Transport | None = None
        self._reading_paused = False
        self.alarm = Alarm(service.deadlines, ring)
        self.write_paused = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Of asyncio: there is a client."""
        self._transport = cast("asyncio.Transport", transport)
        self._transport.set_write_buffer_limits(_HIGH_WATER, _LOW_WATER)

    def write(self, data: bytes) -> None:
        """Send *data*, or nothing when the client is gone."""
        transport = self._transport
        if data and transport is not None and not transport.is_closing():
            transport.write(data)

    def _pause_reading(self) -> None:
        if self._transport is not None and not self._reading_paused:
            self._reading_paused = True
            self._transport.pause_reading()

    def _resume_reading(self) -> None:
        if self._reading_paused and self._transport is not None:
            self._reading_paused = False
            self._transport.resume_reading()

    # --- ends ---

    def _close(self) -> None:
        """Close once everything is written; not later than `stall_s`."""
        self._stage = Stage.CLOSING
        if self._transport is not None:
            self._transport.close()
        self.alarm.set(self._service.limits.stall_s)

    def _linger(self) -> None:
        """End our side, and read what still comes."""
        self._stage = Stage.LINGERING
        self.alarm.set(self._service.limits.linger_s)
        transport = self._transport
        if transport is not None and not transport.is_closing():
            transport.write_eof()
            self._resume_reading()

    def _reset(self) -> None:
        """Break the connection at once, and so that nobody takes it for a regular end."""
        self._stage = Stage.CLOSING
        transport = self._transport
        if transport is None:
            return
        sock: socket.socket | None = transport.get_extra_info("socket")
        if sock is not None and not transport.is_closing():
            # A reset, not an end of file, which would be a clean end for HTTP/1.0.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        transport.abort()

    # --- handing over ---

    @property
    def at_rest(self) -> bool:
        """Whether it is held, with every answer sent to its last byte: fit for another image."""
        return self._stage is Stage.HELD and not self.write_paused

    def hold(self) -> None:
        """Begin no further request, now or once the present one is over. Idempotent.

        What the client sends is kept, for `release` or for another image.
        """
        if self._stage is not Stage.HEAD or self._transport is None:
            return  # called again when it gets there
        self._stage = Stage.HELD
        # Any unsent byte pauses writing now, so that `resume_writing` tells of the last one.
        self._transport.set_write_buffer_limits(0, 0)
        if not self.write_paused:
            self._service.on_rest()

    def release(self) -> None:
        """Undo `hold`."""
        if self._stage is Stage.HELD and self._transport is not None:
            self._stage = Stage.HEAD
            self._transport.set_write_buffer_limits(_HIGH_WATER, _LOW_WATER)
            self._resume_reading()

    def duplicate(self) -> socket.socket:
        """A second descriptor of the connection, not inheritable; it survives `let_go`.

        Raises:
            OSError: There are no descriptors left.
        """
        if self._transport is None:
            raise RuntimeError("a duplicate of no connection")
        sock: socket.socket = self._transport.get_extra_info("socket")
        # The family is named, because macOS does not tell that of a connection that was reset.
        return socket.socket(sock.family, socket.SOCK_STREAM, fileno=os.dup(sock.fileno()))

    def let_go(self) -> None:
        """Close our descriptor and do nothing else: the client does not notice."""
        self._stage = Stage.CLOSING
        if self._transport is not None:
            self._transport.abort()
