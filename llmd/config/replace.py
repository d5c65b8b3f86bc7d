"""Files that are replaced as a whole: whoever is killed leaves the old one or the new one."""

import contextlib
import fcntl
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Final


PRIVATE: Final = 0o600
"""Of a file that its owner alone may read."""


def replace_file(
    path: Path,
    content: bytes,
    *,
    lasting: bool,
    mode: int = PRIVATE,
    check: Callable[[], None] = lambda: None,
) -> None:
    """Put *content* in the place of *path* in one step; makes its directory.

    It is written to `.NAME.new` beside it, by one process at a time. Of one that was killed this
    file may be left; the next replacement uses it up, so there is never more than one.

    Args:
        path: The file; a link there is replaced, not followed.
        content: All of it.
        lasting: Whether it is to outlive a power failure: then the file reaches the disk before it
            gets its name, and the name before this returns. Otherwise a power failure may leave
            neither the old file nor the new one.
        mode: Of the new file, whatever the umask.
        check: Called when all is written and nothing is replaced; what it raises prevents that.

    Raises:
        OSError: It cannot be written, or another process is writing it; the old file is as it was.
    """
    private_directory(path.parent)
    new = path.with_name(f".{path.name}.new")
    with open(_claim(new), "wb") as file:  # a descriptor
        try:
            os.fchmod(file.fileno(), mode)
            file.write(content)
            file.flush()
            if lasting:
                os.fsync(file.fileno())
            check()
            new.replace(path)  # while it is locked: nobody else takes it for left behind
        except BaseException:
            with contextlib.suppress(OSError):
                new.unlink()
            raise
    if lasting:
        _sync_directory(path.parent)


def private_directory(path: Path) -> None:
    """Make *path*, and all that it lies in, for its owner alone; what is there stays as it is.

    (`Path.mkdir` gives the mode to the last one only, and the umask decides about the others.)

    Raises:
        OSError: It cannot be made.
    """
    missing = [each for each in (path, *path.parents) if not each.exists()]
    for directory in reversed(missing):
        directory.mkdir(mode=0o700, exist_ok=True)


def _claim(new: Path) -> int:
    """An empty file at *new*, open and locked."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    while True:
        descriptor = os.open(new, flags, PRIVATE)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            ours = os.fstat(descriptor)
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(ours, new.lstat()):
                    if stat.S_ISREG(ours.st_mode) and ours.st_nlink == 1:
                        os.ftruncate(descriptor, 0)
                        return descriptor
                    new.unlink()  # of another kind, or somebody's file under a second name
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)  # it has got its name meanwhile, or is out of the way


def _sync_directory(directory: Path) -> None:
    """Have a new name in *directory* reach the disk, where its file system can do that."""
    with contextlib.suppress(OSError):
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
