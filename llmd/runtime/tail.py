"""The end of a log file, and what is added to it."""

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final


FOLLOW_S: Final = 0.25
TAIL_BYTES: Final = 1 << 20


async def tail_file(path: Path, *, follow: bool, lines: int) -> AsyncIterator[str]:
    """The last *lines* lines of *path*, then, with *follow*, each new one.

    Follows the name: when the file is replaced or truncated, the new one is read from its start. A
    file that is not there yet has no lines.
    """
    text, position, inode = _end(path)
    for line in text.splitlines()[-lines:] if lines else ():
        yield line
    rest = ""
    while follow:
        await asyncio.sleep(FOLLOW_S)
        try:
            with path.open("rb") as file:
                status = os.fstat(file.fileno())
                if status.st_ino != inode or status.st_size < position:
                    position, inode, rest = 0, status.st_ino, ""
                file.seek(position)
                fresh = file.read(TAIL_BYTES)
        except OSError:
            continue
        position += len(fresh)
        *whole, rest = (rest + fresh.decode(errors="replace")).split("\n")
        for line in whole:
            yield line


def _end(path: Path) -> tuple[str, int, int]:
    """The last part of *path*, its size, and which file it is."""
    try:
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
            file.seek(max(status.st_size - TAIL_BYTES, 0))
            return file.read().decode(errors="replace"), status.st_size, status.st_ino
    except OSError:
        return "", 0, 0
