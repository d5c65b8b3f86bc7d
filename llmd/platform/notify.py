"""Telling the service manager how this process is: systemd's notification protocol.

Datagrams of `NAME=value` lines to the socket that `NOTIFY_SOCKET` names (man sd_notify). Without
one, as under launchd or in a terminal, every call does nothing.
"""

import os
import socket
import time
from collections.abc import MutableMapping, Sequence
from typing import Final, Self

import structlog


log: Final = structlog.get_logger("llmd.platform")

_FDS_PER_MESSAGE: Final = 253
"""The kernel refuses more (SCM_MAX_FD)."""

_TAKEN: Final = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")


class Notifier:
    """The way to the service manager. No call raises or blocks; what cannot be sent is dropped.

    Attributes:
        environ: The variables that were taken. A new image of this process (`execve`) needs them;
            any other process would speak in our name.
        watchdog_s: Longest pause between two calls of `watchdog`, in seconds: half of what the
            service manager tolerates. None when it does not watch this process.
    """

    def __init__(self, environ: dict[str, str]) -> None:
        self.environ = environ
        self.watchdog_s = _watchdog_s(environ)
        self._address = _address(environ.get("NOTIFY_SOCKET", ""))
        self._failed = False

    @classmethod
    def from_environ(cls, environ: MutableMapping[str, str] = os.environ) -> Self:
        """Take the service manager's variables out of *environ*: hosts must not inherit them."""
        return cls({name: environ.pop(name) for name in _TAKEN if name in environ})

    def ready(self, status: str = "") -> None:
        """Start-up, or the reload that `reloading` announced, is done."""
        self._send("READY=1", *([_status(status)] if status else ()))

    def reloading(self) -> None:
        """The configuration is being read again, or a new image takes over; `ready` ends it."""
        # Newer versions want to know when, to tell this reload from an earlier one.
        self._send("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def stopping(self) -> None:
        """This process is about to end."""
        self._send("STOPPING=1")

    def watchdog(self) -> None:
        """The event loop turns."""
        self._send("WATCHDOG=1")

    def status(self, text: str) -> None:
        """Set the line that `systemctl status` shows."""
        self._send(_status(text))

    def extend(self, seconds: float) -> None:
        """Ask for *seconds* more, from now, to start or to stop."""
        self._send(f"EXTEND_TIMEOUT_USEC={round(seconds * 1e6)}")

    def store(self, name: str, sockets: Sequence[socket.socket]) -> None:
        """Leave duplicates of *sockets* with the service manager, for the next start.

        They come back as if they were its own (`activation.inherited`) after a crash or a restart.
        Storing the same open socket again changes nothing.

        Args:
            name: What `discard` will call them: ASCII, no colon, 255 characters at most.
            sockets: Ours remain ours.
        """
        for start in range(0, len(sockets), _FDS_PER_MESSAGE):
            batch = [sock.fileno() for sock in sockets[start : start + _FDS_PER_MESSAGE]]
            self._send("FDSTORE=1", f"FDNAME={name}", descriptors=batch)

    def discard(self, name: str) -> None:
        """Have the service manager close everything stored as *name*."""
        self._send("FDSTOREREMOVE=1", f"FDNAME={name}")

    def _send(self, *lines: str, descriptors: Sequence[int] = ()) -> None:
        if self._address is None:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
                sock.setblocking(False)  # noqa: FBT003
                sock.connect(self._address)
                message = "\n".join(lines).encode(errors="replace")
                if descriptors:
                    socket.send_fds(sock, [message], list(descriptors))
                else:
                    sock.send(message)
        except OSError as error:  # nobody there, or too busy to read
            if not self._failed:
                log.warning("notification.dropped", message=lines[0], reason=str(error))
            self._failed = True
        else:
            self._failed = False


def _address(name: str) -> str | None:
    """Where to send, as `connect` wants it; None when there is nowhere."""
    if name.startswith("@"):
        return f"\0{name[1:]}"
    if name.startswith("/"):
        return name
    if name:
        log.warning(
            "notification.unsupported", address=name
        )  # vsock: from inside a virtual machine
    return None


def _watchdog_s(environ: MutableMapping[str, str]) -> float | None:
    limit_us, pid = environ.get("WATCHDOG_USEC", ""), environ.get("WATCHDOG_PID")
    if not limit_us.isdecimal() or not int(limit_us) or pid not in (None, str(os.getpid())):
        return None
    return int(limit_us) / 2e6


def _status(text: str) -> str:
    return f"STATUS={' '.join(text.split())}"
