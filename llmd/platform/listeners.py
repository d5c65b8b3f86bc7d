"""Which programs listen on which ports."""

import errno
import socket
from collections.abc import Collection

import psutil


def who_listens(port: int) -> tuple[str, int] | None:
    """Name and pid of the program that listens on *port*, as far as this user may know."""
    return listeners({port}).get(port)


def listeners(ports: Collection[int]) -> dict[int, tuple[str, int]]:
    """The same for several ports at once; those of which nothing is known are left out.

    Asks each process by itself: on macOS the question for all at once needs root.
    """
    found: dict[int, tuple[str, int]] = {}
    for process in psutil.process_iter(["name"]):
        try:
            connections = process.net_connections(kind="tcp")
        except (psutil.Error, OSError):
            continue
        for connection in connections:
            port = connection.laddr.port if connection.laddr else 0
            if connection.status == psutil.CONN_LISTEN and port in ports:
                found.setdefault(port, (process.info["name"] or "a program", process.pid))
        if len(found) == len(ports):
            break
    return found


def is_taken(address: str, port: int) -> bool:
    """Whether somebody listens on *port* of *address*, whoever it is. Connects to nobody."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            # Connections that have just ended do not count.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((address, port))
    except OSError as error:
        return error.errno == errno.EADDRINUSE
    return False
