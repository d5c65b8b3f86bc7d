"""The daemon: takes what happens to the scheduler, and carries out what comes back.

`dispatch` is the one place where decisions enter the world. It is synchronous; what takes time is
handed to tasks, whose outcome is another event.
"""

import asyncio
import itertools
from collections import deque
from collections.abc import Callable, Coroutine
from math import inf
from pathlib import Path
from typing import Any, Final, assert_never

import structlog
from msgspec.structs import replace

from llmd.config.models import Config
from llmd.core.events import (
    AdoptHost,
    Complete,
    ConfigReplaced,
    Effect,
    Event,
    Grant,
    Note,
    PinChanged,
    Refuse,
    StartHost,
    StartSpare,
    StopHost,
    Ticked,
    TrimCaches,
    WakeAt,
)
from llmd.core.facts import Stock, Ticket
from llmd.core.scheduler import Scheduler
from llmd.core.snapshot import Snapshot
from llmd.errors import LlmdError
from llmd.proxy.gate import Lease, Settled
from llmd.proxy.limits import Limits
from llmd.proxy.pool import UpstreamPool
from llmd.runtime import clock
from llmd.runtime.catalogue import Catalogue, Entry
from llmd.runtime.commands import Commands
from llmd.runtime.departure import FORCE_S, Departure, Way
from llmd.runtime.gate import DaemonGate
from llmd.runtime.hosting import Hosting
from llmd.runtime.learned import Learned
from llmd.runtime.ledger import Ledger
from llmd.runtime.log import EventLog
from llmd.runtime.ports import Held, Ports
from llmd.runtime.saving import Saving
from llmd.runtime.succession import Succession


RESERVE_S: Final = 2 * FORCE_S + 2.0
"""Of what the service manager waits, for what comes after the drain time."""

BACKLOG_S: Final = 5.0
"""After the start, in which nobody is refused because too many came at once: they had to wait."""

NOTHING_LEFT: Final = Stock()

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
        new_ticket: Numbers requests and commands.
        departure: How and when it ends.
        commands: What administrators wait for.
        dispatched: Events so far.
    """

    def __init__(
        self,
        config: Config,
        *,
        learned: Learned,
        ledger: Ledger,
        owner: Path,
        log_dir: Path,
        events: EventLog,
        held: Held,
    ) -> None:
        """Prepare; `run` starts it.

        Args:
            config: What to begin with; `replace` brings another.
            learned: Footprints of earlier runs.
            ledger: What an earlier daemon left, and what this one will leave.
            owner: The daemon's own socket; those of its hosts are beside it.
            log_dir: For the hosts' logs.
            events: Where decisions are recorded.
            held: Sockets that were open before this daemon.
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
        self.new_ticket: Callable[[], Ticket] = itertools.count(1).__next__
        self.dispatched = 0
        self._queue: deque[Event] = deque()
        self._dispatching = False
        self._tasks: asyncio.TaskGroup
        self._timer: asyncio.TimerHandle | None = None
        self._due_s = 0.0
        self._examined_s: dict[str, float] = {}
        self._saving = Saving(config.saved_prompts)
        self.hosting = Hosting(
            spawn_task=self.spawn_task, post=self.dispatch, forget=self.pool.forget,
            learn=self._learn, record=self.record,
            owner=owner, log_dir=log_dir, orphan_grace_s=config.orphan_grace,
            saving=self._saving,
        )  # fmt: skip
        self.ports = Ports(DaemonGate(self), self.pool, self.spawn_task, self._rate, held)
        self.departure = Departure(
            ports=self.ports, hosting=self.hosting, ledger=ledger, dispatch=self.dispatch,
            spawn_task=self.spawn_task, record=self.record,
        )  # fmt: skip
        self.commands = Commands(self.dispatch, self.new_ticket, self.departure)
        self._succession = Succession(
            ledger, owner=owner, hosting=self.hosting, scheduler=self.scheduler
        )

    @property
    def config(self) -> Config:
        """The configuration in use."""
        return self.catalogue.config

    # --- life -----------------------------------------------------------------------------------

    async def run(self, ready: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Take over what is left, open the ports, call *ready*, and serve until the departure.

        However this ends, hosts that were not stopped live on for their grace, to be adopted.

        Raises:
            PortInUseError: Not one port could be opened.
        """
        async with asyncio.TaskGroup() as self._tasks:
            try:
                # Before anybody can ask for a second copy of what is loaded already.
                self._configure(await self._succession.inherit())
                await self._succession.heard()
                await self.ports.open(self.config)
                watcher = self._tasks.create_task(self.departure.ended.wait())
                await ready()
                self.spawn_task(self._saving.tidy())
                await watcher
            finally:
                self.commands.refuse_all()
                await self.ports.close()
                self.pool.close()
                if self._timer is not None:
                    self._timer.cancel()
                if self.departure.way == "stop":
                    self.hosting.kill_all()
                else:
                    self.hosting.leave()

    def spawn_task(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Run *work* in the daemon's task group: what it raises unexpectedly ends the daemon."""
        return self._tasks.create_task(work)

    def depart(self, way: Way, *, within_s: float = inf) -> None:
        """Begin to end; returns at once. Idempotent.

        *within_s* is how long the service manager waits before it kills.
        """
        drain_s = min(self.config.drain_timeout, max(within_s - RESERVE_S, 0.0))
        self.departure.begin(way, drain_s=drain_s)

    def record(self) -> None:
        """Write down what a daemon that follows this one should find, if it changed."""
        if not self.departure.ended.is_set():
            self._succession.record()

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
        self._saving.limit_bytes = config.saved_prompts
        self.spawn_task(self._saving.tidy())
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

    def _configure(self, left: Stock = NOTHING_LEFT) -> None:
        rules = replace(self.catalogue.rules, queue_limit_from_s=self.started_s + BACKLOG_S)
        self.dispatch(ConfigReplaced(rules, self.catalogue.residencies, left))

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
        catalogue = self.catalogue.relearned(self.learned)
        if catalogue.residencies != self.catalogue.residencies:
            self.catalogue = catalogue
            self._configure()

    # --- decisions ------------------------------------------------------------------------------

    def dispatch(self, event: Event) -> None:
        """Decide now, act later; the one place that logs a decision.

        An event that comes of carrying out another waits for its turn, so that effects are carried
        out in the order they were decided in. What fails here is a bug, and ends the daemon: no
        decision behind it could be trusted. The next one begins from what its hosts say.
        """
        self.dispatched += 1
        self._queue.append(event)
        if self._dispatching:
            return
        self._dispatching = True
        try:
            now = clock.now()
            if slept_s := self._naps.slept_s(now):
                # Before anybody is held to have waited so long.
                self._queue.appendleft(Ticked(slept_s))
            while self._queue:
                for effect in self.scheduler.handle(self._queue.popleft(), now=now):
                    self._carry_out(effect)
        except Exception as bug:
            # Of a callback the task group would not hear. `_dispatching` stays: that was the last.
            self.spawn_task(_end_with(bug))
            raise
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
                self.hosting.start(effect, self.catalogue[effect.profile].at(effect.size))
            case StartSpare():
                self.hosting.start_spare(effect)
            case AdoptHost():
                self._succession.adopt(effect, self.catalogue)
            case StopHost():
                self.hosting.stop(effect)
            case Complete():
                self.commands.complete(effect)
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
        paths = (entry.unsupported, entry.own_paths)
        settled(Lease(effect.profile, host.upstream, entry.edits, *paths))

    def _refuse(self, effect: Refuse) -> None:
        settled = self.waiting.pop(effect.ticket, None)
        if settled is not None:
            settled(effect.error)
        self.commands.refuse(effect.ticket, effect.error)

    def _wake_at(self, when_s: float) -> None:
        loop = asyncio.get_running_loop()
        delay_s = max(when_s - clock.now(), 0.0)
        due_s = loop.time() + delay_s
        if self._timer is None or due_s < self._due_s:
            if self._timer is not None:
                self._timer.cancel()
            # Noted here: uvloop's handle for less than half a millisecond has no `when()`.
            self._due_s = due_s
            self._timer = loop.call_later(delay_s, self._tick)

    def _tick(self) -> None:
        self._timer = None
        self.dispatch(Ticked())

    # --- commands -------------------------------------------------------------------------------

    async def load(self, profile: str, *, pin: bool, ttl_s: float | None) -> Complete:
        """Make *profile* resident; returns when it is ready.

        Raises:
            LlmdError: What stood in the way.
        """
        if profile in self.catalogue.faulty:
            self._examined_s.pop(profile, None)
            await self.examine(profile)
        return await self.commands.load(profile, pin=pin, ttl_s=ttl_s)

    def pin(self, profile: str, *, pinned: bool) -> None:
        """Pin or unpin until the daemon is stopped."""
        self.dispatch(PinChanged(profile, pinned))
        self.record()

    # --- looking --------------------------------------------------------------------------------

    def snapshot(self) -> Snapshot:
        """All that may be shown of the decisions."""
        return self.scheduler.snapshot(clock.now())

    def preview(self, profile: str) -> tuple[tuple[str, ...] | None, LlmdError | None]:
        """What a load would evict; see `Scheduler.preview`."""
        return self.scheduler.preview(profile, clock.now())


async def _end_with(bug: Exception) -> None:
    raise bug
