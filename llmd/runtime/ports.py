"""The ports that clients use: opened, kept, and closed again, following the configuration."""

import asyncio
import errno
import socket
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any, Final

import structlog
from msgspec import Struct, field

from llmd.config.models import Config
from llmd.errors import LlmdError, PortInUseError
from llmd.platform.listeners import who_listens
from llmd.proxy.at_work import AtWork
from llmd.proxy.gate import Gate, Upstream
from llmd.proxy.guard import Guard
from llmd.proxy.limits import Limits
from llmd.proxy.listener import PortListener, Standing
from llmd.proxy.pool import UpstreamPool
from llmd.proxy.service import OnRate


RETRY_S: Final = 5.0
"""Between attempts to open a port that another program holds."""

log = structlog.get_logger("llmd.ports")


class Held(Struct, frozen=True):
    """What was open before this daemon was: a service manager's sockets, or an earlier image's.

    Attributes:
        standing: Sockets by port.
        managed: Ports that a service manager holds, whatever becomes of this process.
        keep: Leaves the sockets of a port with the service manager, for the next start; None when
            there is none.
    """

    standing: Mapping[int, Standing] = field(default_factory=dict)
    managed: frozenset[int] = frozenset()
    keep: Callable[[int, Sequence[socket.socket]], None] | None = None


class Ports:
    """One listener for each port of the configuration, and for each that is held for us.

    A port that another program holds hinders no other: it is tried again until it is free, and
    `errors` says meanwhile who has it. A port that a service manager holds stays open although the
    configuration has none of that number any more, since nobody but us would answer there. One that
    is closed accepts nobody any more, and ends when what its clients have begun is over.
    """

    def __init__(
        self,
        gate: Gate,
        pool: UpstreamPool,
        spawn_task: Callable[[Coroutine[Any, Any, None]], asyncio.Task[Any]],
        on_rate: OnRate,
        held: Held,
    ) -> None:
        self._gate = gate
        self._held = held
        self._standing = dict(held.standing)
        self._pool = pool
        self._spawn_task = spawn_task
        self._on_rate = on_rate
        self._listeners: dict[int, PortListener] = {}
        self._leaving: set[PortListener] = set()
        """Those of no port any more, with answers still under way."""
        self._listen: tuple[str, ...] = ()
        self._retry: asyncio.Task[Any] | None = None
        self.errors: dict[int, PortInUseError] = {}

    @property
    def managed(self) -> frozenset[int]:
        """Ports that the service manager holds."""
        return self._held.managed

    @property
    def numbers(self) -> tuple[int, ...]:
        """Ports that are open."""
        return tuple(self._listeners)

    def addresses(self, port: int) -> tuple[str, ...]:
        """Where *port* is open; empty when it is not."""
        return self._listen if port in self._listeners else ()

    async def open(self, config: Config) -> None:
        """Open what *config* names and close what it no longer does.

        Raises:
            PortInUseError: Every port is taken, and none was open before.
        """
        wanted = ports_of(config) | self.managed
        moved = config.listen != self._listen and bool(self._listen)
        stale = {port for port in self._listeners if port not in wanted or moved} - self.managed
        for port in stale:
            self._see_off(self._listeners.pop(port))
        for port in set(self._standing) - wanted:
            _close(self._standing.pop(port))
        self._listen = config.listen
        guard, limits = terms_of(config)
        for listener in self._listeners.values():
            listener.replace_terms(guard, limits)
        self.errors.clear()
        for port in sorted(wanted - set(self._listeners)):
            await self._open_one(port, config)
        if self.errors and not self._listeners:
            raise next(iter(self.errors.values()))
        if self._retry is not None:
            self._retry.cancel()
        self._retry = self._spawn_task(self._try_again(config)) if self.errors else None

    def _see_off(self, listener: PortListener) -> None:
        listener.stop_accepting()
        self._leaving.add(listener)

        async def until_quiet() -> None:
            await listener.drain(None)
            self._leaving.discard(listener)

        self._spawn_task(until_quiet())

    async def _open_one(self, port: int, config: Config) -> None:
        guard, limits = terms_of(config)
        listener = PortListener(port, self._gate, guard, self._pool, limits, on_rate=self._on_rate)
        standing = self._standing.pop(port, None)
        try:
            if standing is None:
                await listener.start(hosts=config.listen)
            else:
                await listener.start(sockets=standing.listening)
        except OSError as error:
            listener.close()
            if port not in self.errors:
                self.errors[port] = explain_bind(port, error)
                log.error("port.unavailable", port=port, reason=self.errors[port].message)
            return
        self.errors.pop(port, None)
        self._listeners[port] = listener
        for client, unread in () if standing is None else standing.clients:
            await listener.adopt(client, unread)
        if self._held.keep is not None and port not in self.managed:
            self._held.keep(port, listener.listening)
        log.info(
            "port.opened", port=port, addresses=self.addresses(port), taken_over=bool(standing)
        )

    async def _try_again(self, config: Config) -> None:
        while self.errors:
            await asyncio.sleep(RETRY_S)
            for port in tuple(self.errors):
                await self._open_one(port, config)

    def stop_accepting(self) -> None:
        """Let no new connection in."""
        if self._retry is not None:
            self._retry.cancel()
        for listener in self._listeners.values():
            listener.stop_accepting()

    def _all(self) -> tuple[PortListener, ...]:
        """Whoever has connections."""
        return (*self._listeners.values(), *self._leaving)

    # --- leaving the ports to the next daemon ---------------------------------------------------

    def hold(self) -> None:
        """Begin nothing more: connections wait, what has begun goes on. Idempotent."""
        if self._retry is not None:
            self._retry.cancel()
        for listener in self._listeners.values():
            listener.hold()

    async def settle(self, *, timeout_s: float) -> bool:
        """Wait until all that has begun is over; False when *timeout_s* was not enough."""
        settled = [listener.settle(timeout_s) for listener in self._all()]
        return all(await asyncio.gather(*settled))

    def end_all(self, error: LlmdError) -> None:
        """End with *error* what has begun and is not over."""
        for listener in self._all():
            listener.end_all(error)

    def at_work(self) -> list[AtWork]:
        """The requests that are with an engine now."""
        return [request for each in self._all() for request in each.at_work()]

    def end_at(self, upstream: Upstream, error: LlmdError) -> None:
        """End with *error* what is with the engine at *upstream*."""
        for listener in self._listeners.values():
            listener.end_at(upstream, error)

    def hand_over(self) -> dict[int, Standing]:
        """Give away the open sockets and the idle connections, by port; after `settle`.

        Raises:
            OSError: There are not enough descriptors; `take_back` goes on.
        """
        for port, listener in self._listeners.items():
            self._standing[port] = listener.hand_over()
        standing, self._standing = self._standing, {}
        return standing

    async def take_back(self) -> None:
        """Go on after all: undo `hold`, and `hand_over` where it was done."""
        for port, listener in self._listeners.items():
            standing = self._standing.pop(port, None)
            await listener.release()
            if standing is not None:
                await listener.start(sockets=standing.listening)
                for client, unread in standing.clients:
                    await listener.adopt(client, unread)

    # --- the end --------------------------------------------------------------------------------

    async def drain(self, *, timeout_s: float) -> None:
        """Wait for answers that are still being written."""
        drains = [listener.drain(timeout_s) for listener in self._all()]
        await asyncio.gather(*drains)

    async def close(self) -> None:
        """Close every port and connection."""
        if self._retry is not None:
            self._retry.cancel()
        for listener in self._all():
            listener.close()
        self._listeners.clear()
        for standing in self._standing.values():
            _close(standing)
        self._standing.clear()


def ports_of(config: Config) -> set[int]:
    """Every port that *config* names."""
    ports = {profile.port for profile in config.profiles.values()}
    return ports if config.gateway is None else ports | {config.gateway.port}


def _close(standing: Standing) -> None:
    for sock in (*standing.listening, *(client for client, _ in standing.clients)):
        sock.close()


def terms_of(config: Config) -> tuple[Guard, Limits]:
    """Who may use the ports, and how much they take."""
    guard = Guard(
        allowed_hosts=config.allowed_hosts,
        cors_origins=config.cors_origins,
        api_keys=tuple(key.get_secret_value() for key in config.api_keys),
        addresses=config.listen,
    )
    return guard, Limits(max_body_bytes=config.max_body)


def explain_bind(port: int, error: OSError) -> PortInUseError:
    """Why *port* could not be opened, who has it, and what to do."""
    if error.errno == errno.EACCES:
        return PortInUseError(
            f"port {port} may not be opened by this user",
            remedy="choose a port above 1023",
        )
    if error.errno != errno.EADDRINUSE:
        return PortInUseError(
            f"port {port} cannot be opened: {error.strerror}", remedy="check `listen`"
        )
    holder = who_listens(port)
    if holder is None:
        return PortInUseError(
            f"port {port} is in use by another program",
            remedy=f"find it with `lsof -nP -iTCP:{port} -sTCP:LISTEN`, or choose another port",
        )
    name, pid = holder
    return PortInUseError(
        f"port {port} is in use by {name} (pid {pid})",
        remedy=f"stop it with `kill {pid}`, or choose another port",
    )
