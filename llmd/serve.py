"""`llmd serve`: reads the configuration, joins the parts, and runs them until told to stop."""

import asyncio
import gc
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import structlog
import uvloop

import llmd
from llmd.admin import wire
from llmd.admin.daemon_operator import DaemonOperator
from llmd.admin.server import AdminServer
from llmd.admin.socket import ControlSocket
from llmd.config import paths
from llmd.config.load import load_config
from llmd.config.models import Config
from llmd.errors import ConfigError, LlmdError
from llmd.platform.limits import raise_file_limit
from llmd.runtime.daemon import Daemon
from llmd.runtime.learned import Learned
from llmd.runtime.log import EventLog, LineLog, configure
from llmd.runtime.watch import watch


log = structlog.get_logger("llmd")

STOP_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)


@dataclass(frozen=True, slots=True)
class Places:
    """Where this daemon's files are."""

    config_file: Path
    log_dir: Path
    state_dir: Path


def serve(config_path: Path, socket_path: Path, *, level: str = "info", hints: bool = False) -> int:
    """Run the daemon in the foreground; returns the exit status.

    0 after a stop that was asked for; 1 when it could not start, with the reason on stderr. *hints*
    prints what to try once the ports are open.
    """
    places = Places(
        config_path,
        log_dir=Path(os.environ.get("LLMD_LOG_DIR") or paths.log_dir()),
        state_dir=Path(os.environ.get("LLMD_STATE_DIR") or paths.state_dir()),
    )
    try:
        config = load_config(config_path)
        control = ControlSocket(socket_path)
    except LlmdError as error:
        return complain(error)
    try:
        for directory in (places.log_dir, places.state_dir):
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        raise_file_limit()
        lines = configure(level, log_file=places.log_dir / "llmd.log")
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(Service(config, places, control, lines, hints=hints).run())
    except* LlmdError as group:
        return_status = complain(first_of(group))
    except* OSError as group:
        return_status = complain(LlmdError(f"llmd cannot start: {group.exceptions[0]}"))
    else:
        return_status = 0
    finally:
        control.close()
    return return_status


def complain(error: LlmdError) -> int:
    """Say *error* on stderr; returns the exit status for it."""
    remedy = f"\n  {error.remedy}" if error.remedy else ""
    print(f"llmd: {error.message}{remedy}", file=sys.stderr)  # noqa: T201
    return 1


def first_of(group: BaseExceptionGroup[LlmdError]) -> LlmdError:
    """The first error in *group*."""
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    assert isinstance(error, LlmdError), "it was split by that type"  # noqa: S101
    return error


def hints_for(config: Config, socket: Path) -> str:
    """What to try with *config*, for a terminal."""
    ports: dict[int, list[str]] = {}
    for name, profile in config.profiles.items():
        ports.setdefault(profile.port, []).append(name)
    first_port, names = next(iter(ports.items()))
    ctl = Path(sys.executable).with_name("llmd-ctl")
    at = "" if socket == paths.socket_path() else f" --socket {socket}"
    served = "\n".join(f"  http://localhost:{p}/v1  {', '.join(n)}" for p, n in ports.items())
    prompt = '{"messages": [{"role": "user", "content": "What is the capital of France?"}]}'
    return f"""
llmd serves:
{served}

Try, from another terminal:
  curl localhost:{first_port}/health
  curl localhost:{first_port}/v1/models
  curl localhost:{first_port}/v1/chat/completions -H 'Content-Type: application/json' \\
    -d '{prompt}'
  {ctl}{at} status
  {ctl}{at} load {list(config.profiles)[-1]}
  {ctl}{at} query -p {names[0]} "Tell me a long story"
  {ctl}{at} --help
Stop it with Ctrl-C.
"""


class Service:
    """The daemon together with its file, its socket and its signals."""

    def __init__(
        self, config: Config, places: Places, control: ControlSocket, lines: LineLog, *, hints: bool
    ) -> None:
        """Keep the parts; `run` joins them."""
        self._config = config
        self._places = places
        self._control = control
        self._lines = lines
        self._hints = hints
        self._daemon: Daemon
        self._operator: DaemonOperator

    async def run(self) -> None:
        """Serve until stopped by a signal or an administrator."""
        self._daemon = daemon = Daemon(
            self._config,
            learned=Learned.load(self._places.state_dir / "footprints.json"),
            directory=self._control.path.parent,
            log_dir=self._places.log_dir,
            events=EventLog(),
        )
        self._operator = DaemonOperator(
            daemon,
            config_path=self._places.config_file,
            socket_path=self._control.path,
            lines=self._lines,
            reload=self._reload,
        )
        self._on_signals(daemon.stop)
        async with AdminServer(self._operator, self._control):
            await daemon.run(self._announce)

    def _on_signals(self, stop: Callable[[], None]) -> None:
        loop = asyncio.get_running_loop()
        for number in STOP_SIGNALS:
            loop.add_signal_handler(number, stop)
        loop.add_signal_handler(
            signal.SIGHUP, lambda: self._daemon.spawn_task(self._reload_quietly())
        )

    async def _announce(self) -> None:
        self._daemon.spawn_task(self._watch())
        if self._daemon.learned.warning is not None:
            log.warning("footprints.unreadable", reason=self._daemon.learned.warning)
        gc.collect()
        gc.freeze()  # what start-up made lives as long as the daemon: later collections pass it by
        log.info(
            "daemon.started",
            version=llmd.__version__,
            config=str(self._places.config_file),
            socket=str(self._control.path),
            budget_bytes=self._daemon.catalogue.rules.budget_bytes,
        )
        if self._hints:
            print(hints_for(self._daemon.config, self._control.path), flush=True)  # noqa: T201

    async def _watch(self) -> None:
        watching = self._daemon.spawn_task(
            watch(self._daemon, self._places.config_file, self._reload_quietly)
        )
        await self._daemon.ended()
        watching.cancel()

    async def _reload_quietly(self) -> None:
        """Reload on a signal or a changed file: what is wrong with it goes to the log."""
        try:
            await self._reload()
        except LlmdError as error:
            log.error("config.refused", reason=error.message, remedy=error.remedy)

    async def _reload(self) -> wire.ReloadReport:
        """Read the file again and apply the difference.

        Raises:
            ConfigError: The file is bad; nothing was changed, and `status` says so until it is
                mended.
        """
        try:
            config = await asyncio.to_thread(load_config, self._places.config_file)
        except ConfigError as error:
            self._operator.config_error = error.message
            raise
        self._operator.config_error = None
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
