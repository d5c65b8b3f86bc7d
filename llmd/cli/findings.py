"""What `llmd-ctl doctor` looks at, and what it finds."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING


if TYPE_CHECKING:
    from llmd.admin import wire
    from llmd.config.models import Config
    from llmd.platform.definition import Definition, ServiceState
    from llmd.platform.machine import Machine
    from llmd.platform.service import Service


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is not as it should be.

    Attributes:
        what: In a few words.
        why: What it leads to, or how it is known.
        remedy: The command that mends it.
        serious: llmd does not work because of it, or does not work well.
    """

    what: str
    why: str
    remedy: str
    serious: bool = False


@dataclass(frozen=True, slots=True)
class Examined:
    """What the checks look at; gathered once, so that they agree.

    Attributes:
        config_file: The configuration that is judged.
        config: What it says; None when it does not load.
        config_error: Why not, with the remedy.
        service: The service, installed or not.
        installed: What its files say; None when it is not installed.
        state: What the service manager says; None when it does not answer.
        state_error: Why not, with the remedy.
        status: What the daemon says; None when none answers.
        machine: The machine itself, to be asked.
    """

    config_file: Path
    config: "Config | None"
    config_error: tuple[str, str]
    service: "Service"
    installed: "Definition | None"
    state: "ServiceState | None"
    state_error: tuple[str, str]
    status: "wire.Status | None"
    machine: "Machine"

    def budget_bytes(self) -> int | None:
        """The daemon's budget, or what the configuration would make of this machine."""
        if self.status is not None:
            return self.status.budget.total_bytes
        if self.config is None:
            return None
        from llmd.cli.surroundings import budget_on

        return budget_on(self.machine, self.config)


Check = Callable[[Examined], Iterator[Finding]]
