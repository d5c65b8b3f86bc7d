"""The systemd user units in force: installed, removed, started and stopped through `systemctl`."""

import os
from pathlib import Path
from typing import Final

from llmd.platform import systemd
from llmd.platform.definition import (
    Definition,
    Runner,
    ServiceError,
    ServiceState,
    first_line,
    make_directories,
    read_if_there,
    remove,
    run_program,
    write_atomically,
)
from llmd.platform.run import Ran
from llmd.platform.systemd import SERVICE, SOCKET, UNITS


CALL_S: Final = 15.0
QUICK_S: Final = 3.0
"""For what is asked on the way down, where time is counted."""

CHANGE_S: Final = 180.0
"""A start waits until the daemon is ready (90 s), a restart for the end of its predecessor too."""

_BIND: Final = "listening socket"
"""In what systemd says of an address that it cannot listen on."""

_PROPERTIES: Final = (
    "LoadState",
    "ActiveState",
    "MainPID",
    "Result",
    "ExecMainStatus",
    "TimeoutStopUSec",
)


class UserUnits:
    """llmd as one user's socket and service unit.

    Attributes:
        service: The service unit's file.
        socket: The socket unit's file.
    """

    kind: Final = "systemd"

    def __init__(self, directory: Path, *, runner: Runner = run_program) -> None:
        self.service = directory / SERVICE
        self.socket = directory / SOCKET
        self._run = runner

    @property
    def files(self) -> tuple[Path, ...]:
        """The files that make the service."""
        return (self.service, self.socket)

    def installed(self) -> Definition | None:
        """What the units say; None when they are not there, or not ours."""
        service, socket = read_if_there(self.service), read_if_there(self.socket)
        return systemd.read_back(service, socket) if service and socket else None

    def is_current(self, definition: Definition) -> bool:
        """Whether the units are what `install` would write for *definition*."""
        return all(read_if_there(path) == text for path, text in self._rendered(definition).items())

    def log_lines(self, count: int) -> list[str]:
        """The last *count* lines that the daemon printed, without what systemd says about it."""
        return self._journal(f"--unit={SERVICE}", "--identifier=llmd", lines=count)

    def state(self) -> ServiceState:
        """What systemd says.

        Raises:
            ServiceError: systemctl fails, or does not answer.
        """
        service, socket = self._show(SERVICE), self._show(SOCKET)
        active = tuple(
            unit
            for unit, shown in ((SOCKET, socket), (SERVICE, service))
            if shown.get("ActiveState") in ("active", "activating", "reloading", "deactivating")
        )
        failed = [
            f"{unit} failed: {shown.get('Result', 'no reason given')}"
            for unit, shown in ((SERVICE, service), (SOCKET, socket))
            if shown.get("ActiveState") == "failed"
        ]
        status = service.get("ExecMainStatus", "0")
        if failed and status != "0":
            failed.append(f"its last status is {status}")
        loaded = service.get("LoadState") == "loaded"
        return ServiceState(
            places=active,
            pid=int(service.get("MainPID") or 0) or None,
            failure=", ".join(failed),
            stop_limit_s=systemd.parse_timespan(service.get("TimeoutStopUSec", ""))
            if loaded
            else None,
        )

    def install(self, definition: Definition) -> list[str]:
        """Write the units and bring them into force; returns what was done, for people.

        Idempotent: only what changed is restarted, and ports stay open unless they changed.

        Raises:
            ServiceError: With the reason, and what to do.
        """
        rendered = self._rendered(definition)
        make_directories(definition)
        changed = [path for path, text in rendered.items() if read_if_there(path) != text]
        was_active = self.state().places
        did = []
        for path in changed:
            write_atomically(path, rendered[path])
            did.append(f"wrote {path}")
        if changed:
            self._must("daemon-reload")
        self._must("enable", "--quiet", *UNITS)
        if self.socket in changed and was_active:
            # A socket unit cannot start beside its running service, so the service is named first.
            # The daemon sees a restart, and its hosts stay.
            self._change("restart", SERVICE, SOCKET)
            did.append("restarted it, with other ports")
        elif self.service in changed and SERVICE in was_active:
            self._change("restart", SERVICE)
            did.append("restarted it; the ports stayed open")
        return did + self.start()

    def uninstall(self) -> list[str]:
        """Stop it and remove the units; returns what was done."""
        did = self.stop()
        if any(path.exists() for path in self.files):
            self._must("disable", "--quiet", *UNITS)
        removed = [path for path in self.files if remove(path)]
        if removed:
            self._must("daemon-reload")
            self._systemctl("reset-failed", *UNITS)  # else what failed last is listed for ever
        return did + [f"removed {path}" for path in removed]

    def start(self) -> list[str]:
        """See to it that both units are active; returns what was done."""
        before = self.state()
        if len(before.places) == len(UNITS):
            return [f"{SERVICE} is active (pid {before.pid})"]
        # Without it, what failed too often stays failed.
        self._systemctl("reset-failed", *UNITS)
        if SERVICE in before.places:
            self._change("restart", SERVICE, SOCKET)
            return [f"restarted {SERVICE} with {SOCKET}"]
        self._change("start", *UNITS)
        return [f"started {SOCKET} and {SERVICE}"]

    def stop(self) -> list[str]:
        """Stop both until the next login, or `start`; returns what was done.

        The service alone would be started again by the next connection.
        """
        if not self.state().places:
            return []
        self._change("stop", *UNITS)
        return [f"stopped {SOCKET} and {SERVICE}"]

    def pending_jobs(self) -> dict[str, str]:
        """What systemd is doing with our units: `stop`, `restart`, …, by unit."""
        ran = self._systemctl("list-jobs", "--no-legend", "--plain", *UNITS, timeout_s=QUICK_S)
        jobs = (line.split() for line in ran.output.splitlines() if ran.ok)
        return {words[1]: words[2] for words in jobs if len(words) >= 3 and words[1] in UNITS}

    def advice(self) -> list[tuple[str, str]]:
        """What a user may want to know of where it runs, each with a command."""
        user = str(os.getuid())
        ran = self._run(("loginctl", "show-user", user, "--property=Linger", "--value"), CALL_S)
        if not ran.ok or first_line(ran.output) != "no":
            return []
        return [("it ends when you log out, and starts when you log in", "loginctl enable-linger")]

    # --- systemctl -------------------------------------------------------------------------------

    def _rendered(self, definition: Definition) -> dict[Path, str]:
        return {
            self.service: systemd.render_service(definition),
            self.socket: systemd.render_socket(definition),
        }

    def _show(self, unit: str) -> dict[str, str]:
        ran = self._systemctl("show", f"--property={','.join(_PROPERTIES)}", unit)
        if not ran.ok:
            raise _failure("show", ran)
        pairs = (line.partition("=") for line in ran.output.splitlines())
        return {name: value for name, _, value in pairs}

    def _must(self, *arguments: str) -> None:
        ran = self._systemctl(*arguments)
        if not ran.ok:
            raise _failure(arguments[0], ran)

    def _change(self, verb: str, *units: str) -> None:
        ran = self._systemctl(verb, *units, timeout_s=CHANGE_S)
        if not ran.ok:
            raise _failure(verb, ran, last=self._last_words())

    def _last_words(self) -> str:
        """Why a unit failed: what systemd says of the sockets, or else the daemon of itself."""
        if self._show(SOCKET).get("ActiveState") == "failed":
            refused = [
                line for line in self._journal(f"--unit={SOCKET}", lines=20) if _BIND in line
            ]
            return next(reversed(refused), "")
        return " / ".join(line.strip() for line in self.log_lines(2))

    def _journal(self, *which: str, lines: int) -> list[str]:
        ran = self._run(
            ("journalctl", "--user", *which, f"--lines={lines}", "--output=cat", "--no-pager"),
            CALL_S,
        )
        return ran.output.splitlines()[-lines:] if ran.ok else []

    def _systemctl(self, *arguments: str, timeout_s: float = CALL_S) -> Ran:
        return self._run(("systemctl", "--user", *arguments), timeout_s)


def _failure(verb: str, ran: Ran, *, last: str = "") -> ServiceError:
    said = first_line(ran.output)
    if "Failed to connect to" in said or "DBUS_SESSION_BUS_ADDRESS" in said:
        return ServiceError(
            f"there is no systemd for this user: {said}",
            remedy="log in (not with su or sudo), or set "
            "XDG_RUNTIME_DIR=/run/user/$(id -u); without systemd, run `llmd serve`",
        )
    if ran.code == 127:
        return ServiceError("this system has no systemctl", remedy="run `llmd serve` instead")
    how = "did not answer in time" if ran.code is None else f"failed with {ran.code}"
    why = f": {said}" if said else ""
    return ServiceError(
        f"systemctl --user {verb} {how}{why}{f' (it says: {last})' if last else ''}",
        remedy=f"systemctl --user status {' '.join(UNITS)}; journalctl --user -u llmd",
    )
