"""Checks of `llmd-ctl doctor` that concern the service. Each is a plain function."""

import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from llmd.cli.findings import Check, Examined, Finding
from llmd.cli.service import definition_for
from llmd.cli.terminal import describe_victims


_STOPS_WITHIN_S: Final = 50.0
"""What the daemon may need to drain and to unload."""

_LAST_LINES: Final = 5
_PROTECTED: Final = ("Desktop", "Documents", "Downloads", "Library/Mobile Documents")
"""Folders that macOS shows to an agent only after somebody allowed it, if at all."""


def is_installed(seen: Examined) -> Iterator[Finding]:
    """Whether there is a service at all."""
    if seen.installed is None:
        yield Finding(
            "llmd is not installed as a service",
            "after the next login it does not run",
            "llmd-ctl install",
        )


def manager_answers(seen: Examined) -> Iterator[Finding]:
    """Whether the service manager can be asked."""
    if seen.state is None:
        why, remedy = seen.state_error
        yield Finding(
            "the service manager does not answer", why, remedy, serious=seen.installed is not None
        )


def python_is_there(seen: Examined) -> Iterator[Finding]:
    """Whether what the service runs still exists: upgrades of Python and of llmd move it."""
    python = seen.installed.python if seen.installed else None
    if python is not None and not os.access(python, os.X_OK):
        yield Finding(
            "the service's Python is gone",
            f"{python} cannot be run: an upgrade removed it",
            "llmd-ctl install",
            serious=True,
        )


def serves_this_configuration(seen: Examined) -> Iterator[Finding]:
    """Whether the service reads the file that is examined."""
    if seen.installed is not None and seen.installed.config_file != seen.config_file:
        yield Finding(
            "the service reads another configuration",
            f"it serves {seen.installed.config_file}, and this is {seen.config_file}",
            f"llmd-ctl install --config {seen.config_file}",
        )


def holds_the_ports(seen: Examined) -> Iterator[Finding]:
    """Whether the service manager listens where the configuration says."""
    if seen.installed is None or seen.config is None:
        return
    wanted = definition_for(seen.config, seen.config_file, seen.installed.socket)
    held, named = set(seen.installed.ports), set(wanted.ports)
    why = []
    if named - held:
        why.append(f"connections to {_ports(named - held)} are refused while no daemon runs")
    if held - named:
        why.append(f"it holds {_ports(held - named)}, which nobody serves")
    if not why and seen.installed.addresses != wanted.addresses:
        addresses = describe_victims(seen.installed.addresses)
        why.append(f"it listens on {addresses}; `listen` says {describe_victims(wanted.addresses)}")
    if why:
        yield Finding(
            "the service holds other ports than the configuration names",
            "; ".join(why),
            "llmd-ctl install",
        )


def is_current(seen: Examined) -> Iterator[Finding]:
    """Whether this version of llmd would write the service's files as they are."""
    if seen.installed is not None and not seen.service.is_current(seen.installed):
        files = describe_victims([str(path) for path in seen.service.files])
        yield Finding(
            "the service is not as this version of llmd writes it",
            f"another version wrote {files}, or somebody changed it",
            "llmd-ctl install",
        )


def runs(seen: Examined) -> Iterator[Finding]:
    """Whether it runs, and what it said if not."""
    if seen.installed is None or seen.state is None or seen.state.pid is not None:
        return
    if seen.state.failure:
        last = " / ".join(seen.service.log_lines(_LAST_LINES))
        yield Finding(
            "the service is down",
            seen.state.failure + (f"; it said: {last}" if last else ""),
            "llmd-ctl start",
            serious=True,
        )
    elif not seen.state.places:
        yield Finding("the service is stopped", "it starts at the next login", "llmd-ctl start")


def answers(seen: Examined) -> Iterator[Finding]:
    """Whether the daemon that answers is the service's."""
    pid = seen.state.pid if seen.state else None
    if pid is not None and seen.status is None:
        yield Finding(
            "the service runs and does not answer",
            f"nobody answers for it on the admin socket (pid {pid})",
            "llmd-ctl logs; if it hangs for good: llmd-ctl stop, then llmd-ctl start",
            serious=True,
        )
    elif seen.installed and seen.state and seen.status and seen.status.pid != pid:
        yield Finding(
            "the llmd that runs is not the service",
            f"pid {seen.status.pid} was started in another way",
            "llmd-ctl stop, then llmd-ctl start",
        )


def is_loaded_once(seen: Examined) -> Iterator[Finding]:
    """Whether launchd has it in one domain: two daemons would fight for the ports."""
    if seen.state and seen.service.kind == "launchd" and len(seen.state.places) > 1:
        yield Finding(
            "launchd has llmd twice",
            f"it is loaded in {describe_victims(seen.state.places)}",
            "llmd-ctl install",
            serious=True,
        )


def may_take_its_time(seen: Examined) -> Iterator[Finding]:
    """Whether it is given time to finish what it does."""
    limit_s = seen.state.stop_limit_s if seen.state else None
    if seen.installed and limit_s is not None and limit_s < _STOPS_WITHIN_S:
        yield Finding(
            "the service has little time to stop",
            f"it is killed {limit_s:.0f} s after it was told to, with answers unfinished",
            "llmd-ctl install",
        )


def is_not_slowed_down(seen: Examined) -> Iterator[Finding]:
    """Whether launchd schedules it, and so the models, as it does programs in use."""
    scheduling = seen.state.scheduling if seen.state else ""
    if scheduling and not scheduling.startswith("interactive"):
        yield Finding(
            "launchd slows llmd down",
            f"its spawn type is {scheduling}, which the models inherit",
            "llmd-ctl install",
            serious=scheduling.startswith(("background", "adaptive")),
        )


def lasts(seen: Examined) -> Iterator[Finding]:
    """Whether it outlives a logout or a reboot."""
    if seen.installed is not None:
        for what, command in seen.service.advice():
            yield Finding("the service does not run all the time", what, command)


def may_read_its_files(seen: Examined) -> Iterator[Finding]:
    """Whether macOS hides files from an agent that a terminal can read."""
    if seen.service.kind != "launchd":
        return
    wanted = [*(seen.config.models_dirs if seen.config else ()), seen.config_file]
    wanted += [seen.installed.python] if seen.installed else []
    for path in wanted:
        folder = next((f for f in _PROTECTED if path.is_relative_to(Path.home() / f)), None)
        if folder is not None:
            yield Finding(
                f"{path} is in a folder that macOS protects",
                f"a service may read ~/{folder} only if its Python has Full Disk Access",
                f"move it elsewhere, or allow {Path(sys.executable).resolve()} under System "
                "Settings, Privacy & Security, Full Disk Access",
            )


CHECKS: Final[tuple[Check, ...]] = (
    is_installed,
    manager_answers,
    python_is_there,
    serves_this_configuration,
    holds_the_ports,
    is_current,
    runs,
    answers,
    is_loaded_once,
    may_take_its_time,
    is_not_slowed_down,
    lasts,
    may_read_its_files,
)


def _ports(numbers: Iterable[int]) -> str:
    return describe_victims([str(number) for number in sorted(numbers)])
