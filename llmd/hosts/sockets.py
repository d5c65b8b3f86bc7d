"""Private Unix sockets, 0600 and for processes of the same user only; and HTTP over any."""

import contextlib
import http.client
import json
import os
import socket
import struct
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final


_BACKLOG: Final = 512
"""More than `parallel` may be: Linux refuses whoever connects to a Unix socket beyond it."""


def listen(path: Path) -> socket.socket:
    """A listening socket at *path*, mode 0600, in place of whatever was there.

    Sets the process's umask for a moment, so threads must not be creating files meanwhile.

    Raises:
        OSError: The path is too long for a socket, or its directory cannot be written.
    """
    with contextlib.suppress(FileNotFoundError):
        path.unlink()
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    mask = os.umask(0o177)  # a chmod after bind would leave a gap
    try:
        listener.bind(os.fspath(path))
        listener.listen(_BACKLOG)
    except OSError:
        listener.close()
        raise
    finally:
        os.umask(mask)
    return listener


def same_user(connection: socket.socket) -> bool:
    """Whether the process at the other end runs as our user."""
    try:
        if sys.platform == "darwin":
            # struct xucred: u32 version, u32 uid, …; level SOL_LOCAL, name LOCAL_PEERCRED
            _, uid = struct.unpack_from("=II", connection.getsockopt(0, 1, 76))
        else:
            credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
            _, uid, _ = struct.unpack("=iII", credentials)
    except OSError:
        return False
    return bool(uid == os.geteuid())


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path, timeout_s: float | None) -> None:
        super().__init__("localhost", timeout=timeout_s)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(os.fspath(self._path))


def http_connection(place: Path | int, *, timeout_s: float | None) -> http.client.HTTPConnection:
    """A connection, not yet made, to a server at a Unix socket, or at a port on loopback.

    *timeout_s* is for each step of it; None waits for ever.
    """
    if isinstance(place, Path):
        return _UnixConnection(place, timeout_s)
    return http.client.HTTPConnection("127.0.0.1", place, timeout=timeout_s)


def ask(
    server: Path | int,
    method: str,
    path: str,
    body: Any = None,
    *,
    headers: Mapping[str, str] | None = None,
    timeout_s: float | None,
    most_bytes: int = 2**20,
) -> tuple[int, str]:
    """One request on a connection of its own, with *body* as JSON: the status, and what was said.

    Of an answer *most_bytes* are read. *timeout_s* is for each step; None waits for ever.

    Raises:
        OSError, http.client.HTTPException: There was no answer.
    """
    if timeout_s is not None:
        timeout_s = max(timeout_s, 0.001)
    connection = http_connection(server, timeout_s=timeout_s)
    try:
        sent = {**(headers or {}), "Connection": "close"}
        if body is not None:
            sent["Content-Type"] = "application/json"
            body = json.dumps(body)
        connection.request(method, path, body, sent)
        response = connection.getresponse()
        return response.status, response.read(most_bytes).decode(errors="replace")
    finally:
        connection.close()
