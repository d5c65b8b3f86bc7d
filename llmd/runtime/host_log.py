"""What hosts print: one file per profile, 0600, of bounded length also while it is written to."""

import contextlib
import os
from pathlib import Path
from typing import Final


LOG_MAX_BYTES: Final = 4 * 2**20
"""A log that is longer is moved out of the way when a host starts, and shortened while it runs."""

TAIL_BYTES: Final = 64 * 1024
"""As much of the end as is ever looked at, and as stays in a log that is shortened."""

_DUMP: Final = "Fatal Python error: "
"""How faulthandler begins to show the stacks of a process that crashes, its last words."""

_CHUNK_BYTES: Final = 2**20
_CATCH_UP: Final = 64
"""Reads that may find more before a writer that does not pause for breath is cut off."""


class HostLog:
    """What one run of a host prints, at the end of a file that earlier runs have written to.

    Attributes:
        path: The file.
        begins_at: The byte from which on it is this run's; 0 where that is not known.
    """

    def __init__(self, path: Path, *, begins_at: int = 0) -> None:
        self.path = path
        self.begins_at = begins_at

    @classmethod
    def begin(cls, path: Path) -> "HostLog":
        """Of a run that is about to start; a long log of earlier runs is moved out of the way."""
        rotate_log(path)
        return cls(path, begins_at=size_of(path))

    def tail(self, lines: int = 20) -> tuple[str, ...]:
        """The last *lines* that this run printed."""
        return last_lines(self.path, lines, begins_at=self.begins_at)

    def shorten(self) -> None:
        """Cut it down to its end if it has grown long; what `tail` tells stays."""
        self.begins_at = max(self.begins_at - shorten_log(self.path), 0)

    def rename(self, path: Path) -> None:
        """Give it another name, when a spare becomes a profile's host.

        What was at *path* becomes `….1`.
        """
        with contextlib.suppress(OSError):
            rotate_log(path, limit_bytes=0)
            self.path.rename(path)
            self.path = path


def writable(path: Path) -> bool:
    """Whether it can be appended to; made when missing."""
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK
    try:
        os.close(os.open(path, flags, 0o600))
    except OSError:
        return False
    return True


def size_of(path: Path) -> int:
    """The bytes of a file; 0 when there is none."""
    try:
        return path.stat().st_size
    except OSError:
        return 0


def older(path: Path) -> Path:
    """Where the part goes that a log has no room for: `….1`."""
    return path.with_name(path.name + ".1")


def rotate_log(path: Path, *, limit_bytes: int = LOG_MAX_BYTES) -> None:
    """Move a log that is longer than *limit_bytes* out of the way, to `….1`."""
    with contextlib.suppress(OSError):
        if size_of(path) > limit_bytes:
            path.replace(older(path))
            keep_end(older(path), LOG_MAX_BYTES)


def shorten_log(path: Path, *, limit_bytes: int = LOG_MAX_BYTES) -> int:
    """Cut a log that is longer than *limit_bytes* down to its end, while somebody writes to it.

    What was there goes to `….1`, the last *limit_bytes* of it at most. Returns how many bytes less
    come before the end now. A log that cannot be changed stays as it is.
    """
    size = size_of(path)
    if size <= limit_bytes:
        return 0
    with contextlib.suppress(OSError):  # a full disk is all the more reason to go on
        _copy_range(path, size - limit_bytes, size, older(path))
    try:
        return keep_end(path, TAIL_BYTES)
    except OSError:
        return 0


def keep_end(path: Path, keep_bytes: int) -> int:
    """Cut a file down to its last *keep_bytes*, in place; returns how many bytes are gone.

    Whoever has it open for appending writes on behind them. The end is brought to the front before
    the rest is cut off, and what was appended meanwhile is brought along: the file never lacks
    its end, and nothing is lost but what is written within the last two system calls.

    Raises:
        OSError: It cannot be read or written.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        start = read_to = max(os.fstat(descriptor).st_size - keep_bytes, 0)
        if start == 0:
            return 0
        kept = 0
        for _ in range(keep_bytes // _CHUNK_BYTES + _CATCH_UP):
            chunk = os.pread(descriptor, _CHUNK_BYTES, read_to)
            if not chunk:
                break
            os.pwrite(descriptor, chunk, kept)
            read_to, kept = read_to + len(chunk), kept + len(chunk)
        os.ftruncate(descriptor, kept)
        return start
    finally:
        os.close(descriptor)


def last_lines(path: Path, lines: int, *, begins_at: int = 0) -> tuple[str, ...]:
    """The last *lines* that are not blank, of what was written from the byte *begins_at* on.

    Of a crash's dump of all stacks only its first line counts: what was printed before tells why.
    """
    try:
        with path.open("rb") as file:
            end = file.seek(0, os.SEEK_END)
            file.seek(max(min(begins_at, end), end - TAIL_BYTES))
            text = file.read().decode(errors="replace")
    except OSError:
        return ()
    said = [line.rstrip() for line in text.splitlines() if line.strip()]
    dump = next((n for n, line in enumerate(said) if line.startswith(_DUMP)), len(said))
    return tuple(said[: dump + 1][-lines:])


def _copy_range(path: Path, begin: int, end: int, to: Path) -> None:
    with path.open("rb") as source, open(to, "wb", opener=_private) as copy:
        source.seek(begin)
        while chunk := source.read(min(_CHUNK_BYTES, end - source.tell())):
            copy.write(chunk)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW, 0o600)
