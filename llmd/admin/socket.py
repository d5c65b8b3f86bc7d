"""The control socket: bound safely, by one daemon at a time.

asyncio's `create_unix_server(path)` unlinks a file that is in the way even when a live daemon
listens on it, so that a second daemon would silently take over the name. Here a lock decides, and a
file is only removed once nobody answers behind it.
"""

import errno
import fcntl
import os
import socket
import stat
from contextlib import suppress
from pathlib import Path
from typing import Final

from llmd.admin.directory import UnsafeSocketError, prepare_directory
from llmd.admin.peer import peer_pid
from llmd.config.paths import SOCKET_PATH_MAX_BYTES
from llmd.errors import AlreadyRunningError


BACKLOG: Final = 128
_DIAL_TIMEOUT_S: Final = 2.0
_PRIVATE_UMASK: Final = 0o177


class ControlSocket:
    """A listening socket at *path*, and the lock that makes it the only one.

    `close` removes the file, if it is still ours, and releases the lock. The lock file stays: with
    its removal two daemons could each hold a lock on a file of that name.
    """

    def __init__(
        self,
        path: Path,
        *,
        sock: socket.socket | None = None,
        lock: int | None = None,
        managed: bool = False,
    ) -> None:
        """Bind and listen, or use what is open already.

        Args:
            path: Where the socket is, or will be.
            sock: A socket that listens at *path*: a service manager's, or an earlier image's.
            lock: The descriptor of a lock that an earlier image took.
            managed: The file is a service manager's: it stays.

        Raises:
            AlreadyRunningError: Another daemon owns the path.
            UnsafeSocketError: The path is too long, its directory is not private or was exchanged
                meanwhile, or something that is no socket is in the way.
        """
        self.path = path
        self.managed = managed
        check_length(path)
        directory = prepare_directory(path.parent)
        self._lock_fd = _lock(path) if lock is None else lock
        try:
            if sock is None:
                _clear_the_way(path)
                sock = _bind(path)
            self.sock = sock
            self._inode = self._verified(directory)
        except BaseException:
            if sock is not None:
                sock.close()
            os.close(self._lock_fd)
            raise

    def _verified(self, directory: os.stat_result) -> int:
        """See that the path leads to our socket in *directory*; returns the file's inode."""
        now, found = self.path.parent.lstat(), self.path.lstat()
        if (now.st_dev, now.st_ino) != (directory.st_dev, directory.st_ino):
            raise UnsafeSocketError(
                f"somebody exchanged the directory {self.path.parent} while llmd started",
                remedy="choose another with --socket or LLMD_SOCKET",
            )
        # Whose a service manager's file is, and of which mode, is the manager's business.
        private = self.managed or (found.st_uid == os.getuid() and not found.st_mode & 0o077)
        if not stat.S_ISSOCK(found.st_mode) or not private:
            raise UnsafeSocketError(
                f"{self.path} is not the private socket that llmd made",
                remedy=f"remove {self.path}, or choose another path with --socket or LLMD_SOCKET",
            )
        return found.st_ino

    def close(self) -> None:
        """Stop listening and make way for the next daemon. Idempotent."""
        if self._lock_fd < 0:
            return
        self.sock.close()
        with suppress(FileNotFoundError):
            if not self.managed and self.path.lstat().st_ino == self._inode:
                self.path.unlink()
        os.ftruncate(self._lock_fd, 0)
        os.close(self._lock_fd)
        self._lock_fd = -1

    def hand_over(self) -> tuple[socket.socket, int]:
        """The socket and the lock, for another image of this process; `close` then does nothing.

        Who connects meanwhile waits.
        """
        lock, self._lock_fd = self._lock_fd, -1
        return self.sock, lock


def check_length(path: Path) -> None:
    """Refuse a path that the kernel would truncate or reject. Counts bytes, as the kernel does.

    Raises:
        UnsafeSocketError: It does not fit.
    """
    length = len(os.fsencode(path))
    if length > SOCKET_PATH_MAX_BYTES:
        raise UnsafeSocketError(
            f"the socket path {path} is {length} bytes long; at most {SOCKET_PATH_MAX_BYTES} fit",
            remedy="choose a shorter one with --socket or LLMD_SOCKET",
        )


def _lock(path: Path) -> int:
    """Take the lock beside *path*, write our pid into it, and return its descriptor."""
    lock = path.with_name(f"{path.name}.lock")
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        fd = os.open(lock, flags, 0o600)
    except OSError as error:
        raise UnsafeSocketError(
            f"cannot open the lock file {lock}: {error.strerror}", remedy=f"remove {lock}"
        ) from error
    found = os.fstat(fd)
    if not stat.S_ISREG(found.st_mode) or found.st_nlink != 1:
        os.close(fd)
        kind = "has another name, too" if stat.S_ISREG(found.st_mode) else "is no regular file"
        raise UnsafeSocketError(f"the lock file {lock} {kind}", remedy=f"remove {lock}")
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        owner = os.pread(fd, 32, 0).decode(errors="replace").strip()
        os.close(fd)
        raise _rival(path, int(owner) if owner.isdigit() else None) from None
    os.ftruncate(fd, 0)
    os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
    return fd


def _clear_the_way(path: Path) -> None:
    """Remove a socket file that nobody listens on; insist that there is nothing else."""
    try:
        found = path.lstat()
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(found.st_mode):
        kind = "a symbolic link" if stat.S_ISLNK(found.st_mode) else "not a socket"
        raise UnsafeSocketError(
            f"{path} is in the way: it is {kind}",
            remedy="remove it, or choose another path with --socket or LLMD_SOCKET",
        )
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(_DIAL_TIMEOUT_S)
        try:
            probe.connect(os.fspath(path))
        except (ConnectionRefusedError, FileNotFoundError):
            pass
        except OSError as error:
            # A full backlog: somebody listens, and is too busy to accept.
            if isinstance(error, TimeoutError) or error.errno == errno.EAGAIN:
                raise _rival(path, None) from None
            raise UnsafeSocketError(
                f"cannot tell whether a daemon listens on {path}: {error.strerror}",
                remedy=f"remove {path} if none does",
            ) from error
        else:
            raise _rival(path, peer_pid(probe))
    with suppress(FileNotFoundError):
        path.unlink()


def _bind(path: Path) -> socket.socket:
    """Bind with mode 0600 from the first moment; a chmod afterwards would leave a gap."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    before = os.umask(_PRIVATE_UMASK)
    try:
        sock.bind(os.fspath(path))
        sock.listen(BACKLOG)
        sock.settimeout(0)
    except BaseException:
        sock.close()
        raise
    finally:
        os.umask(before)
    return sock


def _rival(path: Path, pid: int | None) -> AlreadyRunningError:
    who = f"another llmd (pid {pid})" if pid else "another llmd"
    return AlreadyRunningError(
        f"{who} owns {path}", remedy=f"stop it with `llmd-ctl --socket {path} stop`"
    )
