"""The administrator's view of the real daemon: implements `Operator` on `llmd.runtime`."""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from math import inf
from pathlib import Path
from typing import Final

import llmd
from llmd.admin import wire
from llmd.admin.metrics import prometheus_text
from llmd.admin.operator import Progress
from llmd.core.snapshot import PortView, ProfileView, Snapshot
from llmd.errors import describe_bytes
from llmd.platform.service import Manager
from llmd.runtime import clock
from llmd.runtime.config_file import ConfigFile
from llmd.runtime.daemon import Daemon
from llmd.runtime.log import LineLog
from llmd.runtime.ports import ports_of
from llmd.runtime.tail import tail_file


PROGRESS_S: Final = 0.2
"""Between two looks at a load that somebody follows."""


class DaemonOperator:
    """Answers the admin API from the daemon's snapshot, and passes its commands on."""

    def __init__(
        self,
        daemon: Daemon,
        *,
        config_file: ConfigFile,
        socket_path: Path,
        lines: LineLog,
        reload: Callable[[], Awaitable[wire.ReloadReport]],
        restart: Callable[[], Awaitable[wire.RestartReport]],
        manager: Manager | None,
        restarts: int,
    ) -> None:
        """Join the parts; *reload* reads the configuration file again and applies it."""
        self._daemon = daemon
        self._config_file = config_file
        self._socket_path = socket_path
        self._lines = lines
        self._reload = reload
        self._restart = restart
        self._manager = manager
        self._restarts = restarts

    # --- looking --------------------------------------------------------------------------------

    def status(self) -> wire.Status:
        """Everything, now."""
        daemon, snapshot = self._daemon, self._daemon.snapshot()
        ports = [self._port(view) for view in snapshot.ports]
        gateway = daemon.config.gateway
        if gateway is not None:
            ports.append(
                wire.Port(
                    port=gateway.port,
                    profile=None,
                    state="ready",
                    gateway=True,
                    listen=daemon.ports.addresses(gateway.port),
                    managed=gateway.port in daemon.ports.managed,
                    error=self._error(gateway.port),
                )
            )
        return wire.Status(
            version=llmd.__version__,
            pid=os.getpid(),
            uptime_s=round(clock.now() - daemon.started_s, 3),
            budget=wire.Budget(
                total_bytes=snapshot.budget_bytes,
                used_bytes=snapshot.used_bytes,
                free_bytes=max(snapshot.budget_bytes - snapshot.used_bytes, 0),
                peak_bytes=snapshot.peak_bytes,
            ),
            ports=tuple(sorted(ports, key=lambda port: port.port)),
            profiles=tuple(self._profile(view) for view in snapshot.profiles),
            spare=self._spare(snapshot),
            config_path=str(self._config_file.path),
            config_error=self._config_file.fault,
            socket_path=str(self._socket_path),
            stopping=daemon.departure.way is not None,
            restarts=self._restarts,
            manager=self._manager,
            tasks=len(asyncio.all_tasks()),
            warnings=(*daemon.catalogue.warnings, *self._unlike_the_service()),
        )

    def profiles(self) -> list[wire.Profile]:
        """The profiles, in file order."""
        return [self._profile(view) for view in self._daemon.snapshot().profiles]

    def _error(self, port: int) -> str | None:
        error = self._daemon.ports.errors.get(port)
        return f"{error.message}; {error.remedy}" if error is not None else None

    def _port(self, view: PortView) -> wire.Port:
        return wire.Port(
            port=view.port,
            profile=view.profile,
            state=_state(view.state),
            in_flight=view.in_flight,
            queued=view.queued,
            listen=self._daemon.ports.addresses(view.port),
            managed=view.port in self._daemon.ports.managed,
            error=self._error(view.port),
        )

    def _unlike_the_service(self) -> Iterator[str]:
        """Where the ports of the configuration and those that the service holds differ."""
        held, wanted = self._daemon.ports.managed, ports_of(self._daemon.config)
        if not held or held == wanted:
            return
        lacking = ", ".join(str(port) for port in sorted(wanted - held))
        needless = ", ".join(str(port) for port in sorted(held - wanted))
        if lacking:
            yield f"the service does not hold port {lacking}: run `llmd-ctl install` again"
        if needless:
            yield f"the service holds port {needless}, which the configuration does not name"

    def _profile(self, view: ProfileView) -> wire.Profile:
        entry = self._daemon.catalogue[view.name].at(view.size)
        host = self._daemon.hosting.get(view.host) if view.host is not None else None
        ready = view.state == "ready" and not view.in_flight
        return wire.Profile(
            name=view.name,
            engine=entry.profile.engine,
            port=view.port,
            state=_state(view.state),
            footprint_bytes=view.charged_bytes,
            estimated_bytes=view.estimated_bytes,
            measured_bytes=view.measured_bytes,
            pinned=view.pinned,
            in_flight=view.in_flight,
            queued=view.queued,
            idle_s=round(view.idle_s, 1) if ready else None,
            host_pid=host.process.pid if host is not None and host.process is not None else None,
            loads=view.loads,
            evictions=view.evictions,
            last_error=view.last_error,
            aliases=entry.profile.aliases,
            context=entry.context,
            sequences=entry.residency.parallel,
            idle_ttl_s=view.idle_ttl_s if view.idle_ttl_s < inf else None,
            load_s=round(view.load_s, 3) if view.loads else None,
            tokens_per_s=self._daemon.tokens_per_s.get(view.name),
            progress=host.progress if host is not None else None,
            requests=view.requests,
            retry_in_s=round(view.retry_in_s, 1) if view.retry_in_s else None,
            waiting_for=view.waits_for,
            reduced=view.reduced,
        )

    def _spare(self, snapshot: Snapshot) -> wire.Spare | None:
        if snapshot.spare_host is None:
            return None
        host = self._daemon.hosting.get(snapshot.spare_host)
        return wire.Spare(
            kind=host.kind if host is not None else "mlx",
            state="prepared" if snapshot.spare_state == "prepared" else "preparing",
            host_pid=host.process.pid if host is not None and host.process is not None else None,
            footprint_bytes=snapshot.spare_bytes,
        )

    def plan(self, name: str) -> wire.PlanReport:
        """What a load of *name* would do now."""
        snapshot = self._daemon.snapshot()
        views = {view.name: view for view in snapshot.profiles}
        victims, error = self._daemon.preview(name)
        view = views[name]
        if error is not None:
            reason = f"{error.message}; {error.remedy}"
        elif victims is None:
            reason = "it would wait until a busy model is done"
        elif view.charged_bytes:
            reason = f"it is {view.state} already"
        elif victims:
            freed_bytes = sum(views[victim].charged_bytes for victim in victims)
            reason = f"evicting {', '.join(victims)} frees {describe_bytes(freed_bytes)}"
        else:
            reason = "there is room"
        return wire.PlanReport(
            profile=name,
            fits=victims is not None,
            evict=tuple(
                wire.Victim(
                    profile=victim,
                    bytes=views[victim].charged_bytes,
                    cost_s=round(views[victim].load_s, 3),
                )
                for victim in victims or ()
            ),
            need_bytes=view.estimated_bytes,
            free_bytes=max(snapshot.budget_bytes - snapshot.used_bytes, 0),
            expected_s=round(view.load_s, 3),
            reason=reason,
        )

    def metrics(self) -> str:
        """Prometheus text."""
        return prometheus_text(self.status())

    # --- doing ----------------------------------------------------------------------------------

    async def load(
        self, name: str, *, pin: bool, ttl_s: float | None, progress: Progress
    ) -> wire.LoadReport:
        """Make *name* resident; tells *progress* what it waits for and how far it is."""
        started_s = clock.now()
        work = asyncio.ensure_future(self._daemon.load(name, pin=pin, ttl_s=ttl_s))
        try:
            while not work.done():
                progress(*self._stage(name))
                await asyncio.wait((work,), timeout=PROGRESS_S)
            done = work.result()
        finally:
            work.cancel()
        view = next(v for v in self._daemon.snapshot().profiles if v.name == name)
        return wire.LoadReport(
            profile=name,
            changed=done.changed,
            evicted=done.evicted,
            port=view.port,
            seconds=round(clock.now() - started_s, 3),
            footprint_bytes=view.charged_bytes,
        )

    def _stage(self, name: str) -> tuple[str, float | None]:
        view = next((v for v in self._daemon.snapshot().profiles if v.name == name), None)
        if view is None or view.host is None:
            return (f"waiting for {view.waits_for}" if view and view.waits_for else "waiting"), None
        host = self._daemon.hosting.get(view.host)
        return view.state, host.progress if host is not None else None

    async def unload(self, name: str) -> wire.UnloadReport:
        """Drain and unload *name*."""
        return await self._unload([name])

    async def unload_all(self) -> wire.UnloadReport:
        """Drain and unload every resident."""
        views = self._daemon.snapshot().profiles
        return await self._unload([v.name for v in views if v.host is not None])

    async def _unload(self, names: list[str]) -> wire.UnloadReport:
        started_s = clock.now()
        charged = {v.name: v.charged_bytes for v in self._daemon.snapshot().profiles}
        done = await asyncio.gather(*(self._daemon.commands.unload(name) for name in names))
        unloaded = tuple(result.profile for result in done if result.changed)
        return wire.UnloadReport(
            unloaded=unloaded,
            freed_bytes=sum(charged[name] for name in unloaded),
            seconds=round(clock.now() - started_s, 3),
        )

    def pin(self, name: str, *, pinned: bool) -> None:
        """Pin or unpin *name*."""
        self._daemon.pin(name, pinned=pinned)

    async def reload(self) -> wire.ReloadReport:
        """Read the configuration again."""
        return await self._reload()

    async def restart(self) -> wire.RestartReport:
        """Begin to re-execute the daemon."""
        return await self._restart()

    def stop(self) -> None:
        """Begin to drain and end."""
        self._daemon.depart("stop")

    # --- following ------------------------------------------------------------------------------

    async def events(self, *, follow: bool, lines: int) -> AsyncIterator[wire.Event]:
        """Decisions."""
        events = self._daemon.events
        if not follow:
            for record in events.recent(lines):
                yield record
            return
        async with contextlib.aclosing(events.follow(lines)) as records:
            async for record in records:
                yield record

    async def logs(self, name: str | None, *, follow: bool, lines: int) -> AsyncIterator[str]:
        """A host's log, or the daemon's own."""
        if name is not None:
            path = self._daemon.log_dir / f"{name}.log"
            async for line in tail_file(path, follow=follow, lines=lines):
                yield line
            return
        if not follow:
            for line in self._lines.recent(lines):
                yield line
            return
        async with contextlib.aclosing(self._lines.follow(lines)) as fresh:
            async for line in fresh:
                yield line


def _state(state: str) -> wire.State:
    return state  # type: ignore[return-value]  # core's states are the wire's, by test
