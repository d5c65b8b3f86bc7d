"""The control socket's directory: private, and nobody else can put another in its place."""

import os
import stat
from itertools import chain
from pathlib import Path
from typing import Final

from llmd.errors import LlmdError


_NOBODY: Final = 65534
"""Who owns root's directories inside a user namespace, as containers and `PrivateUsers=` make."""


class UnsafeSocketError(LlmdError):
    """The control socket's path cannot be used, or others could reach it."""

    code = "socket_unsafe"


def prepare_directory(directory: Path) -> os.stat_result:
    """Make *directory* if it is missing; insist that it is ours, private, and stays so.

    Returns what it is, for a look later whether it still is the same.

    Raises:
        UnsafeSocketError: It is another user's, open to others, a symbolic link or no directory, or
            somebody else may rename a directory that leads to it.
    """
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = directory.lstat()
    except FileExistsError:
        found = directory.lstat()
    except OSError as error:
        raise UnsafeSocketError(
            f"cannot make the socket's directory {directory}: {error.strerror}",
            remedy="choose another with --socket or LLMD_SOCKET",
        ) from error
    if stat.S_ISLNK(found.st_mode) or not stat.S_ISDIR(found.st_mode):
        kind = "a symbolic link" if stat.S_ISLNK(found.st_mode) else "no directory"
        raise UnsafeSocketError(
            f"the socket's directory {directory} is {kind}",
            remedy="remove it, or choose another with --socket or LLMD_SOCKET",
        )
    if found.st_uid != os.getuid():
        raise UnsafeSocketError(
            f"the socket's directory {directory} belongs to user {found.st_uid}, not to you",
            remedy="choose another with --socket or LLMD_SOCKET",
        )
    if found.st_mode & 0o077:
        raise UnsafeSocketError(
            f"the socket's directory {directory} is open to others "
            f"(mode {stat.S_IMODE(found.st_mode):04o})",
            remedy=f"chmod 700 {directory}, or choose another with --socket or LLMD_SOCKET",
        )
    _check_way(directory)
    return found


def _check_way(directory: Path) -> None:
    """Insist that only root and we can rename what leads to *directory*, or a link on the way."""
    for step in dict.fromkeys(chain(directory.parents, directory.resolve().parents)):
        found = step.stat()
        mode = stat.S_IMODE(found.st_mode)
        if strangers := {step.lstat().st_uid, found.st_uid} - {0, _NOBODY, os.getuid()}:
            why, remedy = f"belongs to user {strangers.pop()}", ""
        elif mode & stat.S_ISVTX:
            continue  # as /tmp: there everybody renames their own alone
        elif mode & stat.S_IWOTH or (mode & stat.S_IWGRP and found.st_gid not in {0, os.getgid()}):
            why, remedy = f"can be written by others (mode {mode:04o})", f"chmod go-w {step}, or "
        else:
            continue
        raise UnsafeSocketError(
            f"the socket's directory {directory} is not safe: {step} {why}, "
            "who could put another in its place",
            remedy=f"{remedy}choose another with --socket or LLMD_SOCKET",
        )
