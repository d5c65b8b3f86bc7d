"""How many bytes all models together may use."""

from typing import Final

from msgspec import Struct

from llmd.config.models import Config
from llmd.config.units import parse_size


RAM_SHARE: Final = 0.75
"""Of a machine whose graphics processor has memory of its own, or none: the rest is the user's."""

UNIFIED_SHARE: Final = 2 / 3
"""Of a machine with unified memory whose GPU limit is unknown; real limits are 67 to 84 %."""


class MachineMemory(Struct, frozen=True):
    """What there is to divide.

    Attributes:
        total_bytes: Memory that this process may use: RAM, or the cgroup's limit if lower.
        gpu_limit_bytes: The GPU's recommended working set (Metal), once it has been asked for.
        unified: The GPU uses the machine's memory (Apple silicon).
    """

    total_bytes: int
    gpu_limit_bytes: int | None = None
    unified: bool = False


def absolute_budget_bytes(config: Config) -> int | None:
    """The budget when it does not depend on the machine."""
    text = str(config.budget)
    return None if text == "auto" or text.endswith("%") else parse_size(config.budget)


def budget_bytes(config: Config, machine: MachineMemory) -> int:
    """The budget in bytes: as written, a share of *machine*, or what `auto` makes of it.

    `auto` is the GPU's working-set limit where there is one, since a model beyond it swaps or
    aborts; else 75 % of memory (two thirds where the GPU shares it).
    """
    absolute = absolute_budget_bytes(config)
    if absolute is not None:
        return absolute
    text = str(config.budget)
    if text.endswith("%"):
        return int(machine.total_bytes * float(text[:-1]) / 100)
    if machine.gpu_limit_bytes:
        return min(machine.gpu_limit_bytes, machine.total_bytes)
    return int(machine.total_bytes * (UNIFIED_SHARE if machine.unified else RAM_SHARE))
