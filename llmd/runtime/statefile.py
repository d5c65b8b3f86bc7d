"""Small files of state: replaced in one step, and never fatal when they are damaged."""

import contextlib
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Final, TypeVar


T = TypeVar("T")

FILE_MAX_BYTES: Final = 2**20


def read_state(path: Path, parse: Callable[[bytes], T]) -> tuple[T | None, str | None]:
    """What is in *path*, and what is wrong with it, for the log; both None when it is not there.

    *parse* raises ValueError (or a subclass) for what it cannot use. Such a file is set aside as
    `….damaged`.
    """
    try:
        with path.open("rb") as file:
            raw = file.read(FILE_MAX_BYTES + 1)
    except FileNotFoundError:
        return None, None
    except OSError as error:
        return None, f"{path} cannot be read: {error.strerror}"
    try:
        if len(raw) > FILE_MAX_BYTES:
            raise ValueError("it is too large")
        return parse(raw), None
    except (ValueError, RecursionError):
        aside = path.with_name(f"{path.name}.damaged")
        with contextlib.suppress(OSError):
            path.replace(aside)
        return None, f"{path} was damaged and is now {aside.name}"


def write_state(path: Path, content: bytes) -> None:
    """Replace *path* in one step, readable by its owner alone; makes its directory.

    Whenever the process is killed, the file is the old one or the new one. After a power failure it
    may be neither; `read_state` copes.

    Raises:
        OSError: The directory cannot be written to; the old file is as it was.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    # mkstemp makes the file 0600.
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
