"""Listening sockets that were open before this process: launchd's, systemd's, or stored there.

What the service manager holds survives a crash: connections wait in its backlog until the next
daemon accepts them. systemd and most others pass descriptors from 3 on and describe them in
`LISTEN_` variables (man sd_listen_fds); launchd is asked for them by name.
"""

import os
import socket
import sys
from collections.abc import Collection, MutableMapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import structlog


log: Final = structlog.get_logger("llmd.platform")

ADMIN_NAME: Final = "admin"
"""What the LaunchAgent and the socket unit call the admin socket."""

FIRST_FD: Final = 3
"""Where passed descriptors begin."""


def port_name(port: int) -> str:
    """What the LaunchAgent calls the sockets of *port*."""
    return f"port-{port}"


@dataclass(slots=True)
class Inherited:
    """Listening sockets that a service manager opened, or kept, for this process.

    They are the receiver's: neither inheritable nor blocking. Closing one does not close the
    service manager's; `shutdown` would.

    Attributes:
        ports: By port, each socket bound to one address.
        admin: The Unix socket at the admin path.
    """

    ports: dict[int, list[socket.socket]] = field(default_factory=dict)
    admin: socket.socket | None = None


def inherited(
    ports: Collection[int], admin: Path, environ: MutableMapping[str, str] = os.environ
) -> Inherited:
    """Collect them, whatever their ports, and close what is no use; to be called once.

    Args:
        ports: Those configured: launchd can only be asked by name. Passed descriptors are all
            taken, so that one of a port that is no longer configured can be closed knowingly.
        admin: Where the admin socket belongs.
        environ: Loses its `LISTEN_` variables: a child would take its own files for sockets.

    Raises:
        OSError: launchd has sockets for us and could not hand them over.
    """
    sockets = [sock for fd in _passed(environ) if (sock := _as_socket(fd)) is not None]
    if sys.platform == "darwin":
        from llmd.platform import darwin_launchd  # noqa: PLC0415 - loads libSystem

        for name in (*map(port_name, ports), ADMIN_NAME):
            sockets += darwin_launchd.activated(name)
    found = Inherited()
    addresses = set()
    for sock in sockets:
        address = (sock.family, sock.getsockname())
        if reason := "held twice" if address in addresses else _unusable(sock, admin):
            log.warning("socket.dropped", address=str(address[1]), reason=reason)
            sock.close()
            continue
        addresses.add(address)
        os.set_inheritable(sock.fileno(), False)  # noqa: FBT003
        sock.setblocking(False)  # noqa: FBT003
        if sock.family == socket.AF_UNIX:
            found.admin = sock
        else:
            found.ports.setdefault(address[1][1], []).append(sock)
    return found


def _passed(environ: MutableMapping[str, str]) -> list[int]:
    """Descriptors that the `LISTEN_` variables of *environ* give to this process."""
    taken = {name: environ.pop(name) for name in list(environ) if name.startswith("LISTEN_")}
    count = taken.get("LISTEN_FDS", "")
    if taken.get("LISTEN_PID") != str(os.getpid()) or not count.isdecimal():
        return []
    found = []
    for fd in range(FIRST_FD, FIRST_FD + int(count)):
        try:
            passed = os.get_inheritable(fd)
        except OSError:  # fewer than promised
            break
        if passed:  # else Python opened it since, and it is somebody's here
            found.append(fd)
    return found


def _as_socket(fd: int) -> socket.socket | None:
    try:
        return socket.socket(fileno=fd)
    except OSError:
        log.warning("socket.dropped", descriptor=fd, reason="not a socket")
        os.close(fd)
        return None


def _unusable(sock: socket.socket, admin: Path) -> str | None:
    """Why *sock* is none that we could accept from; None when it is."""
    if sock.type != socket.SOCK_STREAM or not _listens(sock):
        return "not a listening stream socket"
    if sock.family in (socket.AF_INET, socket.AF_INET6):
        return None
    if sock.family != socket.AF_UNIX:
        return "neither TCP nor Unix"
    name = sock.getsockname()
    if isinstance(name, str) and Path(name).resolve() == admin.resolve():
        return None
    return "not the admin socket"


def _listens(sock: socket.socket) -> bool:
    try:
        return bool(sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))
    except OSError:  # a kernel that does not say
        return True
