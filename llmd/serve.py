"""`llmd serve`: reads the configuration, takes over what is open, and runs until told to stop."""

import asyncio
import os
import sys
from pathlib import Path
from typing import NoReturn

import uvloop

from llmd.admin.socket import ControlSocket
from llmd.config import paths
from llmd.config.models import Config
from llmd.config.replace import private_directory
from llmd.errors import ConfigError, LlmdError
from llmd.platform import service as manager
from llmd.platform.activation import inherited
from llmd.platform.limits import raise_file_limit
from llmd.platform.notify import Notifier
from llmd.platform.spawn import become
from llmd.process import DaemonProcess, Places
from llmd.runtime import handover
from llmd.runtime.config_file import ConfigFile
from llmd.runtime.handover import Handover
from llmd.runtime.log import configure
from llmd.runtime.ports import ports_of


def serve(
    config_path: Path,
    socket_path: Path,
    *,
    level: str = "info",
    hints: bool = False,
    check: bool = False,
) -> int:
    """Run the daemon in the foreground; returns the exit status.

    0 after a stop that was asked for; 1 when it could not start, with the reason on stderr. A
    service manager is told by the status whether trying again makes sense. A restart does not
    return: this process becomes the next image of itself.

    Args:
        config_path: The configuration file.
        socket_path: The admin socket.
        level: Of the log.
        hints: Print what to try once the ports are open.
        check: Only see whether it could start.
    """
    places = Places(
        log_dir=Path(os.environ.get("LLMD_LOG_DIR") or paths.log_dir()),
        state_dir=Path(os.environ.get("LLMD_STATE_DIR") or paths.state_dir()),
    )
    config_file = ConfigFile(config_path, places.state_dir)
    under = manager.running_under(os.environ)
    try:
        if check:
            config_file.begin()
            return 0
        private_directory(places.state_dir)
        lines = configure(level, log_file=places.log_dir / "llmd.log", quiet=under == "launchd")
        handed = handover.read()
        config = config_file.begin(
            checked=handed.config if handed is not None else None,
            unattended=handed is not None or under is not None,
        )
        left = handed or Handover.of_manager(inherited(ports_of(config), socket_path), under)
        control = ControlSocket(
            socket_path, sock=left.admin, lock=left.lock, managed=left.admin_managed
        )
    except ConfigError as error:
        complain(error)
        return manager.exit_status_for_final_failure(under)
    except LlmdError as error:
        return complain(error)
    except OSError as error:
        return complain(LlmdError(f"llmd cannot start: {error}"))
    notifier = Notifier.from_environ()
    raise_file_limit()
    try:
        daemon = DaemonProcess(config, config_file, places, control, lines, left, notifier)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            to_next = runner.run(daemon.run(hints_for(config, socket_path) if hints else ""))
        if to_next is not None:
            reexecute(to_next, notifier)
    except* LlmdError as group:
        status = complain(first_of(group))
    except* OSError as group:
        status = complain(LlmdError(f"llmd cannot start: {group.exceptions[0]}"))
    else:
        status = 0
    finally:
        control.close()
    return status


def reexecute(to_next: Handover, notifier: Notifier) -> NoReturn:
    """Become the next image of this process, of whatever version is installed by now.

    Raises:
        OSError: The interpreter is gone.
    """
    variables = {**os.environ, **notifier.environ, **handover.write(to_next)}
    become([sys.executable, *sys.orig_argv[1:]], env=variables)


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
