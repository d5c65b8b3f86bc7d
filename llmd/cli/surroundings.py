"""What the commands about weights stand on: a configuration, if any; a daemon, if one runs."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from llmd.admin import wire
from llmd.cli.invocation import FC, Invocation
from llmd.cli.terminal import note
from llmd.config.paths import config_file
from llmd.errors import ConfigError, LlmdError


if TYPE_CHECKING:
    from llmd.config.models import Config
    from llmd.platform.machine import Machine


@dataclass(frozen=True, slots=True)
class Surroundings:
    """Where a command finds itself.

    Attributes:
        config_file: The configuration that counts, there or not.
        config: What it says; None when there is none, or none that can be used.
        status: What the daemon says; None when none runs.
    """

    config_file: Path
    config: "Config | None"
    status: wire.Status | None

    @property
    def models_dirs(self) -> tuple[Path, ...]:
        """Where weights are looked up by name."""
        if self.config is not None:
            return self.config.models_dirs
        from llmd.config.models import Config

        return Config.model_construct(profiles={}).models_dirs

    def budget_bytes(self, machine: "Machine | None" = None) -> int:
        """The daemon's budget; without one, what the configuration would make of *machine*."""
        if self.status is not None:
            return self.status.budget.total_bytes
        from llmd.config.models import Config
        from llmd.platform.machine import Machine

        config = self.config or Config.model_construct(profiles={})
        return budget_on(machine or Machine(), config)


def budget_on(machine: "Machine", config: "Config") -> int:
    """What a daemon on *machine* would have to divide, in bytes."""
    from llmd.config.budget import MachineMemory, budget_bytes

    limit = machine.gpu_limit_bytes() if config.budget == "auto" else None
    memory = MachineMemory(machine.total_bytes(), limit, unified=machine.is_unified())
    return budget_bytes(config, memory)


def config_option() -> Callable[[FC], FC]:
    """`--config` for commands that work without a daemon."""
    return click.option(
        "--config",
        "chosen",
        metavar="FILE",
        help="The configuration [default: the daemon's, else LLMD_CONFIG, else the user's].",
    )


def look_around(invocation: Invocation, chosen: str | None) -> Surroundings:
    """Find configuration and daemon. Without a file to read it goes on; a bad one it tells of."""
    from llmd.config.load import load_config

    try:
        status = invocation.client().status()
    except LlmdError:
        status = None
    named = chosen or (status.config_path if status and status.config_path else None)
    file = config_file(named).absolute()
    try:
        config = load_config(file)
    except ConfigError as error:
        if chosen is not None:
            raise
        config = None
        if file.exists():
            what = error.message.splitlines()[0].rstrip(":")
            note(f"{what}; going on without it: llmd-ctl config check")
    return Surroundings(file, config, status)
