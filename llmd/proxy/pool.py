"""Connections to hosts: made when needed, kept for the next request, dropped with the host."""

import asyncio
import ssl
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any, Protocol

from llmd.proxy.deadlines import Alarm, Deadlines
from llmd.proxy.gate import Upstream
from llmd.proxy.limits import Limits
from llmd.proxy.upstream import Receiver, UpstreamConnection


Spawn = Callable[[Coroutine[Any, Any, None]], object]
"""Starts a task and keeps it, as `asyncio.TaskGroup.create_task` does."""

_Address = tuple[str | None, str, int, bool]


class Caller(Receiver, Protocol):
    """Who asks for a connection."""

    def connected(self, connection: UpstreamConnection) -> None:
        """Here is one, made just now."""

    def unreachable(self, reason: str) -> None:
        """There is none to be had."""

    @property
    def gone(self) -> bool:
        """Whether the caller has no use for a connection any more."""


class Shelf:
    """The kept connections of one upstream.

    Attributes:
        answers: How many were complete so far.
        retired: Nothing returns to it any more.
    """

    __slots__ = ("address", "answers", "idle", "retired")

    def __init__(self, address: _Address) -> None:
        self.address = address
        self.idle: deque[UpstreamConnection] = deque()
        self.answers = 0
        self.retired = False


class UpstreamPool:
    """All connections to all hosts.

    Args:
        spawn: Starts the tasks that connect; asyncio offers connecting only as a coroutine. They
            end within `connect_timeout_s` and raise nothing.
    """

    def __init__(self, limits: Limits, spawn: Spawn) -> None:
        self._limits = limits
        self._spawn = spawn
        self._loop = asyncio.get_running_loop()
        self._deadlines = Deadlines(self._loop)
        self._alarm = Alarm(self._deadlines, self._expire)
        self._shelves: dict[_Address, Shelf] = {}
        self._tls: ssl.SSLContext | None = None
        self._closed = False

    def take(self, upstream: Upstream) -> UpstreamConnection | None:
        """A kept connection, the one used last; None when there is none and `connect` is next."""
        shelf = self._shelves.get((upstream.path, upstream.host, upstream.port, upstream.tls))
        if shelf is None:
            return None
        while shelf.idle:
            connection = shelf.idle.pop()
            if connection.open:
                return connection
        return None

    def connect(self, upstream: Upstream, caller: Caller) -> None:
        """Make a connection; *caller* hears of it, later, unless it is `gone` by then."""
        address = (upstream.path, upstream.host, upstream.port, upstream.tls)
        shelf = self._shelves.get(address)
        if shelf is None:
            shelf = self._shelves[address] = Shelf(address)
        self._spawn(self._connect(shelf, upstream, caller))

    def give_back(self, connection: UpstreamConnection) -> None:
        """After a complete answer: keep *connection* if it is fit for another, else close it."""
        shelf = connection.shelf
        shelf.answers += 1
        connection.receiver = None
        if (
            not connection.reusable
            or shelf.retired
            or self._closed
            or len(shelf.idle) >= self._limits.upstream_idle_max
        ):
            connection.abort()
            return
        connection.reused = True
        connection.idle_since_s = self._deadlines.now()
        shelf.idle.append(connection)
        if self._alarm.due_s > connection.idle_since_s + self._limits.upstream_idle_s:
            self._alarm.set(self._limits.upstream_idle_s)

    def answers(self, upstream: Upstream) -> int:
        """How many complete answers have come from *upstream*."""
        shelf = self._shelves.get((upstream.path, upstream.host, upstream.port, upstream.tls))
        return 0 if shelf is None else shelf.answers

    def forget(self, upstream: Upstream) -> None:
        """Close the kept connections of *upstream*: its host is gone, or another one now.

        Connections in use are left alone; they are closed once their answer is complete.
        """
        shelf = self._shelves.pop((upstream.path, upstream.host, upstream.port, upstream.tls), None)
        if shelf is not None:
            self._retire(shelf)

    def close(self) -> None:
        """Close all kept connections; those in use follow with their answers."""
        self._closed = True
        for shelf in self._shelves.values():
            self._retire(shelf)
        self._shelves.clear()
        self._alarm.close()

    @property
    def kept(self) -> int:
        """How many connections wait for a request."""
        return sum(len(shelf.idle) for shelf in self._shelves.values())

    @property
    def timer_running(self) -> bool:
        """Whether a kept connection will be closed in time, which needs a timer."""
        return self._deadlines.timer_running

    def _retire(self, shelf: Shelf) -> None:
        shelf.retired = True
        for connection in shelf.idle:
            connection.abort()
        shelf.idle.clear()

    async def _connect(self, shelf: Shelf, upstream: Upstream, caller: Caller) -> None:
        try:
            async with asyncio.timeout(self._limits.connect_timeout_s):
                connection = await self._open(shelf, upstream)
        except TimeoutError:
            if not caller.gone:
                caller.unreachable(f"no connection within {self._limits.connect_timeout_s:g} s")
        except OSError as exc:
            if not caller.gone:
                caller.unreachable(exc.strerror or str(exc))
        else:
            if caller.gone or not connection.open:
                connection.abort()
                if not caller.gone:
                    caller.unreachable("the connection was closed at once")
            else:
                caller.connected(connection)

    async def _open(self, shelf: Shelf, upstream: Upstream) -> UpstreamConnection:
        def make() -> UpstreamConnection:
            return UpstreamConnection(shelf, self._ended_idle)

        if upstream.path is not None:
            _, connection = await self._loop.create_unix_connection(make, upstream.path)
        else:
            tls = self._tls_context() if upstream.tls else None
            _, connection = await self._loop.create_connection(
                make, upstream.host, upstream.port, ssl=tls
            )
        return connection

    def _tls_context(self) -> ssl.SSLContext:
        if self._tls is None:
            self._tls = ssl.create_default_context()
        return self._tls

    def _ended_idle(self, connection: UpstreamConnection) -> None:
        """A host closed a kept connection."""
        try:
            connection.shelf.idle.remove(connection)
        except ValueError:
            return

    def _expire(self) -> None:
        """Close what was kept too long, oldest first, and come back for the next."""
        now_s = self._deadlines.now()
        oldest_s = now_s
        for shelf in self._shelves.values():
            while shelf.idle and now_s - shelf.idle[0].idle_since_s >= self._limits.upstream_idle_s:
                shelf.idle.popleft().abort()
            if shelf.idle:
                oldest_s = min(oldest_s, shelf.idle[0].idle_since_s)
        if any(shelf.idle for shelf in self._shelves.values()):
            self._alarm.set(max(0.001, oldest_s + self._limits.upstream_idle_s - now_s))
