"""Which process a number means: pids are used again, boots and start times are not."""

import contextlib
import os
import sys
from pathlib import Path

import psutil

from llmd.platform.linux_memory import read_small


def boot_id() -> str:
    """A name of the time since the machine was started; another one after the next boot."""
    with contextlib.suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    return f"{psutil.boot_time():.0f}"


def started(pid: int) -> float | None:
    """When *pid* was started, as a number that no other process of that pid has; None when gone.

    Linux: clock ticks since the boot, which no change of the clock moves. macOS: seconds of the
    wall clock, written down by the kernel at the start.
    """
    if sys.platform == "linux":
        try:
            # pid (name) state parent …, field 22 is the start; the name may hold anything
            fields = (
                Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
            )
        except OSError:
            return None
        return None if fields[0] in "ZX" else float(fields[19])
    with contextlib.suppress(psutil.Error):
        return psutil.Process(pid).create_time()
    return None


def arguments(pid: int) -> tuple[str, ...]:
    """The command line of *pid*; empty when it is gone or another user's."""
    if sys.platform == "linux":
        words = read_small(f"/proc/{pid}/cmdline").removesuffix(b"\0")
        return tuple(map(os.fsdecode, words.split(b"\0"))) if words else ()
    with contextlib.suppress(psutil.Error):
        return tuple(psutil.Process(pid).cmdline())
    return ()
