"""What hosts print: one file per profile, 0600, never very long."""

import contextlib
import os
from pathlib import Path
from typing import Final


LOG_MAX_BYTES: Final = 4 * 2**20
"""A log that is longer when a host starts is moved out of the way."""

_TAIL_BYTES: Final = 64 * 1024


def size_of(path: Path) -> int:
    """The bytes of a file; 0 when there is none."""
    try:
        return path.stat().st_size
    except OSError:
        return 0


def rotate_log(path: Path, *, limit_bytes: int = LOG_MAX_BYTES) -> None:
    """Move a log that is longer than *limit_bytes* out of the way, to `….1`."""
    with contextlib.suppress(OSError):
        if size_of(path) > limit_bytes:
            path.replace(path.with_name(path.name + ".1"))


def last_lines(path: Path, lines: int, *, begins_at: int = 0) -> tuple[str, ...]:
    """The last *lines* that are not blank, of what was written from the byte *begins_at* on."""
    try:
        with path.open("rb") as file:
            end = file.seek(0, os.SEEK_END)
            file.seek(max(min(begins_at, end), end - _TAIL_BYTES))
            text = file.read().decode(errors="replace")
    except OSError:
        return ()
    return tuple(line.rstrip() for line in text.splitlines() if line.strip())[-lines:]
