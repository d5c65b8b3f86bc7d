"""The daemon's end of a host's control socket."""

import asyncio
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

from llmd.config.paths import SOCKET_PATH_MAX_BYTES
from llmd.errors import ConfigError
from llmd.hosts.protocol import MAX_LINE_BYTES, decode, encode


class ControlLostError(ConnectionError):
    """The host closed its control socket, or said what is not the protocol."""


class ControlRefusedError(Exception):
    """The host answered a request with an error.

    Attributes:
        exit_code: Of the server that a host of kind `exec` started, when that is why.
    """

    def __init__(self, message: str, *, exit_code: int | None = None) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class ControlClient(asyncio.Protocol):
    """Requests over one connection, any number at a time; it uses no task and wakes for nothing."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._received = bytearray()
        self._last_id = 0
        self._waiting: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._listening: dict[int, Callable[[dict[str, Any]], None]] = {}

    @classmethod
    async def connect(cls, path: Path) -> "ControlClient":
        """Connect to a host's control socket.

        Raises:
            OSError: Nobody listens there (yet).
        """
        loop = asyncio.get_running_loop()
        _, client = await loop.create_unix_connection(cls, os.fspath(path))
        return client

    @property
    def connected(self) -> bool:
        """Whether requests can be sent."""
        return self._transport is not None

    async def request(
        self, op: str, *, on_event: Callable[[dict[str, Any]], None] | None = None, **fields: Any
    ) -> dict[str, Any]:
        """Ask the host to do *op* and return its answer.

        *on_event* hears what the host reports in between. Cancelling stops the waiting, not the
        work; the late answer is dropped.

        Raises:
            ControlLostError: The connection is gone, or goes before the answer.
            ControlRefusedError: The host says no.
        """
        if self._transport is None:
            raise ControlLostError("the control socket is closed")
        self._last_id = number = self._last_id + 1
        self._waiting[number] = answered = self._loop.create_future()
        if on_event is not None:
            self._listening[number] = on_event
        self._transport.write(encode({"id": number, "op": op, **fields}))
        try:
            answer = await answered
        finally:
            self._waiting.pop(number, None)
            self._listening.pop(number, None)
        if not answer.get("ok"):
            raise ControlRefusedError(str(answer.get("error")), exit_code=answer.get("exit_code"))
        return {key: value for key, value in answer.items() if key not in ("id", "ok")}

    def close(self) -> None:
        """Hang up; requests in flight end with `ControlLostError`. The host starts its grace."""
        if self._transport is not None:
            self._transport.abort()
            self._lost()

    # --- asyncio.Protocol -------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See `asyncio.Protocol`."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is not a subclass

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`."""
        self._received += data
        while (end := self._received.find(b"\n")) >= 0:
            line = bytes(self._received[:end])
            del self._received[: end + 1]
            try:
                self._heard(decode(line))
            except ValueError:
                self.close()
                return
        if len(self._received) > MAX_LINE_BYTES:
            self.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """See `asyncio.Protocol`."""
        del exc
        self._lost()

    def _heard(self, message: dict[str, Any]) -> None:
        number = message.get("id")
        if not isinstance(number, int):
            return
        if "event" in message:
            if (listener := self._listening.get(number)) is not None:
                listener(message)
        elif (waiter := self._waiting.get(number)) is not None and not waiter.done():
            waiter.set_result(message)

    def _lost(self) -> None:
        self._transport = None
        for waiter in self._waiting.values():
            if not waiter.done():
                waiter.set_exception(ControlLostError("the host hung up"))


def socket_path(directory: Path, instance: str, name: str) -> Path:
    """Where a host's control (`c`) or upstream (`u`) socket is.

    Raises:
        ConfigError: It would not fit a socket address.
    """
    path = directory / f"{name}-{instance}.sock"
    if len(os.fsencode(path)) > SOCKET_PATH_MAX_BYTES:
        raise ConfigError(
            f"{path} is longer than a socket path may be ({SOCKET_PATH_MAX_BYTES} bytes)",
            remedy="set LLMD_SOCKET to a path in a directory with a shorter name",
        )
    return path
