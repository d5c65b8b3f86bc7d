"""How much memory there is, how much a host's processes hold, and whether the system runs short.

Linux reads `/proc` and `/sys/fs/cgroup`; macOS asks the kernel (`llmd.platform.darwin_memory`). All
of it is cheap enough for the event loop: 0.1 to 0.5 ms for a host's whole tree.
"""

import functools
import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

import structlog

from llmd.config.budget import MachineMemory
from llmd.platform.gpu import ask_gpu_limit
from llmd.platform.linux_memory import CGROUPS, GroupPressure, read_small, stalled, total_bytes


_WAITS: Final = Path("/proc/pressure/memory")
_PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")

log = structlog.get_logger("llmd.memory")


def tree_bytes(pid: int, mapped_files: Iterable[Path] = ()) -> int:
    """Bytes that process *pid* and everything it started hold; 0 when it is gone.

    On Linux the sum of resident sets. On macOS the sum of physical footprints, which include GPU
    buffers but no mapped files, plus the sizes of *mapped_files*: weights that llama.cpp maps are
    wired while in use (`--no-mmap` weights are in the footprint already; pass none).

    Everything counts that descends from *pid* or, when *pid* leads a session, belongs to it: a
    server that daemonizes still does. Pages that two processes share are counted twice.
    """
    return _held_bytes(process_tree(pid), mapped_files)


def tree_peak_bytes(pid: int, mapped_files: Iterable[Path] = ()) -> int:
    """The most that *pid* and what it started ever held, as `tree_bytes` counts; 0 when it is gone.

    The kernel notes it (`VmHWM`; `ri_lifetime_max_phys_footprint`), so that nothing is missed
    between two looks: attention scores of a long prompt are gone within a second. Of several
    processes the sum, as if all had been largest at once.
    """
    return _peak_bytes(process_tree(pid), mapped_files)


def tree_bytes_and_peak(pid: int, mapped_files: Iterable[Path] = ()) -> tuple[int, int]:
    """`tree_bytes` and `tree_peak_bytes`, with one walk through the processes for both."""
    tree = process_tree(pid)
    return _held_bytes(tree, mapped_files), _peak_bytes(tree, mapped_files)


def _held_bytes(tree: Iterable[int], mapped_files: Iterable[Path]) -> int:
    if sys.platform == "darwin":
        from llmd.platform import darwin_memory  # noqa: PLC0415 - loads libSystem

        held = sum(map(darwin_memory.footprint_bytes, tree))
        return held + sum(map(_size_bytes, mapped_files)) if held else 0
    return sum(map(_resident_bytes, tree))


def _peak_bytes(tree: Iterable[int], mapped_files: Iterable[Path]) -> int:
    if sys.platform == "darwin":
        from llmd.platform import darwin_memory  # noqa: PLC0415 - loads libSystem

        held = sum(map(darwin_memory.peak_bytes, tree))
        return held + sum(map(_size_bytes, mapped_files)) if held else 0
    return sum(map(_peak_resident_bytes, tree))


def machine_memory(gpu_limit_bytes: int | None = None) -> MachineMemory:
    """What this machine has to divide.

    Args:
        gpu_limit_bytes: What `gpu_limit` answered. None when nobody asked; then a limit that the
            user has set (`sysctl iogpu.wired_limit_mb`) is taken, or none.
    """
    if sys.platform == "darwin":
        from llmd.platform import darwin_memory  # noqa: PLC0415 - loads libSystem

        return MachineMemory(
            darwin_memory.total_bytes(),
            gpu_limit_bytes or darwin_memory.wired_limit_bytes(),
            unified=darwin_memory.is_apple_silicon(),
        )
    return MachineMemory(total_bytes(), gpu_limit_bytes)


def gpu_limit() -> int | None:
    """What the GPU of a Mac may use, in bytes; None elsewhere, and when it cannot be told.

    What the user has set (`sysctl iogpu.wired_limit_mb`) is read each time; macOS' own choice is
    asked for once in the life of the daemon, which blocks for some tenths of a second, `ASK_S` at
    most. It changes only with the system, so that it need not be written down.
    """
    if sys.platform != "darwin":
        return None
    from llmd.platform import darwin_memory  # noqa: PLC0415 - loads libSystem

    if (set_bytes := darwin_memory.wired_limit_bytes()) is not None:
        return set_bytes
    try:
        return _own_choice() if darwin_memory.is_apple_silicon() else None
    except LookupError as error:
        log.warning("gpu_limit.unknown", reason=str(error))
        return None


@functools.cache
def _own_choice() -> int:
    """What macOS itself allows the GPU. A failure raises LookupError, and so is not kept."""
    return ask_gpu_limit()


def pressure() -> str | None:
    """Why the system is short of memory, in a few words; None when it is not."""
    if sys.platform == "darwin":
        from llmd.platform import darwin_memory  # noqa: PLC0415 - loads libSystem

        return darwin_memory.pressure()
    return stalled(_WAITS) or _group_pressure().look()


@functools.cache
def _group_pressure() -> GroupPressure:
    return GroupPressure(*CGROUPS)


def process_tree(pid: int) -> set[int]:
    """*pid*, what descends from it, and what is in the session that it leads."""
    if sys.platform == "darwin":
        from llmd.platform import darwin_memory  # noqa: PLC0415 - loads libSystem

        return darwin_memory.tree(pid)
    found = {pid}
    try:
        leads = os.getsid(pid) == pid
    except OSError:
        return set()
    if leads:
        found.update(_session(pid))
    pending = list(found)
    while pending:
        for child in _children(pending.pop()):
            if child not in found:
                found.add(child)
                pending.append(child)
    return found


def _session(sid: int) -> Iterator[int]:
    """Processes of session *sid*: one system call each, 0.3 µs, instead of reading `stat`."""
    try:
        names = os.listdir("/proc")  # noqa: PTH208 - Path objects would cost ten times as much
    except OSError:
        return  # no descriptor is free; the next look will tell
    for name in names:
        if name.isdigit():
            try:
                if os.getsid(int(name)) == sid:
                    yield int(name)
            except OSError:
                continue  # it ended meanwhile


def _children(pid: int) -> Iterator[int]:
    """Direct children of every thread of *pid*."""
    try:
        threads = os.listdir(f"/proc/{pid}/task")  # noqa: PTH208 - as above
    except OSError:
        return
    for thread in threads:
        for child in read_small(f"/proc/{pid}/task/{thread}/children").split():
            yield int(child)


def _resident_bytes(pid: int) -> int:
    fields = read_small(f"/proc/{pid}/statm").split()
    return int(fields[1]) * _PAGE_BYTES if len(fields) > 1 else 0


def _peak_resident_bytes(pid: int) -> int:
    _, _, rest = read_small(f"/proc/{pid}/status").partition(b"\nVmHWM:")
    return int(rest.split(maxsplit=1)[0]) * 1024 if rest else 0


def _size_bytes(file: Path) -> int:
    try:
        return file.stat().st_size
    except OSError:
        return 0
