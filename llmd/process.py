"""The daemon together with its file, its admin socket, its signals and its service manager."""

import asyncio
import contextlib
import gc
import signal
import sys
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Final

import structlog

import llmd
from llmd.admin import wire
from llmd.admin.daemon_operator import DaemonOperator
from llmd.admin.socket import ControlSocket
from llmd.config.models import Config
from llmd.errors import ConfigError, LlmdError, RestartRefusedError
from llmd.platform import service as manager
from llmd.platform.activation import port_name
from llmd.platform.notify import Notifier
from llmd.platform.run import run
from llmd.runtime.config_file import ConfigFile
from llmd.runtime.daemon import Daemon
from llmd.runtime.departure import Way
from llmd.runtime.handover import Handover
from llmd.runtime.learned import Learned
from llmd.runtime.ledger import Ledger
from llmd.runtime.log import EventLog, LineLog
from llmd.runtime.ports import Held
from llmd.runtime.watch import Watch
from llmd.runtime.watchdog import Watchdog


if TYPE_CHECKING:
    from llmd.admin.server import AdminServer


CHECK_S: Final = 60.0
"""For the next image to show that it can start; imports take a second."""

log = structlog.get_logger("llmd")


@dataclass(frozen=True, slots=True)
class Places:
    """Where this daemon's files are."""

    log_dir: Path
    state_dir: Path


class DaemonProcess:
    """Joins the parts and runs them."""

    def __init__(
        self,
        config: Config,
        config_file: ConfigFile,
        places: Places,
        control: ControlSocket,
        lines: LineLog,
        left: Handover,
        notifier: Notifier,
    ) -> None:
        """Keep the parts; `run` joins them.

        *config* is what *config_file* began with, *left* what was open before this image.
        """
        self._config = config
        self._config_file = config_file
        self._places = places
        self._control = control
        self._lines = lines
        self._left = left
        self._notifier = notifier
        self._checked: str | None = None
        self._daemon: Daemon
        self._operator: DaemonOperator

    async def run(self, hints: str) -> Handover | None:
        """Serve until stopped by a signal or an administrator; print *hints* when it does.

        Returns what the next image of this process gets, when it is to be restarted.
        """
        self._daemon = daemon = Daemon(
            self._config,
            learned=Learned.load(self._places.state_dir / "footprints.json"),
            ledger=Ledger.beside(self._places.state_dir, self._control.path),
            owner=self._control.path,
            log_dir=self._places.log_dir,
            events=EventLog(),
            held=Held(
                self._left.standing,
                self._left.managed,
                lambda port, sockets: self._notifier.store(port_name(port), sockets),
            ),
        )
        self._operator = DaemonOperator(
            daemon,
            config_file=self._config_file,
            socket_path=self._control.path,
            lines=self._lines,
            reload=self._reload,
            restart=self._restart,
            manager=self._left.manager,
            restarts=self._left.restarts,
        )
        self._on_signals()
        async with contextlib.AsyncExitStack() as door:
            await daemon.run(lambda: self._announce(door, hints))
            if daemon.departure.way != "restart":
                self._notifier.stopping()
                return None
            self._notifier.reloading()
            admin, lock = self._control.hand_over()
            return Handover(
                standing=daemon.departure.standing, managed=daemon.ports.managed,
                admin=admin, lock=lock, admin_managed=self._control.managed,
                manager=self._left.manager, restarts=self._left.restarts + 1,
                config=self._checked,
            )  # fmt: skip

    def _on_signals(self) -> None:
        loop, spawn_task = asyncio.get_running_loop(), self._daemon.spawn_task
        loop.add_signal_handler(signal.SIGINT, lambda: self._daemon.depart("stop"))
        loop.add_signal_handler(signal.SIGTERM, lambda: spawn_task(self._terminated()))
        loop.add_signal_handler(signal.SIGHUP, lambda: spawn_task(self._reload_quietly()))

    async def _terminated(self) -> None:
        """SIGTERM: a service manager that restarts us wants the hosts kept, all others do not.

        Where there is no telling, hosts are left: nobody adopts them, they end after their grace.
        """
        under = self._left.manager
        if under is None:
            self._daemon.depart("stop")
            return
        limit_s, intent = await asyncio.gather(
            asyncio.to_thread(manager.stop_limit_s, under),
            asyncio.to_thread(manager.intent, under),
        )
        log.info("daemon.terminated", manager=under, restarts=intent.restarts, limit_s=limit_s)
        if intent.replaces_sockets:
            for port in self._daemon.ports.numbers:
                self._notifier.discard(port_name(port))
        way: Way = "stop" if intent.restarts is False else "leave"
        self._daemon.depart(way, within_s=inf if limit_s is None else limit_s)

    async def _announce(self, door: contextlib.AsyncExitStack, hints: str) -> None:
        """Everything is in place: let administrators in, and tell whoever waits for that."""
        daemon = self._daemon
        server = await asyncio.to_thread(_admin_server)
        await door.enter_async_context(server(self._operator, self._control))
        daemon.spawn_task(self._watch())
        daemon.spawn_task(self._config_file.keep())
        if self._config_file.fault is not None:
            self._refused(self._config_file.fault)
        if daemon.learned.warning is not None:
            log.warning("footprints.unreadable", reason=daemon.learned.warning)
        gc.collect()
        gc.freeze()  # what start-up made lives as long as the daemon: later collections pass it by
        gc.enable()
        self._notifier.ready(f"{len(daemon.config.profiles)} profiles")
        log.info(
            "daemon.started",
            version=llmd.__version__,
            config=str(self._config_file.path),
            socket=str(self._control.path),
            budget_bytes=daemon.catalogue.rules.budget_bytes,
            manager=self._left.manager,
            restarts=self._left.restarts,
        )
        if hints:
            print(hints, flush=True)  # noqa: T201

    async def _watch(self) -> None:
        daemon = self._daemon
        watchdog = Watchdog(
            daemon.hosting, daemon.ports, daemon.pool.answers,
            post=daemon.dispatch, spawn_task=daemon.spawn_task,
        )  # fmt: skip
        watch = Watch(
            daemon, self._config_file, self._reload_quietly,
            mind_hosts=lambda: watchdog.look(daemon.catalogue.stall_timeout_s),
            beat=self._notifier.watchdog, beat_s=self._notifier.watchdog_s,
        )  # fmt: skip
        watching = self._daemon.spawn_task(watch.run())
        await self._daemon.departure.ended.wait()
        watching.cancel()

    # --- reload and restart ---------------------------------------------------------------------

    async def _restart(self) -> wire.RestartReport:
        """Begin to re-execute this process, once the next image has shown that it can start.

        Raises:
            RestartRefusedError: It cannot; nothing was changed.
        """
        self._checked = await self._config_file.text_that_passes(self._check)
        self._daemon.depart("restart")
        return wire.RestartReport(restarts=self._left.restarts)

    def _check(self) -> None:
        """Start the next image, of whatever version it is by now, as far as its configuration."""
        ran = run([sys.executable, *sys.orig_argv[1:], "--check"], timeout_s=CHECK_S)
        if not ran.ok:
            words = " / ".join(ran.output.strip().splitlines()[-3:])
            raise RestartRefusedError(
                f"llmd would not start again: {words or 'it said nothing'}",
                remedy="mend that first; the running daemon goes on as it was",
            )

    async def _reload_quietly(self) -> None:
        """Reload on a signal or a changed file: nobody waits to hear what is wrong with it."""
        try:
            await self._reload()
        except ConfigError:
            return  # the log and the status say so already
        except LlmdError as error:
            log.error("config.applied_in_part", reason=error.message, remedy=error.remedy)

    def _refused(self, reason: str, remedy: str = "") -> None:
        log.error("config.refused", reason=reason, remedy=remedy)
        self._daemon.events.record("config.refused", {"reason": reason})

    async def _reload(self) -> wire.ReloadReport:
        """Read the file again and apply the difference.

        Raises:
            ConfigError: The file is bad; nothing was changed, and `status` says so until it is
                mended.
        """
        try:
            config = await self._config_file.read()
        except ConfigError as error:
            self._refused(error.message, error.remedy)
            raise
        await self._config_file.keep()
        before, catalogue = await self._daemon.replace(config)
        old, new = before.profiles, config.profiles
        report = wire.ReloadReport(
            added=tuple(name for name in new if name not in old),
            removed=tuple(name for name in old if name not in new),
            changed=(
                *(name for name in new if name in old and new[name] != old[name]),
                *(
                    key
                    for key in Config.model_fields
                    if key != "profiles" and getattr(before, key) != getattr(config, key)
                ),
            ),
            unchanged=tuple(name for name in new if old.get(name) == new[name]),
            warnings=catalogue.warnings,
        )
        log.info(
            "config.reloaded", added=report.added, removed=report.removed, changed=report.changed
        )
        return report


def _admin_server() -> "type[AdminServer]":
    """Imported behind the opening of the ports, in a thread: aiohttp is a quarter of the start."""
    from llmd.admin.server import AdminServer  # noqa: PLC0415

    return AdminServer
