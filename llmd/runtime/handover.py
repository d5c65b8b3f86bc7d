"""What one image of this process passes to the next, when it re-executes itself.

Descriptors that are inheritable survive `exec`; which is which is written to a file without a name,
whose descriptor is in the environment. The next image may be of another version: what it cannot
read it does without, and binds its ports anew.
"""

import os
import socket
import tempfile
from collections.abc import MutableMapping
from typing import Final

import msgspec
import structlog
from msgspec import Struct, field

from llmd.platform.activation import Inherited
from llmd.platform.service import Manager
from llmd.platform.spawn import inheritable
from llmd.proxy.listener import Standing


VARIABLE: Final = "LLMD_HANDOVER"
_VERSION: Final = 1

log = structlog.get_logger("llmd.handover")


class Handover(Struct, frozen=True):
    """Open descriptors, which belong to whoever holds this.

    Attributes:
        standing: Listening sockets and idle connections, by port.
        managed: Ports that a service manager holds as well.
        admin: The admin socket, listening; None when there is none to pass.
        lock: The descriptor that holds the lock beside the admin socket.
        admin_managed: A service manager holds the admin socket as well.
        manager: Under which service manager this process runs.
        restarts: How often this process has re-executed itself, this time included.
        config: The text of the configuration that the restart has checked.
    """

    standing: dict[int, Standing] = field(default_factory=dict)
    managed: frozenset[int] = frozenset()
    admin: socket.socket | None = None
    lock: int | None = None
    admin_managed: bool = False
    manager: Manager | None = None
    restarts: int = 0
    config: str | None = None

    @classmethod
    def of_manager(cls, opened: Inherited, manager: Manager | None) -> "Handover":
        """What *manager* opened for us, in the same shape."""
        return cls(
            standing={port: Standing(tuple(socks), ()) for port, socks in opened.ports.items()},
            managed=frozenset(opened.ports),
            admin=opened.admin,
            admin_managed=opened.admin is not None,
            manager=manager,
        )


class _Client(msgspec.Struct, frozen=True):
    fd: int
    unread: bytes


class _Port(msgspec.Struct, frozen=True):
    listening: tuple[int, ...]
    clients: tuple[_Client, ...]


class _Letter(msgspec.Struct, frozen=True, kw_only=True):
    version: int
    pid: int
    ports: dict[int, _Port]
    managed: tuple[int, ...]
    admin: int | None
    lock: int | None
    admin_managed: bool
    manager: Manager | None
    restarts: int
    config: str | None = None

    def descriptors(self) -> list[int]:
        """All that are named."""
        named = [fd for fd in (self.admin, self.lock) if fd is not None]
        for port in self.ports.values():
            named += [*port.listening, *(client.fd for client in port.clients)]
        return named


def write(handover: Handover) -> dict[str, str]:
    """Make everything in *handover* survive `exec`; returns the variables that tell of it.

    Raises:
        OSError: The letter cannot be written.
    """
    letter = _Letter(
        version=_VERSION,
        pid=os.getpid(),
        ports={
            port: _Port(
                tuple(sock.fileno() for sock in standing.listening),
                tuple(_Client(sock.fileno(), unread) for sock, unread in standing.clients),
            )
            for port, standing in handover.standing.items()
        },
        managed=tuple(handover.managed),
        admin=None if handover.admin is None else handover.admin.fileno(),
        lock=handover.lock,
        admin_managed=handover.admin_managed,
        manager=handover.manager,
        restarts=handover.restarts,
        config=handover.config,
    )
    with tempfile.TemporaryFile() as file:
        file.write(msgspec.json.encode(letter))
        file.flush()
        own = os.dup(file.fileno())
    for fd in (own, *letter.descriptors()):
        os.set_inheritable(fd, True)  # noqa: FBT003
    return {VARIABLE: str(own)}


def read(environ: MutableMapping[str, str] = os.environ) -> Handover | None:
    """What the image before left to this one; None when there was none. To be called once.

    Descriptors are no longer inheritable afterwards.
    """
    text = environ.pop(VARIABLE, "")
    if not text.isdecimal():
        return None
    try:
        with open(int(text), "rb") as file:  # noqa: PTH123 - a descriptor
            file.seek(0)
            letter = msgspec.json.decode(file.read(), type=_Letter)
        if letter.pid != os.getpid() or letter.version != _VERSION:
            raise ValueError(f"version {letter.version} of process {letter.pid}")
    except (OSError, ValueError) as error:  # a DecodeError is a ValueError
        log.warning("handover.unusable", reason=str(error))
        for fd in inheritable():
            os.close(fd)  # what was meant for us: ports and the lock would stay taken
        return None
    for fd in letter.descriptors():
        os.set_inheritable(fd, False)  # noqa: FBT003
    return Handover(
        standing={
            port: Standing(
                tuple(socket.socket(fileno=fd) for fd in entry.listening),
                tuple((socket.socket(fileno=client.fd), client.unread) for client in entry.clients),
            )
            for port, entry in letter.ports.items()
        },
        managed=frozenset(letter.managed),
        admin=None if letter.admin is None else socket.socket(fileno=letter.admin),
        lock=letter.lock,
        admin_managed=letter.admin_managed,
        manager=letter.manager,
        restarts=letter.restarts,
        config=letter.config,
    )
