"""What killed a host, as far as its exit, its log and the kernel's counters tell."""

import re
from enum import StrEnum
from typing import Final

from msgspec import Struct

from llmd.core.facts import Failure


class Cause(StrEnum):
    """Kinds of death, as events name them."""

    EXIT = "exit"
    GPU_MEMORY = "gpu_memory"
    SYSTEM_MEMORY = "system_memory"
    KILL = "kill"
    ABORT = "abort"
    CRASH = "crash"
    HANG = "hang"


class Death(Struct, frozen=True):
    """What is to be said of it.

    Attributes:
        words: What happened, for people; empty when the failure's message says it all.
        remedy: What to do about it; empty when only the log can tell.
    """

    cause: Cause
    words: str
    remedy: str = ""

    @property
    def of_memory(self) -> bool:
        """Whether it would live with less of it."""
        return self.cause in (Cause.GPU_MEMORY, Cause.SYSTEM_MEMORY)


_SMALLER: Final = "lower `context`, `parallel` or `prompt_cache` of the profile, or the budget"
_CRASHES: Final = {
    "SIGSEGV": "it touched memory that is not its own",
    "SIGBUS": "a page of its weights could not be read: cut off or on a disk that is gone",
    "SIGILL": "its program is not made for this processor",
    "SIGFPE": "it divided by zero",
}
_BY_STATUS: Final = {
    132: "SIGILL", 134: "SIGABRT", 135: "SIGBUS", 136: "SIGFPE", 137: "SIGKILL", 139: "SIGSEGV",
}  # fmt: skip
"""128 and the number on Linux: how the exec host passes on what ended its server."""

_GPU_IS_FULL: Final = re.compile(
    r"kIOGPUCommandBufferCallbackErrorOutOfMemory|Command buffer execution failed: "
    r"Insufficient Memory|\[metal::malloc\]",
)
_NO_MEMORY: Final = re.compile(
    r"std::bad_alloc|MemoryError|[Oo]ut of memory|[Cc]annot allocate memory|"
    r"failed to allocate (?:\S+ )?buffer|unable to allocate \S+ buffer"
)


def judge(failure: Failure) -> Death:
    """Of what the host that *failure* tells of died.

    macOS ends a process that Metal has no memory for with SIGABRT, and one that the system has none
    for with SIGKILL; Linux kills with SIGKILL and counts it. A host that llmd killed is no failure.
    """
    if failure.hangs:  # whatever its log says of memory, it lives
        return Death(Cause.HANG, "")
    log = "\n".join(failure.log_tail)
    name = failure.signal or _BY_STATUS.get(failure.exit_code or 0)
    if name in ("SIGABRT", "SIGKILL", None) and _GPU_IS_FULL.search(log):
        return Death(Cause.GPU_MEMORY, "the GPU had no memory left", _SMALLER)
    if name == "SIGKILL":
        return _killed(failure.oom_kills)
    if name in ("SIGABRT", None) and _NO_MEMORY.search(log):
        return Death(Cause.SYSTEM_MEMORY, "it got no more memory", _SMALLER)
    if name == "SIGABRT":
        return Death(Cause.ABORT, "the engine gave itself up (SIGABRT); the log says why")
    if name is not None:
        why = f": {_CRASHES[name]}" if name in _CRASHES else ""
        return Death(Cause.CRASH, f"it crashed ({name}){why}")
    code = failure.exit_code
    return Death(Cause.EXIT, f"exit code {code}" if code is not None else "")


def _killed(oom_kills: int | None) -> Death:
    """*oom_kills*: how often the kernel killed for memory meanwhile; None where nobody counts."""
    if oom_kills == 0:
        return Death(
            Cause.KILL,
            "somebody killed it (SIGKILL); the system was not out of memory",
            "find out who sent the signal; llmd did not",
        )
    who = "the kernel killed it" if oom_kills else "it was killed, as macOS does"
    return Death(Cause.SYSTEM_MEMORY, f"{who} for want of memory (SIGKILL)", _SMALLER)
