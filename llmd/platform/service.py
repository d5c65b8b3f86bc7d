"""The service manager above this process, and the service that it keeps: launchd or systemd.

For the daemon: who started it, how long it may take to stop, and whether it comes back. For
`llmd-ctl`: the service, as one object whatever the system.
"""

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, Protocol

from llmd.platform.definition import (
    Definition,
    Runner,
    ServiceError,
    ServiceState,
    run_program,
)
from llmd.platform.launchd_job import LaunchAgent, choose_domain
from llmd.platform.systemd import SERVICE, SOCKET, unit_dir
from llmd.platform.systemd_units import UserUnits


Manager = Literal["launchd", "systemd", "other"]

EXIT_FAILED: Final = 1
EXIT_CONFIG: Final = 78
"""EX_CONFIG of <sysexits.h>: starting again would change nothing."""


class Service(Protocol):
    """llmd as the service manager of this system has it.

    Every method may raise `ServiceError`, except those that only read files. Those that change
    something return what was done, as sentences for people, and are idempotent.
    """

    @property
    def kind(self) -> Literal["launchd", "systemd"]:
        """Whose it is."""

    @property
    def files(self) -> tuple[Path, ...]:
        """The files that make the service."""

    def installed(self) -> Definition | None:
        """What the files say; None when there are none, or they are not ours."""

    def is_current(self, definition: Definition) -> bool:
        """Whether the files are what `install` would write for *definition*."""

    def log_lines(self, count: int) -> list[str]:
        """The last *count* lines that the daemon printed."""

    def state(self) -> ServiceState:
        """What the service manager says now."""

    def install(self, definition: Definition) -> list[str]:
        """Write the files and bring them into force."""

    def uninstall(self) -> list[str]:
        """Stop the service and remove its files."""

    def start(self) -> list[str]:
        """Start what is installed."""

    def stop(self) -> list[str]:
        """Stop it until the next login, or `start`, and let no connection start it."""

    def advice(self) -> list[tuple[str, str]]:
        """What a user may want to know of where it runs, each with a command."""


def this_service(
    environ: Mapping[str, str] = os.environ, *, runner: Runner = run_program
) -> Service:
    """The service of the user who runs this, installed or not.

    Raises:
        ServiceError: It is run as another user, by sudo.
    """
    if sys.platform == "darwin":
        uid, euid = os.getuid(), os.geteuid()
        domain = choose_domain(environ, uid=uid, euid=euid, console_uid=_console_uid())
        return LaunchAgent(Path.home(), domain=domain, runner=runner)
    if os.geteuid() == 0 and environ.get("SUDO_USER", "root") != "root":
        raise ServiceError(
            "the service belongs to one user, and this is root",
            remedy="run it as yourself, without sudo",
        )
    return UserUnits(unit_dir(Path.home(), environ), runner=runner)


def running_under(environ: Mapping[str, str]) -> Manager | None:
    """The service manager that started this process; None for a terminal.

    To be asked once, at the start, before the variables are taken out of *environ*. What a shell
    inherited from a service that it runs in does not count: `XPC_SERVICE_NAME` and `INVOCATION_ID`
    are in every terminal of some desktops.
    """
    pid = str(os.getpid())
    job = environ.get("XPC_SERVICE_NAME", "0")
    if job not in ("", "0") and not job.startswith("application.") and os.getppid() == 1:
        return "launchd"
    started = environ.get("SYSTEMD_EXEC_PID")
    passed = environ.get("LISTEN_PID") == pid
    notified = bool(environ.get("NOTIFY_SOCKET"))
    if started == pid:
        return "systemd"
    if started is None and environ.get("INVOCATION_ID") and (passed or notified):
        return "systemd"  # older than 248, which does not tell the pid
    # A notification socket beside another's SYSTEMD_EXEC_PID was inherited with it.
    return "other" if passed or (notified and started is None) else None


def stop_limit_s(manager: Manager | None, *, service: Service | None = None) -> float | None:
    """Seconds from SIGTERM to SIGKILL under *manager*; None when unknown, or without end.

    Blocks while it asks, for half a minute at most.
    """
    if manager not in ("launchd", "systemd"):
        return None
    try:
        return (service or this_service()).state().stop_limit_s
    except ServiceError:
        return None


@dataclass(frozen=True, slots=True)
class Intent:
    """What a service manager that sent SIGTERM is about to do.

    Attributes:
        restarts: It will start the service again; None when unknown.
        replaces_sockets: It will open its sockets anew: what is stored with it would be in the way.
    """

    restarts: bool | None = None
    replaces_sockets: bool = False


def intent(manager: Manager | None, *, service: Service | None = None) -> Intent:
    """Ask *manager*, which sent SIGTERM, what comes next.

    Blocks while it asks, for a few seconds at most. launchd does not tell.
    """
    if manager != "systemd":
        return Intent()
    try:
        units = service or this_service()
    except ServiceError:
        return Intent()
    jobs = units.pending_jobs() if isinstance(units, UserUnits) else {}
    job = jobs.get(SERVICE)
    return Intent(
        None if job is None else job in ("restart", "start", "try-restart"),
        replaces_sockets=SOCKET in jobs,
    )


def stop(manager: Manager, *, service: Service | None = None) -> list[str]:
    """Have *manager* stop the service; returns what was done, for people.

    Returns once the daemon is gone. It comes back at the next login, or with `start`.

    Raises:
        ServiceError: It does not stop, or *manager* is one that llmd does not know.
    """
    if manager == "other":
        raise ServiceError(
            "llmd was started by a service manager that it does not know",
            remedy="stop it there, or it may be started again",
        )
    return (service or this_service()).stop()


def exit_status_for_final_failure(manager: Manager | None) -> int:
    """The status that tells *manager* to leave the daemon down: it can never work as it is."""
    if manager == "launchd":
        return 0  # KeepAlive {SuccessfulExit: false} repeats every other
    return EXIT_FAILED if manager is None else EXIT_CONFIG


def _console_uid() -> int | None:
    """Who is logged in at the screen of this Mac."""
    try:
        return Path("/dev/console").stat().st_uid
    except OSError:
        return None
