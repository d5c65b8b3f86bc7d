"""Checks of `llmd-ctl doctor` that concern the machine: memory, speed, disks."""

import sys
from collections.abc import Iterator
from typing import Final

from llmd.cli.findings import Check, Examined, Finding
from llmd.cli.terminal import describe_bytes
from llmd.config.paths import cache_dir, log_dir, state_dir


SWAPS_BYTES_PER_S: Final = 2**20
DISK_LOW_BYTES: Final = 2 * 2**30
DISK_FULL_BYTES: Final = 200 * 2**20


def python_is_native(seen: Examined) -> Iterator[Finding]:
    """Whether an Apple-silicon Mac runs a Python for Intel, which has no MLX."""
    if seen.machine.is_translated():
        yield Finding(
            "llmd runs under Rosetta",
            f"{sys.executable} is a Python for Intel: MLX cannot run, and the rest is slow",
            "install Python for arm64 (brew in /opt/homebrew, or uv), and llmd with it",
            serious=True,
        )


def memory_suffices(seen: Examined) -> Iterator[Finding]:
    """Whether memory is short now, and the machine swaps for it."""
    least = _least_used(seen)
    remedy = f"llmd-ctl unload {least}" if least else "close other programs, or lower `budget`"
    if (pressure := seen.machine.pressure()) is not None:
        yield Finding("memory is short", pressure, remedy)
    swaps = seen.machine.swap_bytes_per_s()
    if swaps >= SWAPS_BYTES_PER_S:
        yield Finding(
            "the machine swaps",
            f"{describe_bytes(int(swaps))} each second: models answer many times slower",
            f"{remedy}; if it goes on, lower `budget`",
            serious=True,
        )


def _least_used(seen: Examined) -> str | None:
    """The resident that is idle for the longest time."""
    profiles = seen.status.profiles if seen.status is not None else ()
    idle = [profile for profile in profiles if profile.footprint_bytes and profile.idle_s]
    return max(idle, key=lambda profile: profile.idle_s or 0.0).name if idle else None


def budget_is_what_the_machine_has(seen: Examined) -> Iterator[Finding]:
    """Whether the budget promises what there is not."""
    budget = seen.budget_bytes()
    if budget is None:
        return
    limit = seen.machine.gpu_limit_bytes()
    total = seen.machine.total_bytes()
    if limit is not None and budget > limit:
        yield Finding(
            "the budget is more than the GPU may use",
            f"{describe_bytes(budget)} of {describe_bytes(limit)}: beyond, engines are aborted",
            f"`budget: auto` in {seen.config_file}, or "
            f"sudo sysctl iogpu.wired_limit_mb={budget // 2**20} until the next start",
            serious=True,
        )
    elif budget > total:
        yield Finding(
            "the budget is more than the memory there is",
            f"{describe_bytes(budget)} of {describe_bytes(total)}",
            f"`budget: auto` in {seen.config_file}",
            serious=True,
        )


def is_not_held_back(seen: Examined) -> Iterator[Finding]:
    """Whether the machine saves power or is hot, or the daemon stands back for others."""
    power = seen.machine.power()
    if power.saves:
        yield Finding(
            "Low Power Mode is on",
            "some Macs answer a third slower with it",
            "sudo pmset -a lowpowermode 0; where that key is missing: sudo pmset -a powermode 0",
        )
    if power.speed_percent < 100:
        yield Finding(
            "the machine is hot",
            f"it runs at {power.speed_percent} % of its speed",
            "let it cool; pmset -g therm tells when it has",
        )
    pid = seen.status.pid if seen.status is not None else None
    if pid is not None and (niceness := seen.machine.niceness(pid)) > 0:
        yield Finding(
            "llmd runs with low priority",
            f"its niceness is {niceness}, which the models inherit",
            f"sudo renice -n 0 -p {pid}, and start it without `nice`",
        )


def disks_have_room(seen: Examined) -> Iterator[Finding]:
    """Whether logs, prompt caches and what was learned can be written."""
    told: set[int] = set()
    for what, directory in (("log", log_dir()), ("cache", cache_dir()), ("state", state_dir())):
        free = seen.machine.free_bytes(directory)
        if free < DISK_LOW_BYTES and free // 2**20 not in told:
            told.add(free // 2**20)  # the same disk again
            yield Finding(
                "a disk is nearly full",
                f"{describe_bytes(free)} are free where {what}s are: {directory}",
                f"du -sh {cache_dir()} {log_dir()}; make room on that disk",
                serious=free < DISK_FULL_BYTES,
            )


CHECKS: Final[tuple[Check, ...]] = (
    python_is_native,
    memory_suffices,
    budget_is_what_the_machine_has,
    is_not_held_back,
    disks_have_room,
)
