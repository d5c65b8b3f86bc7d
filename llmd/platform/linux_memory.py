"""Linux memory beyond processes: limits of control groups, and tasks that wait for memory."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from llmd.errors import describe_bytes


PRESSURE_SOME_PERCENT: Final = 20.0
"""Share of the last 10 s in which some task waited for memory (PSI): too much to ignore."""

PRESSURE_FULL_PERCENT: Final = 10.0
"""The same for all tasks at once."""

FULL_SHARE: Final = 0.9
"""A group at its limit is short of memory when so much of the limit is more than file cache."""

CGROUPS: Final = (Path("/proc/self/cgroup"), Path("/sys/fs/cgroup"))

_UNLIMITED_BYTES: Final = 2**60
"""cgroup v1 writes "no limit" as a number beyond this."""

_CACHE: Final = ("active_file", "inactive_file")
"""Of `memory.stat`: what a group at its limit gives up first."""


def total_bytes() -> int:
    """Memory that this process may use: the machine's, or its control group's limit if lower."""
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return min([memory, *cgroup_limits(*CGROUPS)])


def stalled(file: Path) -> str | None:
    """What PSI's *file* says when tasks wait for memory more than they should."""
    limits = {"some": PRESSURE_SOME_PERCENT, "full": PRESSURE_FULL_PERCENT}
    for line in _read(file).splitlines():
        kind, *fields = line.split() or [""]
        for field in fields:
            name, _, value = field.partition("=")
            if name != "avg10" or kind not in limits or not value.replace(".", "").isdecimal():
                continue
            if float(value) >= limits[kind]:
                who = "some tasks" if kind == "some" else "all tasks"
                return f"{who} waited for memory {float(value):.0f} % of the last 10 s"
    return None


def cgroup_limits(membership: Path, root: Path) -> list[int]:
    """Memory limits of every control group around this process, in bytes.

    Args:
        membership: `/proc/self/cgroup`: lines of `id:controllers:path`.
        root: Where the hierarchy is mounted.
    """
    limits = []
    for group, unified in _groups(membership, root):
        text = _read(group / ("memory.max" if unified else "memory.limit_in_bytes")).strip()
        if text.isdigit() and 0 < int(text) < _UNLIMITED_BYTES:
            limits.append(int(text))
    return limits


class GroupPressure:
    """Whether the control groups around this process are short of memory; v2 only.

    A container or a unit with `MemoryMax` can be at its end on a machine with plenty. PSI of our
    own group counts the waits of our hosts alone; the counters of all groups around tell of limits
    that were hit. That happens all the time, harmlessly, when weights are read and the page cache
    fills a group up; so a limit counts only when little of what it holds is cache.
    """

    def __init__(self, membership: Path, root: Path) -> None:
        """Remember the counters as they are. Arguments as those of `cgroup_limits`."""
        groups = [group for group, unified in _groups(membership, root) if unified]
        self._waits = [group / "memory.pressure" for group in groups[:1]]
        # `memory.events` counts what happened in other groups inside, too.
        self._hits = {file: _hits(file) for file in (g / "memory.events.local" for g in groups)}

    def look(self) -> str | None:
        """Why a group is short of memory, in a few words; None when none is.

        Reads one small file for each group, two for the innermost, more where a limit was hit
        since the last look.
        """
        for file in self._waits:
            if (words := stalled(file)) is not None:
                return f"in llmd's control group, {words}"
        found = None
        for file, before in self._hits.items():
            limited, failed = self._hits[file] = _hits(file)
            if failed > before[1]:
                found = found or "llmd's control group could not get memory within its limit"
            elif limited > before[0]:
                found = found or _full(file.parent)
        return found


def oom_kills(vmstat: Path = Path("/proc/vmstat")) -> int | None:
    """How many processes the kernel has killed for want of memory since the boot.

    Of this machine and of any control group; None where the kernel does not say (not Linux).
    """
    return _numbers(vmstat).get("oom_kill")


def _hits(events: Path) -> tuple[int, int]:
    """How often a group's own limit made it reclaim, and made an allocation fail."""
    counts = _numbers(events)
    return counts.get("high", 0) + counts.get("max", 0), counts.get("oom", 0)


def _full(group: Path) -> str | None:
    """What to say of a group that was at its limit, unless it only had to drop file cache."""
    texts = [_read(group / name).strip() for name in ("memory.high", "memory.max")]
    limit_bytes = min((int(text) for text in texts if text.isdigit()), default=0)
    used = _read(group / "memory.current").strip()
    if not limit_bytes or not used.isdigit():
        return None
    stat = _numbers(group / "memory.stat")
    kept_bytes = int(used) - sum(stat.get(name, 0) for name in _CACHE)
    if kept_bytes < FULL_SHARE * limit_bytes:
        return None
    return f"llmd's control group is at its memory limit of {describe_bytes(limit_bytes)}"


def _groups(membership: Path, root: Path) -> Iterator[tuple[Path, bool]]:
    """Every control group around this process that may limit memory, innermost first.

    With whether it is of the second version, the unified hierarchy.
    """
    for line in _read(membership).splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if controllers and "memory" not in controllers.split(","):
            continue
        top = root / "memory" if controllers else root
        group = top / path.lstrip("/")
        # A container sees its own group as the root, whatever path it is told.
        for place in (group, *group.parents):
            if place.is_relative_to(top) and place.is_dir():
                yield place, not controllers


def _numbers(file: Path) -> dict[str, int]:
    """A file of lines with a name and a number each."""
    fields = [line.split() for line in _read(file).splitlines()]
    return {words[0]: int(words[1]) for words in fields if len(words) == 2 and words[1].isdigit()}


def _read(file: Path) -> str:
    return read_small(os.fspath(file)).decode("utf-8", "replace")


def read_small(path: str) -> bytes:
    """A small file of `/proc` or `/sys`; nothing when it is not there.

    Without a file object: looks are taken every few seconds, of many files, day and night. To the
    end: the kernel may give less than is there, and than was asked for.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return b""
    content = b""
    try:
        while chunk := os.read(descriptor, 65536):
            content += chunk
        return content
    except OSError:
        return b""
    finally:
        os.close(descriptor)
