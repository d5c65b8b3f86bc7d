"""Which program listens on a port."""

import psutil


def who_listens(port: int) -> tuple[str, int] | None:
    """Name and pid of the program that listens on *port*, as far as this user may know.

    Asks each process by itself: on macOS the question for all at once needs root.
    """
    for process in psutil.process_iter(["name"]):
        try:
            connections = process.net_connections(kind="tcp")
        except (psutil.Error, OSError):
            continue
        for connection in connections:
            if connection.status == psutil.CONN_LISTEN and connection.laddr.port == port:
                return process.info["name"] or "a program", process.pid
    return None
