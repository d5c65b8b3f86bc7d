"""The daemon: takes what happens to the scheduler, and carries out what comes back.

`dispatch` is the one place where decisions enter the world. It is synchronous; what takes time is
handed to tasks, whose outcome is another event.
"""

import asyncio
import itertools
from collections import deque
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, Final, assert_never

import structlog

from llmd.config.models import Config
from llmd.core.events import (
    Complete,
    ConfigReplaced,
    Effect,
    Event,
    Grant,
    LoadRequested,
    Note,
    PinChanged,
    Refuse,
    StartHost,
    StartSpare,
    StopHost,
    Stopping,
    Ticked,
    Ticket,
    TrimCaches,
    UnloadRequested,
    WakeAt,
)
from llmd.core.scheduler import Scheduler
from llmd.core.snapshot import Snapshot
from llmd.errors import LlmdError, ShuttingDownError
from llmd.proxy.gate import Lease, ModelCard, Settled
from llmd.proxy.limits import Limits
from llmd.proxy.pool import UpstreamPool
from llmd.runtime import clock
from llmd.runtime.catalogue import Catalogue, Entry
from llmd.runtime.gate import DaemonGate
from llmd.runtime.hosting import Hosting
from llmd.runtime.learned import Learned
from llmd.runtime.log import EventLog
from llmd.runtime.ports import Ports


FORCE_S: Final = 5.0
"""After `drain_timeout`, for hosts to end once their requests are cut."""

EXAMINE_S: Final = 1.0
"""Between two looks at a profile that cannot be loaded; each may walk `models_dirs`."""

log = structlog.get_logger("llmd")


class Daemon:
    """Everything that runs, joined.

    Attributes:
        scheduler: Decides; only `dispatch` feeds it.
        catalogue: The profiles of the configuration in use.
        hosting: The hosts that live.
        ports: The open ports.
        events: The decisions, for `llmd-ctl events`.
        waiting: Requests that have no answer yet, by ticket.
        tokens_per_s: Of the last stream of each profile.
    """

    def __init__(
        self,
        config: Config,
        *,
        learned: Learned,
        directory: Path,
        log_dir: Path,
        events: EventLog,
    ) -> None:
        """Prepare; `run` starts it.

        Args:
            config: What to begin with; `replace` brings another.
            learned: Footprints of earlier runs.
            directory: For the hosts' sockets: private, on a short path.
            log_dir: For the hosts' logs.
            events: Where decisions are recorded.
        """
        self.learned = learned
        self.events = events
        self.log_dir = log_dir
        self.catalogue = Catalogue.build(config, learned)
        self.scheduler = Scheduler()
        self.pool = UpstreamPool(Limits(), self.spawn_task)
        self.started_s = clock.now()
        self._naps = clock.Naps()
        self.waiting: dict[Ticket, Settled] = {}
        self.tokens_per_s: dict[str, float] = {}
        self.stopping = False
        self._commands: dict[Ticket, asyncio.Future[Complete]] = {}
        self._tickets = itertools.count(1)
        self._queue: deque[Event] = deque()
        self._dispatching = False
        self._tasks: asyncio.TaskGroup
        self._timer: asyncio.TimerHandle | None = None
        self._ended = asyncio.Event()
        self._examined_s: dict[str, float] = {}
        self.hosting = Hosting(
            spawn_task=self.spawn_task, post=self.dispatch, forget=self.pool.forget,
            learn=self._learn,
            directory=directory, log_dir=log_dir, orphan_grace_s=config.orphan_grace,
        )  # fmt: skip
        self.ports = Ports(DaemonGate(self), self.pool, self.spawn_task, self._rate)

    @property
    def config(self) -> Config:
        """The configuration in use."""
        return self.catalogue.config

    # --- life -----------------------------------------------------------------------------------

    async def run(self, ready: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Open the ports, call *ready*, and serve until `stop` has drained everything.

        Raises:
            PortInUseError: Not one port could be opened.
        """
        async with asyncio.TaskGroup() as self._tasks:
            try:
                await self.ports.open(self.config)
                self._configure()
                watcher = self._tasks.create_task(self._ended.wait())
                await ready()
                await watcher
            finally:
                await self.ports.close()
                self.pool.close()
                if self._timer is not None:
                    self._timer.cancel()
                self.hosting.kill_all()

    async def ended(self) -> None:
        """Wait until everything is drained."""
        await self._ended.wait()

    def spawn_task(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Run *work* in the daemon's task group: what it raises unexpectedly ends the daemon."""
        return self._tasks.create_task(work)

    def stop(self) -> None:
        """Begin to drain and end; returns at once. Idempotent."""
        if not self.stopping:
            self.stopping = True
            self.spawn_task(self._stop())

    async def _stop(self) -> None:
        """Finish what is in flight, at most `drain_timeout`; stop every host; then end."""
        log.info("daemon.stopping", drain_timeout_s=self.config.drain_timeout)
        self.ports.stop_accepting()
        self.dispatch(Stopping())
        gone = asyncio.gather(*(host.gone.wait() for host in self.hosting))
        await asyncio.wait((gone,), timeout=self.config.drain_timeout)
        self.dispatch(Stopping(force=True))
        if not gone.done():
            await asyncio.wait((gone,), timeout=2 * FORCE_S)
            gone.cancel()
        await self.ports.drain(timeout_s=1.0)
        self._ended.set()

    async def replace(self, config: Config) -> tuple[Config, Catalogue]:
        """Put *config* in place of the one in use; what did not change keeps running.

        Returns the configuration before, and the new catalogue.

        Raises:
            PortInUseError: A new port is taken; it is retried, everything else is in place.
        """
        before = self.config
        self.catalogue = await asyncio.to_thread(Catalogue.build, config, self.learned)
        self._examined_s.clear()
        self.hosting.orphan_grace_s = config.orphan_grace
        self._configure()
        await self.ports.open(config)
        return before, self.catalogue

    async def examine(self, profile: str) -> None:
        """Look again at a profile that could not be loaded: its weights may have arrived."""
        now = clock.now()
        if now - self._examined_s.get(profile, -EXAMINE_S) < EXAMINE_S:
            return
        self._examined_s[profile] = now
        catalogue = self.catalogue
        mended = await asyncio.to_thread(catalogue.examine, profile, self.learned)
        if mended is not None and catalogue is self.catalogue:
            self.catalogue = mended
            self._configure()

    def _configure(self) -> None:
        self.dispatch(ConfigReplaced(self.catalogue.rules, self.catalogue.residencies))

    def _rate(self, profile: str, tokens_per_s: float) -> None:
        self.tokens_per_s[profile] = tokens_per_s

    def _learn(self, entry: Entry, peak_bytes: int) -> None:
        """Keep what a host held at most, for the next load."""
        if entry.mark is None or not self.learned.record(entry.mark, peak_bytes):
            return
        try:
            self.learned.save()
        except OSError as error:
            log.warning("footprint.unsaved", path=str(self.learned.path), reason=str(error))

    # --- decisions ------------------------------------------------------------------------------

    def dispatch(self, event: Event) -> None:
        """Decide now, act later; the one place that logs a decision.

        An event that comes of carrying out another waits for its turn, so that effects are carried
        out in the order they were decided in.
        """
        self._queue.append(event)
        if self._dispatching:
            return
        if slept_s := self._naps.slept_s():
            self._queue.appendleft(Ticked(slept_s))  # before anybody is held to have waited so long
        self._dispatching = True
        try:
            while self._queue:
                for effect in self.scheduler.handle(self._queue.popleft(), now=clock.now()):
                    self._carry_out(effect)
        finally:
            self._dispatching = False

    def _carry_out(self, effect: Effect) -> None:
        match effect:
            case Grant():
                self._grant(effect)
            case Refuse():
                self._refuse(effect)
            case Note():
                log.info(effect.name, **effect.fields)
                self.events.record(effect.name, effect.fields)
            case WakeAt():
                self._wake_at(effect.when_s)
            case StartHost():
                self.hosting.start(effect, self.catalogue[effect.profile])
            case StartSpare():
                self.hosting.start_spare(effect)
            case StopHost():
                self.hosting.stop(effect)
            case Complete():
                future = self._commands.pop(effect.ticket, None)
                if future is not None and not future.done():
                    future.set_result(effect)
            case TrimCaches():
                self.spawn_task(self.hosting.trim(effect.host))
            case _:
                assert_never(effect)

    def _grant(self, effect: Grant) -> None:
        settled = self.waiting.pop(effect.ticket, None)
        host = self.hosting.get(effect.host)
        if settled is None:
            return
        assert host is not None, "a grant names a live host"  # noqa: S101
        assert host.upstream is not None, "that is ready"  # noqa: S101
        entry = self.catalogue[effect.profile]  # not the host's: `defaults` may have changed since
        settled(Lease(effect.ticket, effect.profile, host.upstream, entry.edits, entry.unsupported))

    def _refuse(self, effect: Refuse) -> None:
        settled = self.waiting.pop(effect.ticket, None)
        if settled is not None:
            settled(effect.error)
        future = self._commands.pop(effect.ticket, None)
        if future is not None and not future.done():
            future.set_exception(effect.error)

    def _wake_at(self, when_s: float) -> None:
        loop = asyncio.get_running_loop()
        due = loop.time() + max(when_s - clock.now(), 0.0)
        if self._timer is None or due < self._timer.when():
            if self._timer is not None:
                self._timer.cancel()
            self._timer = loop.call_later(max(when_s - clock.now(), 0.0), self._tick)

    def _tick(self) -> None:
        self._timer = None
        self.dispatch(Ticked())

    def new_ticket(self) -> Ticket:
        """A number for a request or a command."""
        return next(self._tickets)

    # --- commands -------------------------------------------------------------------------------

    async def load(self, profile: str, *, pin: bool, ttl_s: float | None) -> Complete:
        """Make *profile* resident; returns when it is ready.

        Raises:
            LlmdError: What stood in the way.
        """
        if profile in self.catalogue.faulty:
            self._examined_s.pop(profile, None)
            await self.examine(profile)
        return await self._command(LoadRequested(self.new_ticket(), profile, pin, ttl_s))

    async def unload(self, profile: str) -> Complete:
        """Drain and stop *profile*; returns when its memory is free.

        Raises:
            LlmdError: There is no such profile, or the daemon is stopping.
        """
        return await self._command(UnloadRequested(self.new_ticket(), profile))

    async def _command(self, event: LoadRequested | UnloadRequested) -> Complete:
        if self.stopping:
            raise ShuttingDownError("llmd is stopping")
        future: asyncio.Future[Complete] = asyncio.get_running_loop().create_future()
        self._commands[event.ticket] = future
        self.dispatch(event)
        return await future

    def pin(self, profile: str, *, pinned: bool) -> None:
        """Pin or unpin until the daemon ends."""
        self.dispatch(PinChanged(profile, pinned))

    # --- looking --------------------------------------------------------------------------------

    def snapshot(self) -> Snapshot:
        """All that may be shown of the decisions."""
        return self.scheduler.snapshot(clock.now())

    def preview(self, profile: str) -> tuple[tuple[str, ...] | None, LlmdError | None]:
        """What a load would evict; see `Scheduler.preview`."""
        return self.scheduler.preview(profile, clock.now())

    def explain(self, ticket: Ticket) -> str:
        """What a waiting request waits for."""
        return self.scheduler.explain(ticket) or "waiting for the engine"

    def last_error(self, profile: str) -> str | None:
        """How the host of *profile* last ended unasked."""
        views = self.snapshot().profiles
        return next((view.last_error for view in views if view.name == profile), None)

    def health(self, port: int) -> dict[str, Any]:
        """The body of `GET /health` on *port*."""
        snapshot = self.snapshot()
        view = next((view for view in snapshot.ports if view.port == port), None)
        if view is None:  # the gateway
            ready = [v.profile for v in snapshot.ports if v.state == "ready"]
            return {"status": "ok", "state": "ready" if ready else "unloaded", "ready": bool(ready)}
        return {
            "status": "ok",
            "state": view.state,
            "profile": view.profile,
            "ready": view.state == "ready",
            "in_flight": view.in_flight,
            "queued": view.queued,
        }

    def models(self, port: int) -> list[ModelCard]:
        """The profiles that *port* serves; the gateway serves all."""
        gateway = self.config.gateway
        everything = gateway is not None and port == gateway.port
        states = {view.name: view.state for view in self.snapshot().profiles}
        return [
            ModelCard(name, states.get(name, "unloaded"), entry.context, entry.profile.aliases)
            for name, entry in self.catalogue.items()
            if everything or entry.profile.port == port
        ]
