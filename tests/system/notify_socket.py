"""The service manager's end of the notification protocol: datagrams, their senders, their files."""

import array
import contextlib
import os
import socket
import struct
import sys
from dataclasses import dataclass, field


@dataclass
class Message:
    """What a service said.

    Attributes:
        fields: By name.
        fds: Descriptors that came along; the receiver's.
        pid: The sender; None where nobody tells.
    """

    fields: dict[str, str]
    fds: list[int] = field(default_factory=list)
    pid: int | None = None


class NotifySocket:
    def __init__(self, path):
        self._sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._sock.bind(str(path))
        self.path = str(path)
        if sys.platform == "linux":
            self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)

    def receive(self, timeout_s=None):
        """The next message; None when *timeout_s* passed first."""
        self._sock.settimeout(timeout_s)
        room = socket.CMSG_SPACE(253 * 4) + socket.CMSG_SPACE(12)
        try:
            text, parts, _, _ = self._sock.recvmsg(65536, room)
        except TimeoutError:
            return None
        lines = text.decode(errors="replace").split("\n")
        message = Message(dict(line.partition("=")[::2] for line in lines))
        for _, kind, content in parts:
            if kind == socket.SCM_RIGHTS:
                fds = array.array("i", content[: len(content) // 4 * 4])
                message.fds += fds
            elif sys.platform == "linux" and kind == socket.SCM_CREDENTIALS:
                message.pid = struct.unpack("3i", content)[0]
        for fd in message.fds:
            os.set_inheritable(fd, 0)
        return message

    def wake(self):
        """Have the reader receive something, with nothing in it."""
        with contextlib.closing(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)) as sock:
            sock.sendto(b"", self.path)

    def close(self):
        self._sock.close()
