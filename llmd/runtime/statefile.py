"""Small files of state: replaced in one step, and never fatal when they are damaged."""

import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Final, TypeVar


T = TypeVar("T")

FILE_MAX_BYTES: Final = 2**20


def read_state(path: Path, parse: Callable[[bytes], T]) -> tuple[T | None, str | None]:
    """What is in *path*, and what is wrong with it, for the log; both None when it is not there.

    *parse* raises ValueError (or a subclass) for what it cannot use. Whatever cannot be used is set
    aside as `….damaged`, because the next write replaces what is there.
    """
    try:
        return parse(_content(path)), None
    except FileNotFoundError:
        return None, None
    except OSError as error:
        wrong = f"cannot be read ({error.strerror})"
    except (ValueError, RecursionError):
        wrong = "was damaged"
    aside = path.with_name(f"{path.name}.damaged")
    try:
        path.replace(aside)
    except OSError as error:
        return None, f"{path} {wrong}, and cannot be set aside: {error.strerror}"
    return None, f"{path} {wrong} and is now {aside.name}"


def _content(path: Path) -> bytes:
    with open(path, "rb", opener=_at_once) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise ValueError("it is no file")
        content = file.read(FILE_MAX_BYTES + 1)
    if len(content) > FILE_MAX_BYTES:
        raise ValueError("it is too large")
    return content


def _at_once(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)  # a pipe would wait for a writer
