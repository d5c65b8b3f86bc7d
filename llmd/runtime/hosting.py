"""Carries out what the scheduler asks of hosts, and reports what became of it.

Each host has one task, from its start to its reaping, and that task alone reports its readiness and
its exit. A remote profile has no process: it is ready at once and gone at once.
"""

import asyncio
import os
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import structlog

from llmd.core.events import (
    SPARE,
    Event,
    Failure,
    HostExited,
    HostId,
    HostReady,
    MemoryMeasured,
    StartHost,
    StartSpare,
    StopHost,
)
from llmd.errors import HostStuckError, LlmdError
from llmd.proxy.gate import Upstream
from llmd.runtime.catalogue import Entry
from llmd.runtime.host_process import HostFailedError, HostProcess
from llmd.runtime.memory import tree_bytes


GRACE_S: Final = 5.0
"""Between SIGTERM and SIGKILL: an engine has nothing to save."""

log = structlog.get_logger("llmd.hosting")


@dataclass(slots=True, eq=False)
class Host:
    """One host's story.

    Attributes:
        entry: The profile that it runs, or will; None for a spare without one.
        stopping: Why it was told to end; then its exit is no failure.
        assigned: Settled when a spare gets its profile.
        told: Set when it was told to end.
        gone: Set when it is reaped.
        progress: How far the load is, 0 to 1; None while unknown.
        peak_bytes: The most that was measured.
    """

    number: HostId
    kind: str
    assigned: asyncio.Future[Entry]
    entry: Entry | None = None
    process: HostProcess | None = None
    upstream: Upstream | None = None
    stopping: str | None = None
    progress: float | None = None
    peak_bytes: int = 0
    told: asyncio.Event = field(default_factory=asyncio.Event)
    gone: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def name(self) -> str:
        """The profile's name, or that of the spare."""
        return self.entry.profile.name if self.entry is not None else SPARE


class Hosting:
    """All hosts that live, by number."""

    def __init__(
        self,
        *,
        spawn_task: Callable[[Coroutine[Any, Any, None]], object],
        post: Callable[[Event], None],
        forget: Callable[[Upstream], None],
        learn: Callable[[Entry, int], None],
        directory: Path,
        log_dir: Path,
        orphan_grace_s: float,
    ) -> None:
        """Prepare; starts nothing.

        Args:
            spawn_task: Runs a host's task until it ends by itself.
            post: Takes the events that come of it.
            forget: Told of each upstream that is gone.
            learn: Told how many bytes a profile held at most, when its host ends.
            directory: For the hosts' sockets; private, on a short path.
            log_dir: One log per profile.
            orphan_grace_s: How long a host outlives the daemon.
        """
        self._spawn_task = spawn_task
        self._post = post
        self._forget = forget
        self._learn = learn
        self._directory = directory
        self._log_dir = log_dir
        self.orphan_grace_s = orphan_grace_s
        self._hosts: dict[HostId, Host] = {}

    def get(self, number: HostId) -> Host | None:
        """The host, if it still lives."""
        return self._hosts.get(number)

    def __iter__(self) -> Iterator[Host]:
        """The hosts that live."""
        return iter(tuple(self._hosts.values()))

    def start(self, effect: StartHost, entry: Entry) -> None:
        """Begin to load *entry*, in a host of its own or in the spare."""
        if effect.into_spare:
            host = self._hosts[effect.host]
            host.entry = entry
            host.assigned.set_result(entry)
            return
        host = self._begin(effect.host, entry.launch.kind if entry.launch else "remote", entry)
        host.assigned.set_result(entry)
        self._spawn_task(self._live(host))

    def start_spare(self, effect: StartSpare) -> None:
        """Begin to start a host that waits for a profile."""
        self._spawn_task(self._live(self._begin(effect.host, effect.kind, None)))

    def _begin(self, number: HostId, kind: str, entry: Entry | None) -> Host:
        future: asyncio.Future[Entry] = asyncio.get_running_loop().create_future()
        host = self._hosts[number] = Host(number, kind, future, entry)
        return host

    def stop(self, effect: StopHost) -> None:
        """Begin to end a host; its task reports when it is reaped."""
        host = self._hosts.get(effect.host)
        if host is None or host.stopping is not None:
            return
        host.stopping = effect.reason
        host.told.set()
        if not host.assigned.done():
            host.assigned.cancel()
        if host.process is not None:
            self._spawn_task(self._end(host))

    # --- one host's life ------------------------------------------------------------------------

    async def _live(self, host: Host) -> None:
        """From start to reaping. Never raises for what can be expected to fail."""
        failure: Failure | None = None
        try:
            if host.kind == "remote":
                await self._be_remote(host)
            else:
                await self._be_process(host)
        except HostFailedError as error:
            failure = error.failure
        except LlmdError as error:
            failure = Failure(error.message)
        except asyncio.CancelledError:
            if host.stopping is None:
                raise  # the daemon ends
        finally:
            await self._end(host)
        if host.stopping is None and failure is None and host.process is not None:
            failure = host.process.failure()
        if host.upstream is not None:
            self._forget(host.upstream)
        if host.entry is not None and host.peak_bytes:
            self._learn(host.entry, host.peak_bytes)
        del self._hosts[host.number]
        log.info("host.exited", host=host.number, profile=host.name, reason=host.stopping)
        self._post(HostExited(host.number, None if host.stopping else failure))
        host.gone.set()

    async def _be_remote(self, host: Host) -> None:
        assert host.entry is not None, "a remote host has its profile from the start"  # noqa: S101
        host.upstream = host.entry.remote
        self._post(HostReady(host.number))
        await host.told.wait()

    async def _be_process(self, host: Host) -> None:
        path = self._log_dir / f"{'spare' if host.entry is None else host.name}.log"
        process = host.process = await HostProcess.start(
            host.kind,
            directory=self._directory,
            log_path=path,
            orphan_grace_s=self.orphan_grace_s,
            env=os.environ,
        )
        log.info("host.started", host=host.number, profile=host.name, pid=process.pid)
        if host.stopping is not None:
            return
        if not host.assigned.done():
            await process.prepare()
            if not host.assigned.done() and host.stopping is None:
                self._post(HostReady(host.number))
            entry = await self._assignment(host, process)
            process.rename_log(self._log_dir / f"{host.name}.log")
        else:
            entry = host.assigned.result()
        assert entry.launch is not None, "only remote profiles have none"  # noqa: S101

        def on_progress(fraction: float) -> None:
            host.progress = fraction

        host.upstream = await process.load(entry.launch, entry.residency.fingerprint, on_progress)
        host.progress = None
        self.measure(host)
        if host.stopping is None:
            self._post(HostReady(host.number))
        await process.exited

    async def _assignment(self, host: Host, process: HostProcess) -> Entry:
        """Wait for the spare's profile; its own end comes as a failure."""
        await asyncio.wait((host.assigned, process.exited), return_when=asyncio.FIRST_COMPLETED)
        if process.exited.done():
            raise HostFailedError(process.failure())
        return host.assigned.result()

    async def _end(self, host: Host) -> None:
        """Stop and reap; waits as long as it takes, since its memory is charged so long."""
        if host.process is None:
            return
        try:
            await host.process.stop(grace_s=GRACE_S)
        except HostStuckError as error:
            log.error("host.stuck", host=host.number, profile=host.name, reason=error.message)
            await host.process.exited

    # --- looking --------------------------------------------------------------------------------

    def measure(self, host: Host) -> None:
        """Report what the host's processes hold."""
        if host.process is None or host.process.exited.done():
            return
        mapped = host.entry.mapped_files if host.entry is not None else ()
        measured_bytes = tree_bytes(host.process.pid, mapped)
        if measured_bytes:
            host.peak_bytes = max(host.peak_bytes, measured_bytes)
            self._post(MemoryMeasured(host.number, measured_bytes))

    async def trim(self, number: HostId) -> None:
        """Ask a host to let go of its prompt caches."""
        host = self._hosts.get(number)
        if host is None or host.process is None:
            return
        try:
            freed_bytes = await host.process.trim()
        except HostFailedError as error:
            log.warning("caches.kept", profile=host.name, reason=str(error))
        else:
            log.info("caches.trimmed", profile=host.name, freed_bytes=freed_bytes)

    def kill_all(self) -> None:
        """The last resort of a daemon that must end now."""
        for host in self:
            if host.process is not None:
                host.process.kill()
