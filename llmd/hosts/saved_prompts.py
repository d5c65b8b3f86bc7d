"""Prompts that outlive their host: files of key-value state, in the engine's own format.

A directory belongs to one profile and one state of its weights. The daemon chooses it, and keeps
the sum of all of them within bounds. Files hold what was said in conversations: they and their
directories are for their owner alone, by the umask of every host.
"""

import contextlib
import os
import stat
import time
from pathlib import Path
from typing import Final


MIN_TOKENS: Final = 256
"""Shorter prompts are processed sooner than they are worth a file."""

_BYTES_PER_S: Final = 1e9
"""What a disk is believed to take until one has shown it."""


class Allowance:
    """How much may be saved now.

    Whoever needs the memory of this host waits until it is done, so time is short.

    Attributes:
        prompts: That were saved.
        bytes: Of their files.

    Args:
        limit_bytes: For all files together.
        within_s: Seconds from now.
    """

    def __init__(self, limit_bytes: int, within_s: float) -> None:
        self._limit_bytes = limit_bytes
        self._within_s = within_s
        self._began_s = time.monotonic()
        self.prompts = 0
        self.bytes = 0

    @property
    def left_s(self) -> float:
        """Seconds that are left; at most 0 when there are none."""
        return self._began_s + self._within_s - time.monotonic()

    def admits(self, expected_bytes: float) -> bool:
        """Whether a file of so many bytes still fits."""
        spent_s = self._within_s - self.left_s
        per_s = self.bytes / spent_s if self.bytes and spent_s else _BYTES_PER_S
        return (
            self.bytes + expected_bytes <= self._limit_bytes
            and expected_bytes / per_s <= self.left_s
        )

    def spend(self, file: Path) -> None:
        """Count *file*, which was written."""
        self.prompts += 1
        self.bytes += file.stat().st_size


def place(directory: Path) -> Path:
    """Make *directory* where it is missing, and clear it of what nobody finished.

    To be called before each use: the daemon deletes directories that are empty.

    Raises:
        OSError: It cannot be made, or somebody else may write there: what is read from it is
            believed, and what is written holds conversations.
    """
    directory.mkdir(parents=True, exist_ok=True)
    found = directory.lstat()
    ours = stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid()
    if not ours or found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise PermissionError(f"{directory} is not a directory that only its user can write to")
    for file in directory.glob("new-*"):
        forget(file)
    return directory


def newest_first(directory: Path, pattern: str) -> list[Path]:
    """Its files of that *pattern*, those used last before the others."""
    found = []
    for file in directory.glob(pattern):
        with contextlib.suppress(OSError):  # the daemon may delete it meanwhile
            found.append((file.stat().st_mtime_ns, file))
    return [file for _, file in sorted(found, reverse=True)]


def used(file: Path) -> None:
    """Note that *file* was of use: what was not used for longest is deleted first."""
    with contextlib.suppress(OSError):
        os.utime(file)


def forget(file: Path) -> None:
    """Delete *file*."""
    with contextlib.suppress(OSError):
        file.unlink()
