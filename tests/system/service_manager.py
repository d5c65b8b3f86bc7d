"""A stand-in for systemd: what it does for a unit like `llmd.service` with its `llmd.socket`.

    Type=notify  NotifyAccess=main  KillMode=process  Restart=on-failure
    RestartPreventExitStatus=78  FileDescriptorStoreMax=…  WatchdogSec=…  StartLimitBurst=…

It differs in that a connection starts nothing: `start` does. What it does in which case was
compared with systemd 252 (`test_real_systemd`).
"""

import contextlib
import fcntl
import os
import signal
import socket
import threading
import time
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

from tests.system.notify_socket import NotifySocket


CLEAN_SIGNALS = {signal.SIGHUP, signal.SIGINT, signal.SIGTERM, signal.SIGPIPE}
FINAL_STATUS = 78
FIRST_FD = 3
START_LIMIT = 20
STORE_LIMIT = 128

# The only way to know the pid before the program begins.
TRAMPOLINE = 'for name in $1; do export "$name=$$"; done; shift; exec "$@"'


@dataclass
class Start:
    """One run of the service; times are monotonic, in seconds.

    Attributes:
        exit: Its status, or minus the signal that ended it; None while it runs.
        ready: How often it has said so: again after a reload, or by a new image of itself.
    """

    pid: int
    started_s: float = field(default_factory=time.monotonic)
    ready: int = 0
    ready_s: float | None = None
    state: str = "starting"
    status: str = ""
    exit: int | None = None
    ended_s: float | None = None
    stop_by_s: float = 0.0
    heard_s: float = 0.0


class ServiceManager:
    """A unit and what systemd keeps for it; a context manager, which ends the main process.

    Args:
        directory: For its own files: the notification socket, and the log of the service.
        argv: The service, by absolute path.
        env: Its environment, apart from what a service manager adds.
        ports: Listened on, on both addresses of localhost.
        admin: The path of a Unix socket to listen on.
        pass_sockets: False for a plain supervisor: nothing is listened on, or kept.
        watchdog_s: The service must be heard of that often once it is ready.

    Attributes:
        starts: Every run so far.
        stored: What the service left in the store, by name.
    """

    def __init__(
        self, directory, argv, env, *, ports=(), admin=None, pass_sockets=True,
        restart_delay_s=0.1, stop_timeout_s=20.0, watchdog_s=None,
    ):  # fmt: skip
        self.argv = [str(word) for word in argv]
        self.env = dict(env)
        self.starts = []
        self.stored = defaultdict(list)
        self.log_file = Path(directory) / "service.log"
        self.log_file.touch()
        self._pass_sockets = pass_sockets
        self._restart_delay_s = restart_delay_s
        self._stop_timeout_s = stop_timeout_s
        self._watchdog_s = watchdog_s
        self._admin = admin
        self._open = contextlib.ExitStack()
        self._listeners = []
        if pass_sockets:
            self._listen(ports, admin)
        self._notify = NotifySocket(Path(directory) / "notify")
        self._open.callback(self._notify.close)
        self._changed = threading.Condition()
        self._job = None
        self._down = True
        self._closed = False
        self._runner = None
        self._reader = threading.Thread(target=self._read, name="notifications")
        self._reader.start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    # --- what a user of systemctl does

    @property
    def current(self):
        """The latest run."""
        return self.starts[-1]

    def start(self, timeout=30):
        """Start it, and wait until it is ready."""
        if self._runner is not None:
            self._runner.join(1)
            assert not self._runner.is_alive(), "it runs already, or is about to"
        self._job, self._down = None, False
        before = len(self.starts)
        self._runner = threading.Thread(target=self._run, name="service")
        self._runner.start()
        self.wait_until(lambda: len(self.starts) > before, timeout)
        return self.wait_ready(timeout)

    def send(self, number):
        """Send a signal to the main process, and do not wait."""
        with self._changed:
            if self.running:
                os.kill(self.current.pid, number)

    def kill(self, number=signal.SIGKILL, timeout=30):
        """Send a signal to the main process, and wait for its end; what follows is policy."""
        run = self.current
        self.send(number)
        self.wait_until(lambda: run.exit is not None, timeout)
        return run

    def stop(self):
        """SIGTERM, the time that it has or asks for, SIGKILL; what was stored is closed."""
        run = self._end("stop")
        self._runner.join()
        return run

    def restart_by_signal(self, timeout=30):
        """The same, and start it again with everything that is kept for it."""
        before = len(self.starts)
        self._end("restart")
        self.wait_until(lambda: len(self.starts) > before, timeout)
        return self.wait_ready(timeout)

    def wait_ready(self, timeout=30):
        """Until the latest run is ready, whichever that is by then; returns it."""
        self.wait_until(lambda: self._down or self.current.state == "active", timeout)
        assert not self._down, f"it ended, and stays down: {self.current}\n{self.log()}"
        return self.current

    def wait_until(self, condition, timeout=30):
        """Until *condition* holds; it is tried whenever something changes here."""
        with self._changed:
            assert self._changed.wait_for(condition, timeout), (
                f"not within {timeout} s: {self.starts[-3:]}\n{self.log()}"
            )

    @property
    def running(self):
        """Whether there is a main process now."""
        return bool(self.starts) and self.current.exit is None

    def log(self):
        """The last of what the service wrote."""
        return self.log_file.read_text(errors="replace")[-4000:]

    def close(self):
        """Kill the main process, if there is one, and close everything. Idempotent."""
        with self._changed:
            if self._closed:
                return
            self._closed = True
            self._job = "stop"
            self._changed.notify_all()
        self.send(signal.SIGKILL)
        if self._runner is not None:
            self._runner.join()
        self._notify.wake()
        self._reader.join()
        self._go_down()
        self._open.close()
        if self._admin is not None and self._pass_sockets:
            self._admin.unlink(missing_ok=True)

    # --- the main process

    def _end(self, job):
        with self._changed:
            assert self.running, f"it does not run: {self.log()}"
            run = self.current
            self._job = job
            run.stop_by_s = time.monotonic() + self._stop_timeout_s
            os.kill(run.pid, signal.SIGTERM)
            while run.exit is None:
                left_s = run.stop_by_s - time.monotonic()
                if left_s <= 0:
                    os.kill(run.pid, signal.SIGKILL)
                self._changed.wait(left_s if left_s > 0 else None)
        return run

    def _run(self):
        """Start it, wait for its end, and again, as long as it is to be running."""
        for _ in range(START_LIMIT):
            with self._changed:
                run = Start(self._spawn())
                self.starts.append(run)
                self._changed.notify_all()
            os.waitid(os.P_PID, run.pid, os.WEXITED | os.WNOWAIT)
            with self._changed:  # until it is collected its number is its own
                run.exit = os.waitstatus_to_exitcode(os.waitpid(run.pid, 0)[1])
                run.ended_s = time.monotonic()
                run.state = "ended"
                again, job = self._job == "restart", self._job
                self._job = None if again else job
                self._changed.notify_all()
                if not again and (job == "stop" or not _failed(run.exit)):
                    break
                if not again and self._changed.wait_for(
                    lambda: self._closed, self._restart_delay_s
                ):
                    break
        self._go_down()

    def _spawn(self):
        passed = [*self._listeners, *(s for kept in self.stored.values() for s in kept)]
        env = {**self.env, "NOTIFY_SOCKET": self._notify.path}
        env.pop("SYSTEMD_EXEC_PID", None)
        pid_names = []
        if passed:
            env["LISTEN_FDS"] = str(len(passed))
            names = ["llmd.socket"] * len(self._listeners)
            names += [name for name, kept in self.stored.items() for _ in kept]
            env["LISTEN_FDNAMES"] = ":".join(names)
            pid_names.append("LISTEN_PID")
        if self._watchdog_s:
            env["WATCHDOG_USEC"] = str(round(self._watchdog_s * 1e6))
            pid_names.append("WATCHDOG_PID")
        with contextlib.ExitStack() as copies:
            # Above all that they are copied to, so that no copy overwrites another's source.
            high = []
            for sock in passed:
                fd = fcntl.fcntl(sock, fcntl.F_DUPFD_CLOEXEC, FIRST_FD + len(passed))
                copies.callback(os.close, fd)
                high.append(fd)
            append = os.O_WRONLY | os.O_APPEND
            return os.posix_spawn(
                "/bin/sh",
                ["/bin/sh", "-c", TRAMPOLINE, "sh", " ".join(pid_names), *self.argv],
                env,
                file_actions=[
                    (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                    (os.POSIX_SPAWN_OPEN, 1, str(self.log_file), append, 0),
                    (os.POSIX_SPAWN_DUP2, 1, 2),
                    *((os.POSIX_SPAWN_DUP2, fd, n) for n, fd in enumerate(high, FIRST_FD)),
                ],
                setsid=True,
                setsigmask=[],
                setsigdef=[signal.SIGPIPE],
            )

    def _listen(self, ports, admin):
        for port in ports:
            for family, address in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
                sock = socket.create_server((address, port), family=family, backlog=512)
                self._listeners.append(self._open.enter_context(sock))
        if admin is not None:
            admin.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            sock = self._open.enter_context(socket.socket(socket.AF_UNIX))
            sock.bind(str(admin))
            admin.chmod(0o600)
            sock.listen(512)
            self._listeners.append(sock)

    # --- notifications

    def _read(self):
        while not self._closed:
            with self._changed:
                due_s = self._watchdog_due_s()
                if due_s is not None and due_s <= time.monotonic():
                    os.kill(self.current.pid, signal.SIGABRT)
                    self.current.state = "aborting"
                    due_s = None
            left_s = None if due_s is None else max(due_s - time.monotonic(), 0.001)
            message = self._notify.receive(left_s)
            if message is None:
                continue
            with self._changed:
                if self.running and message.pid in (None, self.current.pid):
                    self._hear(message.fields, message.fds)
                else:  # NotifyAccess=main
                    for fd in message.fds:
                        os.close(fd)
                self._changed.notify_all()

    def _watchdog_due_s(self):
        """When the service must have been heard of; None when it is not watched now."""
        watched = self._watchdog_s and self.running and self._job is None
        if not watched or self.current.state not in ("active", "reloading"):
            return None
        return self.current.heard_s + self._watchdog_s

    def _hear(self, message, fds):
        run, now_s = self.current, time.monotonic()
        if message.get("READY") == "1" or message.get("WATCHDOG") == "1":
            run.heard_s = now_s
        if message.get("READY") == "1":
            run.ready += 1
            run.ready_s = run.ready_s or now_s
            run.state = "active"
        if message.get("RELOADING") == "1":
            run.state = "reloading"
        if message.get("STOPPING") == "1":
            run.state = "stopping"
        run.status = message.get("STATUS", run.status)
        if more_us := message.get("EXTEND_TIMEOUT_USEC"):
            run.stop_by_s = max(run.stop_by_s, now_s + int(more_us) / 1e6)
        name = message.get("FDNAME", "stored")
        if message.get("FDSTOREREMOVE") == "1":
            for sock in self.stored.pop(name, []):
                sock.close()
        for fd in fds:
            self._keep(name, socket.socket(fileno=fd), store="FDSTORE" in message)

    def _keep(self, name, sock, *, store):
        kept = [other for sockets in self.stored.values() for other in sockets]
        known = {os.fstat(other.fileno()).st_ino for other in kept}
        full = len(kept) >= STORE_LIMIT or not self._pass_sockets
        if store and not full and os.fstat(sock.fileno()).st_ino not in known:
            self.stored[name].append(sock)
        else:
            sock.close()

    def _go_down(self):
        with self._changed:
            for sockets in self.stored.values():
                for sock in sockets:
                    sock.close()
            self.stored.clear()
            self._down = True
            self._changed.notify_all()


def _failed(code):
    """Whether Restart=on-failure starts it again after this exit."""
    return -code not in CLEAN_SIGNALS if code < 0 else code not in (0, FINAL_STATUS)
