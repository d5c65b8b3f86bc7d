"""macOS memory, asked of the kernel: footprints of processes, totals, pressure.

`phys_footprint` is what Activity Monitor calls Memory: dirty pages, compressed ones, and GPU
buffers, which a resident set lacks. Structure: `struct rusage_info_v4` of `<sys/resource.h>`.
"""

import ctypes
import functools
import os
import platform
from collections.abc import Callable
from typing import Any, Final


RUSAGE_INFO_V4: Final = 4
RUSAGE_BUFFER_BYTES: Final = 512
"""Larger than every version of the structure (v6: 464)."""

FOOTPRINT_OFFSET: Final = 72
"""`ri_phys_footprint`."""

LIFETIME_PEAK_OFFSET: Final = 240
"""`ri_lifetime_max_phys_footprint`."""

PRESSURE_LEVELS: Final = {2: "macOS warns that memory is short", 4: "memory is critically short"}
"""`kern.memorystatus_vm_pressure_level`; 1 is normal."""

_PIDS_MAX: Final = 8192


def footprint_bytes(pid: int) -> int:
    """Physical footprint of *pid* in bytes; 0 when it is gone or another user's."""
    usage = _rusage(pid)
    return 0 if usage is None else usage[FOOTPRINT_OFFSET // 8]


def peak_bytes(pid: int) -> int:
    """The largest footprint *pid* ever had, in bytes; 0 when it is gone or another user's."""
    usage = _rusage(pid)
    return 0 if usage is None else usage[LIFETIME_PEAK_OFFSET // 8]


def tree(pid: int) -> set[int]:
    """*pid*, what descends from it, and what is in the session that it leads."""
    try:
        leads = os.getsid(pid) == pid
    except OSError:
        return set()
    found = {pid}
    if leads:
        found.update(other for other in _pids(_libsystem().proc_listallpids) if _sid(other) == pid)
    pending = list(found)
    while pending:
        parent = pending.pop()
        for child in _pids(functools.partial(_libsystem().proc_listchildpids, parent)):
            if child not in found:
                found.add(child)
                pending.append(child)
    return found


def total_bytes() -> int:
    """Memory of the machine."""
    return _sysctl("hw.memsize", ctypes.c_uint64) or 0


def wired_limit_bytes() -> int | None:
    """The GPU's limit where the user has set one (`iogpu.wired_limit_mb`); None by default."""
    megabytes = _sysctl("iogpu.wired_limit_mb", ctypes.c_int32)
    return megabytes * 2**20 if megabytes and megabytes > 0 else None


def is_apple_silicon() -> bool:
    """Whether CPU and GPU share the memory; also for a Python that runs translated."""
    return platform.machine() == "arm64" or bool(_sysctl("hw.optional.arm64", ctypes.c_int32))


def pressure() -> str | None:
    """Why memory is short, in a few words; None when it is not."""
    level = _sysctl("kern.memorystatus_vm_pressure_level", ctypes.c_int32) or 1
    return PRESSURE_LEVELS.get(level, PRESSURE_LEVELS[2] if level > 1 else None)


@functools.cache
def _libsystem() -> Any:
    library = ctypes.CDLL("/usr/lib/libSystem.B.dylib", use_errno=True)
    library.proc_pid_rusage.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_void_p]
    library.proc_listallpids.argtypes = [ctypes.c_void_p, ctypes.c_int]
    library.proc_listchildpids.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_int]
    library.sysctlbyname.argtypes = [
        ctypes.c_char_p,
        ctypes.c_void_p,
        ctypes.c_void_p,
        ctypes.c_void_p,
        ctypes.c_size_t,
    ]
    for function in (
        library.proc_pid_rusage,
        library.proc_listallpids,
        library.proc_listchildpids,
        library.sysctlbyname,
    ):
        function.restype = ctypes.c_int
    return library


def _rusage(pid: int) -> Any:
    buffer = (ctypes.c_uint64 * (RUSAGE_BUFFER_BYTES // 8))()
    failed = _libsystem().proc_pid_rusage(pid, RUSAGE_INFO_V4, buffer)
    return None if failed else buffer


def _pids(lister: Callable[[Any, int], int]) -> list[int]:
    """What one of libproc's listing functions finds: they fill a buffer and return a count."""
    buffer = (ctypes.c_int * _PIDS_MAX)()
    count = lister(buffer, ctypes.sizeof(buffer))
    return [pid for pid in buffer[: max(0, min(count, _PIDS_MAX))] if pid > 0]


def _sid(pid: int) -> int:
    try:
        return os.getsid(pid)
    except OSError:
        return -1


def _sysctl(name: str, kind: type[Any]) -> int | None:
    """A number by its name; None where this system lacks it."""
    value = kind()
    size = ctypes.c_size_t(ctypes.sizeof(value))
    failed = _libsystem().sysctlbyname(
        name.encode(), ctypes.byref(value), ctypes.byref(size), None, 0
    )
    return None if failed else int(value.value)
