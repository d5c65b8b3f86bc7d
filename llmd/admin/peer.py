"""Who is at the other end of a Unix socket, as the kernel tells it."""

import os
import socket
import struct
import sys
from contextlib import suppress
from typing import Final


_LOCAL_PEERPID: Final = 2  # of SOL_LOCAL (0), in <sys/un.h> of macOS; not in Python's socket module


def peer_uid(fd: int) -> int:
    """The user id at the other end of the connected Unix socket *fd*, fixed when it connected.

    For a client it is whoever began to listen: the daemon's user, or root where launchd or systemd
    opened the socket for it.

    Raises:
        OSError: The peer is gone, or this is no Unix socket.
    """
    if sys.platform == "linux":
        return _linux_credentials(fd)[1]
    import ctypes  # noqa: PLC0415  # llmd-ctl on Linux does without

    uid, gid = ctypes.c_uint32(), ctypes.c_uint32()
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.getpeereid(fd, ctypes.byref(uid), ctypes.byref(gid)) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return uid.value


def peer_pid(sock: socket.socket) -> int | None:
    """The process at the other end, for a message; nothing may be decided by it."""
    with suppress(OSError):
        if sys.platform == "linux":
            return _linux_credentials(sock.fileno())[0]
        return sock.getsockopt(0, _LOCAL_PEERPID)
    return None


def _linux_credentials(fd: int) -> tuple[int, int, int]:
    # A transport of uvloop gives its descriptor but no getsockopt. Borrowed, not duplicated: there
    # may be no descriptor left.
    peer = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM, fileno=fd)
    try:
        size = struct.calcsize("3i")
        option = getattr(socket, "SO_PEERCRED", 17)  # macOS has none, and mypy may run there
        pid, uid, gid = struct.unpack("3i", peer.getsockopt(socket.SOL_SOCKET, option, size))
    finally:
        peer.detach()
    return pid, uid, gid
