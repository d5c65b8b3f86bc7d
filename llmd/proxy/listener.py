"""One client-facing port: accepts connections, ends them in order, or hands them on."""

import asyncio
import socket
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from http import HTTPStatus
from typing import Final

from msgspec import Struct

from llmd.errors import LlmdError
from llmd.proxy.at_work import AtWork
from llmd.proxy.binding import bind
from llmd.proxy.client import ClientConnection
from llmd.proxy.deadlines import Deadlines
from llmd.proxy.gate import Gate, Upstream
from llmd.proxy.guard import Guard
from llmd.proxy.limits import Limits
from llmd.proxy.pool import UpstreamPool
from llmd.proxy.service import OnRate, Service


_BACKLOG: Final = 512


class TooManyConnectionsError(LlmdError):
    """`max_connections` clients are connected to the port."""

    code, status = "too_many_connections", HTTPStatus.SERVICE_UNAVAILABLE


class Standing(Struct, frozen=True):
    """What of a port outlives an image: open descriptors, which belong to whoever holds this.

    Attributes:
        listening: One for each address.
        clients: Connections between two requests, each with what was read of the next one.
    """

    listening: tuple[socket.socket, ...]
    clients: tuple[tuple[socket.socket, bytes], ...]


class PortListener:
    """A port and all its connections. Made inside a running event loop.

    To leave the port to another image of this program: `hold`, `settle`, `hand_over`; there,
    `start` and `adopt`.

    Args:
        port: To bind; 0 lets the kernel choose. The gate hears the bound one.
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
            on_rest=self._look,
            on_rate=on_rate,
        )
        self._listening: list[socket.socket] = []
        self._servers: list[asyncio.Server] = []
        """Each on a duplicate of a socket in `_listening`, since they close what they are given."""
        self._connections: set[ClientConnection] = set()
        self._quiet = asyncio.Event()

    @property
    def port(self) -> int:
        """The bound port; before `start`, the wanted one."""
        return self._service.port

    @property
    def listening(self) -> tuple[socket.socket, ...]:
        """The sockets that it listens on, one for each address; they remain its own."""
        return tuple(self._listening)

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
        self._listening = list(sockets) or bind(hosts, self._service.port)
        for sock in self._listening:
            self._service.port = sock.getsockname()[1]
        try:
            await self._listen()
        except OSError:
            self.stop_accepting()
            raise

    async def _listen(self) -> None:
        for sock in self._listening:
            # Not left to the event loop: uvloop keeps a failure to itself.
            sock.listen(_BACKLOG)
            sock.setblocking(False)  # noqa: FBT003
            self._servers.append(
                await self._loop.create_server(self._accept, sock=sock.dup(), backlog=_BACKLOG)
            )

    def replace_terms(self, guard: Guard, limits: Limits) -> None:
        """Judge further requests by *guard* and *limits*: the configuration was reloaded."""
        self._service.guard, self._service.limits = guard, limits

    def stop_accepting(self) -> None:
        """Close the listening sockets; connections go on. Idempotent."""
        self._leave_waiting()
        for sock in self._listening:
            sock.close()
        self._listening.clear()

    def _leave_waiting(self) -> None:
        """Accept no more; as long as the sockets are open, whoever connects waits."""
        for server in self._servers:
            server.close()
        self._servers.clear()

    async def drain(self, timeout_s: float | None) -> bool:
        """Let requests finish, for *timeout_s* seconds at most; idle connections close at once.

        None sets no limit but those that each request has.

        Returns:
            Whether all connections are gone; `close` ends those that are not.
        """
        self._service.draining = True
        self._service.held = False
        for connection in list(self._connections):
            connection.release()
            connection.drain()
        return await self._until_quiet(timeout_s)

    def close(self) -> None:
        """Stop accepting and end all connections now, whatever they are at. Idempotent."""
        self._service.draining = True
        self.stop_accepting()
        for connection in list(self._connections):
            connection.abort()

    # --- another image ---

    def hold(self) -> None:
        """Begin nothing more; what has begun goes on to its end. Idempotent.

        New connections wait in the kernel, requests that have not begun stay unread or unparsed. A
        request has begun when its head is complete.
        """
        self._service.held = True
        self._leave_waiting()
        for connection in list(self._connections):
            connection.hold()

    async def release(self) -> None:
        """Undo `hold`: go on with what was left unread, and accept again.

        Raises:
            OSError: There are no descriptors left.
        """
        if not self._service.held:
            return
        self._service.held = False
        for connection in list(self._connections):
            connection.release()
        await self._listen()

    async def settle(self, timeout_s: float) -> bool:
        """After `hold`: wait until nothing that has begun is left, for *timeout_s* at most.

        Returns:
            Whether that was reached; `end_all` ends what was not.
        """
        return await self._until_quiet(timeout_s)

    def end_all(self, error: LlmdError) -> None:
        """End all requests that have begun with *error*, and their connections behind it.

        Those that wait are answered with it, streams of events end with it as an event, anything
        else breaks off. Allow a moment to `settle` afterwards, in which this is sent.
        """
        for connection in list(self._connections):
            connection.end(error)

    def at_work(self) -> list[AtWork]:
        """The requests that are with an engine now."""
        found = [connection.at_work for connection in self._connections]
        return [request for request in found if request is not None]

    def end_at(self, upstream: Upstream, error: LlmdError) -> None:
        """End the requests that are with the engine at *upstream*, as `end_all` would."""
        for connection in list(self._connections):
            request = connection.at_work
            if request is not None and request.upstream is upstream:
                connection.end(error)

    def hand_over(self) -> Standing:
        """After `hold` and `settle`: give away the listening sockets and the idle connections.

        Nothing is sent or shut down, so neither clients nor a service manager notice. Connections
        that have not come to rest stay. If nobody takes the rest after all, this listener can:
        `start` and `adopt`.

        Raises:
            OSError: There are not enough descriptors; nothing has changed.
        """
        resting = [connection for connection in self._connections if connection.at_rest]
        with ExitStack() as undo:
            clients = [
                (undo.enter_context(connection.duplicate()), connection.unread)
                for connection in resting
            ]
            undo.pop_all()
        for connection in resting:
            connection.let_go()
        listening, self._listening = self._listening, []
        self._service.held = False
        return Standing(tuple(listening), tuple(clients))

    async def adopt(self, sock: socket.socket, unread: bytes = b"") -> None:
        """Serve a client that an earlier image accepted; *unread* is what it had read from it.

        Takes *sock* over. The client counts as a connection, but is not refused for being one too
        many: it was let in already. One that is gone meanwhile is dropped.
        """
        connection = ClientConnection(self._service, self._forget, unread=unread)
        self._connections.add(connection)
        try:
            sock.setblocking(False)  # noqa: FBT003
            await self._loop.connect_accepted_socket(lambda: connection, sock)
        except OSError:
            sock.close()
            self._forget(connection)

    # --- connections ---

    def _accept(self) -> ClientConnection:
        limit = self._service.limits.max_connections
        refusal = None
        if len(self._connections) >= limit:
            refusal = TooManyConnectionsError(
                f"{limit} clients are connected to this port already",
                remedy="close some, or use fewer",
                retry_after_s=1.0,
            )
        connection = ClientConnection(self._service, self._forget, refusal=refusal)
        self._connections.add(connection)
        return connection

    def _forget(self, connection: ClientConnection) -> None:
        self._connections.discard(connection)
        self._look()

    async def _until_quiet(self, timeout_s: float | None) -> bool:
        self._quiet.clear()
        self._look()
        try:
            async with asyncio.timeout(timeout_s):
                await self._quiet.wait()
        except TimeoutError:
            return False
        return True

    def _look(self) -> None:
        """Wake whoever waits if each connection is gone or, while the port is held, at rest."""
        if not self._quiet.is_set() and all(each.at_rest for each in self._connections):
            self._quiet.set()
