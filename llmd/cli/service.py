"""`llmd-ctl install`, `uninstall` and `start`: llmd as a service that begins at login."""

import os
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from llmd.cli.invocation import Command, Invocation, pass_invocation
from llmd.cli.terminal import note
from llmd.config import paths
from llmd.errors import AlreadyRunningError, DaemonNotRunningError, LlmdError


if TYPE_CHECKING:
    from llmd.admin import wire
    from llmd.admin.client import AdminClient
    from llmd.config.models import Config
    from llmd.platform.definition import Definition
    from llmd.platform.service import Service


ANSWERS_WITHIN_S: Final = 30.0
ENDS_WITHIN_S: Final = 60.0
_POLL_S: Final = 0.2
_DISPOSABLE: Final = ("archive-v", "environments-v", "builds-v")
"""Directories in uv's cache; what `uvx` and `uv run` make there is gone after a cleaning."""


@click.command(cls=Command)
@click.option(
    "--config",
    "chosen",
    metavar="FILE",
    help="The file to serve [default: LLMD_CONFIG, else the user's llmd.yaml].",
)
@pass_invocation
def install(invocation: Invocation, *, chosen: str | None) -> None:
    """Run llmd at every login, and now.

    Writes a LaunchAgent on macOS, systemd user units on Linux, which hold the ports. Run it again
    after an upgrade, or when the ports of the configuration changed: it changes what differs.
    """
    from llmd.config.load import load_config
    from llmd.platform.service import this_service

    file = paths.config_file(chosen).absolute()
    definition = definition_for(load_config(file), file, invocation.socket_path)
    service, client = this_service(), invocation.client()
    _refuse_rival(service, client)
    did = service.install(definition)
    status = await_daemon(service, client, definition)
    _tell(invocation, service, did, status, undo="llmd-ctl uninstall")


@click.command(cls=Command)
@pass_invocation
def uninstall(invocation: Invocation) -> None:
    """Stop the service and remove its files. Configuration, state and logs stay."""
    from llmd.admin.client import AdminClient
    from llmd.platform.service import this_service

    service = this_service()
    definition = service.installed()
    socket = invocation.socket_path if definition is None else definition.socket
    did = _unload_hosts(service, AdminClient(socket)) + service.uninstall()
    leaves = [path for path in _leftovers(definition) if path.exists()]
    if invocation.as_json:
        invocation.emit({"service": service.kind, "did": did, "leaves": [str(p) for p in leaves]})
        return
    invocation.say("\n".join(did) if did else "llmd was not installed as a service")
    if did and leaves:
        invocation.say("left as they are:\n" + "\n".join(f"  {path}" for path in leaves))


@click.command(cls=Command)
@pass_invocation
def start(invocation: Invocation) -> None:
    """Start the installed service. `llmd serve` runs the daemon without one."""
    from llmd.admin.client import AdminClient
    from llmd.config.load import load_config
    from llmd.platform.service import this_service

    service = this_service()
    definition = service.installed()
    if definition is None:
        raise NotInstalledError(
            "llmd is not installed as a service",
            remedy="llmd-ctl install, or run it in this terminal with `llmd serve`",
        )
    load_config(definition.config_file)
    client = AdminClient(definition.socket)
    _refuse_rival(service, client)
    did = service.start()
    status = await_daemon(service, client, definition)
    _tell(invocation, service, did, status, undo="llmd-ctl stop")


class NotInstalledError(LlmdError):
    """There is no service to start."""

    code = "not_installed"


class NoServiceAnswerError(LlmdError):
    """The service was started, and its daemon does not answer."""

    code = "service_failed"


def definition_for(config: "Config", file: Path, socket: Path) -> "Definition":
    """The service that serves *config*, read from *file*, with the environment that runs this.

    Raises:
        LlmdError: The socket's path is too long, or the environment will not last.
    """
    from llmd.admin.socket import check_length
    from llmd.platform.definition import Definition, ServiceError, carried

    check_length(socket)
    # Absolute, and not resolved: the link into the environment is what makes it one.
    python = Path(os.path.abspath(sys.executable))  # noqa: PTH100 - .absolute() keeps `..`
    if any(part.startswith(_DISPOSABLE) for part in python.parts):
        raise ServiceError(
            f"{python} is in a cache, and would be gone one day",
            remedy="install llmd for good, as with `uv tool install`, then run its llmd-ctl",
        )
    ports = {profile.port for profile in config.profiles.values()}
    if config.gateway is not None:
        ports.add(config.gateway.port)
    return Definition(
        python=python,
        config_file=file,
        socket=socket,
        ports=tuple(sorted(ports)),
        addresses=config.listen,
        state_dir=_chosen("LLMD_STATE_DIR", paths.state_dir()),
        log_dir=_chosen("LLMD_LOG_DIR", paths.log_dir()),
        variables=carried(os.environ),
    )


def await_daemon(
    service: "Service",
    client: "AdminClient",
    definition: "Definition",
    *,
    within_s: float = ANSWERS_WITHIN_S,
) -> "wire.Status":
    """Wait until the service's daemon answers, for *within_s* seconds.

    Raises:
        NoServiceAnswerError: It does not; with what is known about why.
    """
    deadline = time.monotonic() + within_s
    while True:
        try:
            return client.status()
        except LlmdError as error:
            if time.monotonic() < deadline:
                time.sleep(_POLL_S)
                continue
            why = service.state().failure or error.message
            last = " / ".join(line for line in service.log_lines(3) if line.strip())
            raise NoServiceAnswerError(
                f"llmd is installed and does not answer on {definition.socket}: {why}"
                + (f" (it said: {last})" if last else ""),
                remedy="llmd-ctl doctor",
            ) from error


def _refuse_rival(service: "Service", client: "AdminClient") -> None:
    """Insist that whoever answers on the admin socket is the service.

    Raises:
        AlreadyRunningError: It is a daemon that was started in another way.
    """
    try:
        pid = client.status().pid
    except DaemonNotRunningError:
        return
    except LlmdError:
        if service.state().pid is None:
            raise
        return  # the service's own, and not well
    if pid != service.state().pid:
        raise AlreadyRunningError(
            f"another llmd (pid {pid}), which is not the service, has the admin socket",
            remedy="llmd-ctl stop, then try again",
        )


def _unload_hosts(service: "Service", client: "AdminClient") -> list[str]:
    """Have the service's daemon stop by itself: only a stop that it is asked for unloads models."""
    pid = service.state().pid
    try:
        if pid is None or client.status().pid != pid:
            return []
        client.stop()
    except LlmdError:
        return []  # then the service manager ends it
    deadline = time.monotonic() + ENDS_WITHIN_S
    while service.state().pid == pid and time.monotonic() < deadline:
        time.sleep(_POLL_S)
    return [f"stopped llmd (pid {pid}) and unloaded its models"]


def _leftovers(definition: "Definition | None") -> Iterable[Path]:
    """What a user may want to keep, or to remove."""
    if definition is not None:
        yield definition.config_file
    yield from dict.fromkeys(
        (
            _chosen("LLMD_STATE_DIR", paths.state_dir()),
            _chosen("LLMD_LOG_DIR", paths.log_dir()),
            paths.cache_dir(),
        )
    )


def _chosen(variable: str, default: Path) -> Path:
    return Path(os.environ.get(variable) or default).absolute()


def _tell(
    invocation: Invocation, service: "Service", did: list[str], status: "wire.Status", *, undo: str
) -> None:
    """Say what was done, what came of it, and how to undo it."""
    closed = [port.error for port in status.ports if port.error]
    advice = [f"{what} (`{command}`)" for what, command in service.advice()]
    if invocation.as_json:
        document: dict[str, Any] = {
            "service": service.kind,
            "files": [str(path) for path in service.files],
            "did": did,
            "pid": status.pid,
            "notes": closed + advice,
            "undo": undo,
        }
        invocation.emit(document)
        return
    served = ", ".join(str(port.port) for port in status.ports if not port.error)
    invocation.say("\n".join(did))
    invocation.say(f"llmd (pid {status.pid}) serves {served}; undo with `{undo}`")
    for text in closed + advice:
        note(f"note: {text}")
