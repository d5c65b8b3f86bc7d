"""Opening a port: one bound socket for each address of this machine that is wanted."""

import errno
import os
import socket
from collections.abc import Iterable
from typing import Final


_PROBE_S: Final = 0.2
_NO_IPV6: Final = frozenset({errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT})


def bind(hosts: Iterable[str], port: int) -> list[socket.socket]:
    """Sockets bound to *port* on each of *hosts*; with 0, all to the one that the kernel chooses.

    A machine without IPv6 does without `::1`.

    Raises:
        OSError: One cannot be bound; `errno.EADDRINUSE` when another program has it. None is left.
    """
    bound: list[socket.socket] = []
    try:
        for host in hosts:
            sock = _bind_one(host, port)
            if sock is None:
                continue
            bound.append(sock)
            port = sock.getsockname()[1]
    except OSError:
        for sock in bound:
            sock.close()
        raise
    return bound


def _bind_one(host: str, port: int) -> socket.socket | None:
    """A bound socket; None for an IPv6 address on a machine without IPv6."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    if port and _somebody_answers(family, host, port):
        raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))
    try:
        sock = socket.socket(family, socket.SOCK_STREAM)
    except OSError:
        if family == socket.AF_INET6:
            return None
        raise
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind((host, port))
    except OSError as exc:
        sock.close()
        if host == "::1" and exc.errno in _NO_IPV6:
            return None
        raise
    return sock


def _somebody_answers(family: int, host: str, port: int) -> bool:
    """Whether a program listens there already.

    macOS lets 127.0.0.1 be bound although somebody else listens on all addresses, and divides the
    connections between the two as it sees fit.
    """
    try:
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.settimeout(_PROBE_S)
            return probe.connect_ex((host, port)) == 0
    except OSError:
        return False
