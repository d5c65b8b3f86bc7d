"""A service of a few lines, to try a service manager with: sockets, notification, and no llmd.

Started with the path of its admin socket. A connection to any of its sockets sends one line:

    look        answers with what was inherited, as JSON (so does every other command)
    store       opens a further port, and stores it with the service manager
    keep        stores all that it has
    discard     has the service manager forget it
    again       becomes a new image of itself, keeping its sockets
    hang        does nothing any more, watchdog included
    exit N      ends with status N

It reads these variables:

    TINY_LINGERS_S  seconds that it takes to stop; it asks for one more
    TINY_NOTES      a file; before it stops it asks systemd for its jobs, and writes them there
"""

import json
import os
import select
import signal
import socket
import subprocess
import sys
from pathlib import Path

from llmd.platform.activation import FIRST_FD, inherited
from llmd.platform.notify import Notifier


STORED = "extra"


def ask(port, command="look", address="127.0.0.1"):
    """Send *command* to the service; its answer, once it has carried the command out."""
    with socket.create_connection((address, port), timeout=20) as connection:
        connection.sendall(f"{command}\n".encode())
        return json.loads(connection.makefile().read())


class TinyService:
    def __init__(self, admin):
        self.notifier = Notifier.from_environ()
        found = inherited([], admin)
        self.ports = sorted(found.ports)
        self.sockets = [sock for sockets in found.ports.values() for sock in sockets]
        self.sockets += [found.admin] if found.admin else []
        self.woken, self.wake = socket.socketpair()
        self.wake.settimeout(0)
        signal.set_wakeup_fd(self.wake.fileno())
        signal.signal(signal.SIGTERM, lambda *_: None)

    def serve(self):
        self.notifier.ready(f"serving {self.ports}")
        while True:
            ready, _, _ = select.select(
                [*self.sockets, self.woken], [], [], self.notifier.watchdog_s
            )
            self.notifier.watchdog()
            if self.woken in ready:
                return self.stop()
            for listener in ready:
                try:
                    connection, _ = listener.accept()
                except BlockingIOError:
                    continue
                with connection, connection.makefile("rw") as stream:
                    self.obey(stream.readline().split(), stream)

    def obey(self, words, stream):
        answer = {
            "pid": os.getpid(),
            "ports": self.ports,
            "sockets": len(self.sockets),
            "variables": sorted(
                n for n in os.environ if n.startswith(("LISTEN_", "NOTIFY_", "WATCHDOG_"))
            ),
        }
        if words == ["store"]:
            self.sockets.append(socket.create_server(("127.0.0.1", 0)))
            self.notifier.store(STORED, self.sockets[-1:])
            answer["stored"] = self.sockets[-1].getsockname()[1]
        elif words == ["keep"]:
            self.notifier.store(STORED, self.sockets)
        elif words == ["discard"]:
            self.notifier.discard(STORED)
        print(json.dumps(answer), file=stream, flush=True)
        match words:
            case ["hang"]:
                signal.signal(signal.SIGTERM, signal.SIG_IGN)
                signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
                signal.sigwait([signal.SIGUSR1])
            case ["exit", status]:
                os._exit(int(status))  # its connection ends no sooner than it does
            case ["again"]:
                self.again()

    def again(self):
        self.notifier.reloading()
        free = FIRST_FD + len(self.sockets)
        high = [os.dup(sock.fileno()) for sock in self.sockets]
        while min(high, default=free) < free:
            high = [os.dup(fd) if fd < free else fd for fd in high]
        for target, fd in enumerate(high, FIRST_FD):
            os.dup2(fd, target, inheritable=True)
        passed = {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": str(len(high))}
        environ = {**os.environ, **self.notifier.environ, **passed}
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], environ)

    def stop(self):
        self.notifier.stopping()
        if notes := os.environ.get("TINY_NOTES"):
            argv = ["systemctl", "--user", "list-jobs", "--no-legend", "--plain"]
            Path(notes).write_bytes(subprocess.check_output(argv))
        if lingers_s := float(os.environ.get("TINY_LINGERS_S", "0")):
            self.notifier.extend(lingers_s + 1)
            select.select([], [], [], lingers_s)


if __name__ == "__main__":
    TinyService(Path(sys.argv[1])).serve()
