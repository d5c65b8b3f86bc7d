"""One client-facing port: accepts connections, and ends them in order."""

import asyncio
import errno
import os
import socket
from collections.abc import Iterable, Sequence
from http import HTTPStatus
from typing import Final

from llmd.errors import LlmdError
from llmd.proxy.client import ClientConnection
from llmd.proxy.deadlines import Deadlines
from llmd.proxy.gate import Gate
from llmd.proxy.guard import Guard
from llmd.proxy.limits import Limits
from llmd.proxy.pool import UpstreamPool
from llmd.proxy.service import OnFinished, OnRate, Service


_BACKLOG: Final = 512
_PROBE_S: Final = 0.2
_NO_IPV6: Final = frozenset({errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT})


class TooManyConnectionsError(LlmdError):
    """`max_connections` clients are connected to the port."""

    code, status = "too_many_connections", HTTPStatus.SERVICE_UNAVAILABLE


class PortListener:
    """A port and all its connections. Made inside a running event loop.

    Args:
        port: To bind; 0 lets the kernel choose. The gate hears the bound one.
        on_finished: Called once for each request, with what an access log needs.
        on_rate: Called for each stream that was long enough to tell its tokens per second.
    """

    def __init__(
        self,
        port: int,
        gate: Gate,
        guard: Guard,
        pool: UpstreamPool,
        limits: Limits | None = None,
        *,
        on_finished: OnFinished | None = None,
        on_rate: OnRate | None = None,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._deadlines = Deadlines(self._loop)
        self._service = Service(
            port=port,
            gate=gate,
            guard=guard,
            pool=pool,
            limits=limits or Limits(),
            deadlines=self._deadlines,
            on_finished=on_finished,
            on_rate=on_rate,
        )
        self._servers: list[asyncio.Server] = []
        self._connections: set[ClientConnection] = set()
        self._empty: asyncio.Future[None] | None = None

    @property
    def port(self) -> int:
        """The bound port; before `start`, the wanted one."""
        return self._service.port

    @property
    def connections(self) -> int:
        """Clients connected now."""
        return len(self._connections)

    @property
    def busy(self) -> int:
        """Requests being served or waiting now."""
        return sum(connection.busy for connection in self._connections)

    @property
    def timer_running(self) -> bool:
        """Whether the event loop will be woken for some deadline of this port."""
        return self._deadlines.timer_running

    async def start(
        self,
        hosts: Iterable[str] = ("127.0.0.1", "::1"),
        sockets: Sequence[socket.socket] = (),
    ) -> None:
        """Listen on *sockets* (which become the listener's), or else on each of *hosts*.

        With port 0 all hosts get the same port. A machine without IPv6 does without `::1`.

        Raises:
            OSError: An address cannot be bound; `errno.EADDRINUSE` when another program has it.
                Nothing is left listening.
        """
        if sockets:
            self._service.port = sockets[0].getsockname()[1]
        else:
            sockets = self._bind(list(hosts))
        try:
            for sock in sockets:
                sock.setblocking(False)  # noqa: FBT003
                self._servers.append(
                    await self._loop.create_server(self._accept, sock=sock, backlog=_BACKLOG)
                )
        except OSError:
            self.stop_accepting()
            raise

    def _bind(self, hosts: list[str]) -> list[socket.socket]:
        bound: list[socket.socket] = []
        try:
            for host in hosts:
                sock = _bind_one(host, self._service.port)
                if sock is None:
                    continue
                bound.append(sock)
                self._service.port = sock.getsockname()[1]
        except OSError:
            for sock in bound:
                sock.close()
            raise
        return bound

    def replace_terms(self, guard: Guard, limits: Limits) -> None:
        """Judge further requests by *guard* and *limits*: the configuration was reloaded."""
        self._service.guard, self._service.limits = guard, limits

    def stop_accepting(self) -> None:
        """Close the listening sockets; connections go on. Idempotent."""
        for server in self._servers:
            server.close()
        self._servers.clear()

    async def drain(self, timeout_s: float) -> bool:
        """Let requests finish, for *timeout_s* seconds at most; idle connections close at once.

        Returns:
            Whether all connections are gone; `close` ends those that are not.
        """
        self._service.draining = True
        for connection in list(self._connections):
            connection.drain()
        if not self._connections:
            return True
        self._empty = self._loop.create_future()
        try:
            async with asyncio.timeout(timeout_s):
                await self._empty
        except TimeoutError:
            return False
        finally:
            self._empty = None
        return True

    def close(self) -> None:
        """Stop accepting and end all connections now, whatever they are at. Idempotent."""
        self._service.draining = True
        self.stop_accepting()
        for connection in list(self._connections):
            connection.abort()

    def _accept(self) -> ClientConnection:
        limit = self._service.limits.max_connections
        refusal = None
        if len(self._connections) >= limit:
            refusal = TooManyConnectionsError(
                f"{limit} clients are connected to this port already",
                remedy="close some, or use fewer",
                retry_after_s=1.0,
            )
        connection = ClientConnection(self._service, self._forget, refusal)
        self._connections.add(connection)
        return connection

    def _forget(self, connection: ClientConnection) -> None:
        self._connections.discard(connection)
        if not self._connections and self._empty is not None and not self._empty.done():
            self._empty.set_result(None)


def _bind_one(host: str, port: int) -> socket.socket | None:
    """A bound socket; None for an IPv6 address on a machine without IPv6."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    if port and _somebody_answers(family, host, port):
        raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))
    try:
        sock = socket.socket(family, socket.SOCK_STREAM)
    except OSError:
        if family == socket.AF_INET6:
            return None
        raise
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind((host, port))
    except OSError as exc:
        sock.close()
        if host == "::1" and exc.errno in _NO_IPV6:
            return None
        raise
    return sock


def _somebody_answers(family: int, host: str, port: int) -> bool:
    """Whether a program listens there already.

    macOS lets 127.0.0.1 be bound although somebody else listens on all addresses, and divides the
    connections between the two as it sees fit.
    """
    try:
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.settimeout(_PROBE_S)
            return probe.connect_ex((host, port)) == 0
    except OSError:
        return False
