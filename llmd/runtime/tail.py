"""The end of a log file, and what is added to it."""

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final


FOLLOW_S: Final = 0.25
TAIL_BYTES: Final = 1 << 20
_KNOWN_BYTES: Final = 1024
"""By which the place is found again in a log that was shortened (`host_log.keep_end`)."""


async def tail_file(path: Path, *, follow: bool, lines: int) -> AsyncIterator[str]:
    """The last *lines* lines of *path*, then, with *follow*, each new one.

    Follows the name: when the file is replaced or truncated, the new one is read from its start;
    when it was cut down to its end, from where the last line was. A file that is not there yet has
    no lines.
    """
    last, position, inode = _end(path)
    for line in last.decode(errors="replace").splitlines()[-lines:] if lines else ():
        yield line
    known, rest = last[-_KNOWN_BYTES:], ""
    while follow:
        await asyncio.sleep(FOLLOW_S)
        try:
            with path.open("rb") as file:
                status = os.fstat(file.fileno())
                if status.st_ino != inode:
                    position, inode, rest = 0, status.st_ino, ""
                elif status.st_size < position:
                    # What is too short to have been cut down is new, and so is what looks new.
                    whole = len(known) == _KNOWN_BYTES
                    found = file.read(TAIL_BYTES).rfind(known) if whole else -1
                    position, rest = (found + len(known), rest) if found >= 0 else (0, "")
                file.seek(position)
                fresh = file.read(TAIL_BYTES)
        except OSError:
            continue
        position += len(fresh)
        known = (known + fresh)[-_KNOWN_BYTES:]
        *done, rest = (rest + fresh.decode(errors="replace")).split("\n")
        for line in done:
            yield line


def _end(path: Path) -> tuple[bytes, int, int]:
    """The last part of *path*, where it ends, and which file it is."""
    try:
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
            start = file.seek(max(status.st_size - TAIL_BYTES, 0))
            last = file.read()
            return last, start + len(last), status.st_ino
    except OSError:
        return b"", 0, 0
