"""The only place that starts processes: `posix_spawn`, never `fork`.

On macOS a forked copy of a process that has used Apple's network libraries can hang or die before
it reaches `exec`; `posix_spawn` is one kernel call and runs no handlers. So `subprocess` and
asyncio's children are banned, and this module does without them: it works under any event loop, or
without one (the exec host).

A child leads a session and process group of its own. It is ours until it is reaped: a thread waits
for its exit, kills what is left of its group, and only then collects it, so that its number cannot
come to mean another process while we still send signals to it.
"""

import contextlib
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NoReturn


_GROUP_GONE_S: Final = 1.0
"""How long the members of a killed group may take to disappear before the exit is reported."""

_RESET: Final = tuple(
    number
    for name in ("SIGPIPE", "SIGXFSZ", "SIGTERM", "SIGINT", "SIGHUP", "SIGCHLD", "SIGQUIT")
    if (number := getattr(signal, name, None)) is not None
)
"""Signals that a child must find as a fresh login shell would."""


@dataclass(frozen=True, slots=True)
class Exit:
    """How a process ended: an exit status, or the name of a signal; both None when unknowable."""

    code: int | None = None
    signal: str | None = None

    @classmethod
    def from_wait(cls, status: int) -> "Exit":
        """Translate what `os.waitpid` answers."""
        code = os.waitstatus_to_exitcode(status)
        return cls(code=code) if code >= 0 else cls(signal=signal_name(-code))

    @property
    def clean(self) -> bool:
        """Whether it ended of its own will, with status 0."""
        return self.code == 0

    def __str__(self) -> str:
        """For people: `exit status 3`, `SIGKILL`."""
        if self.signal is not None:
            return self.signal
        return "exited" if self.code is None else f"exit status {self.code}"


def signal_name(number: int) -> str:
    """`SIGKILL` for 9; `SIG64` and the like for signals without a name."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"SIG{number}"


class Child:
    """A running process and the group it leads; made by `spawn`, or by `adopt` for another's child.

    Exit callbacks run on a thread of this module: hand over with `loop.call_soon_threadsafe`.
    """

    def __init__(self, pid: int, *, ours: bool, leads_group: bool) -> None:
        self.pid = pid
        self.exit: Exit | None = None
        self._ours = ours
        self._leads_group = leads_group
        self._lock = threading.Lock()
        self._gone = threading.Event()
        self._collected = False
        self._callbacks: list[Callable[[Exit], None]] = []
        self._waiter = threading.Thread(target=self._reap, name=f"reap-{pid}", daemon=True)
        self._waiter.start()

    def __repr__(self) -> str:
        return f"Child({self.pid}, {self.exit or 'running'})"

    def on_exit(self, callback: Callable[[Exit], None]) -> None:
        """Call *callback* once, from another thread, when the child is reaped; at once if it is."""
        with self._lock:
            if self.exit is None:
                self._callbacks.append(callback)
                return
        callback(self.exit)

    def wait(self, timeout_s: float | None = None) -> Exit | None:
        """Block until the child is reaped; None when *timeout_s* passed first."""
        self._gone.wait(timeout_s)
        return self.exit

    def kill(self, number: int = signal.SIGTERM) -> bool:
        """Send a signal to the whole group, or to the process when it leads none.

        Returns whether there was anything to send it to. Never reaches a stranger: after the child
        is reaped its number may be somebody else's, so nothing is sent any more.
        """
        with self._lock:
            return not self._collected and _send(self.pid, number, group=self._leads_group)

    def _reap(self) -> None:
        _await_exit(self.pid, ours=self._ours)
        if self._leads_group:
            # Its helpers hold its memory, and nobody else will end them. As long as the leader is
            # not collected its number stays taken, so this cannot hit a stranger.
            _send(self.pid, signal.SIGKILL, group=True)
        with self._lock:
            ended = _collect(self.pid) if self._ours else Exit()
            self._collected = True
        if self._leads_group:
            _await_empty_group(self.pid, _GROUP_GONE_S)
        with self._lock:
            self.exit = ended
            callbacks, self._callbacks = self._callbacks, []
        self._gone.set()
        for callback in callbacks:
            callback(ended)


def spawn(
    argv: Sequence[str | Path],
    *,
    env: Mapping[str, str],
    log: Path | None,
    own_session: bool = True,
) -> Child:
    """Start *argv* with exactly *env*, reading nothing, writing to *log*.

    Args:
        argv: The program by absolute path, and its arguments.
        env: The whole environment of the child.
        log: Standard output and error are appended to this file (0600), made when missing; None
            shares the caller's.
        own_session: Whether it leads a session and group of its own. False keeps it in the
            caller's group, so that what kills the caller's group kills it too.

    Only descriptors 0 to 2 are passed on.

    Raises:
        OSError: The program or the log cannot be opened; nothing was started.
        ValueError: *argv* names no absolute path.
    """
    words = [os.fspath(word) for word in argv]
    if not words or not os.path.isabs(words[0]):  # noqa: PTH117 - argv[0] may be any text
        raise ValueError(f"not an absolute path: {words[:1]}")
    actions: list[Any] = [(os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0)]
    if log is not None:
        # Opened here first: a file action that fails would blame the program.
        os.close(os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600))
        actions += [
            (os.POSIX_SPAWN_OPEN, 1, os.fspath(log), os.O_WRONLY | os.O_APPEND, 0),
            (os.POSIX_SPAWN_DUP2, 1, 2),
        ]
    actions += [(os.POSIX_SPAWN_CLOSE, number) for number in inheritable()]
    pid = _posix_spawn(words, dict(env), actions, own_session=own_session)
    return Child(pid, ours=True, leads_group=own_session)


def become(argv: Sequence[str | Path], *, env: Mapping[str, str]) -> NoReturn:
    """Replace this program by *argv*: the same process, its children still its own.

    Inheritable descriptors are passed on; threads end here.

    Raises:
        OSError: The program cannot be executed; nothing has changed.
    """
    words = [os.fspath(word) for word in argv]
    os.execve(words[0], words, dict(env))  # noqa: S606 - no shell is wanted


def adopt(pid: int) -> Child:
    """Watch a process that another parent started, such as an earlier run of the daemon.

    How it ends is unknowable: its `exit` will have neither code nor signal; unless it is our own
    child after all, because that earlier run was this very process before it re-executed itself.
    The caller must know that *pid* is the process it means.
    """
    try:
        leads_group = os.getpgid(pid) == pid
    except ProcessLookupError:
        leads_group = False
    return Child(pid, ours=_is_child(pid), leads_group=leads_group)


def _is_child(pid: int) -> bool:
    import psutil  # noqa: PLC0415 - hosts use this module, too, and need no psutil

    try:
        return psutil.Process(pid).ppid() == os.getpid()
    except psutil.Error:
        return False


def _posix_spawn(
    words: list[str],
    env: dict[str, str],
    actions: list[Any],
    *,
    own_session: bool,
) -> int:
    common: dict[str, Any] = {"file_actions": actions, "setsigmask": [], "setsigdef": _RESET}
    if not own_session:
        return os.posix_spawn(words[0], words, env, **common)
    try:
        return os.posix_spawn(words[0], words, env, setsid=True, **common)
    except NotImplementedError:  # a libc without POSIX_SPAWN_SETSID
        return os.posix_spawn(words[0], words, env, setpgroup=0, **common)


def inheritable() -> list[int]:
    """Descriptors that exec would pass on: Python opens none, but was perhaps started with some.

    A socket of launchd's or systemd's in the hands of a host would keep its port busy for as long
    as the host lives.
    """
    found = []
    for name in os.listdir("/dev/fd"):  # noqa: PTH208 - names, not paths
        with contextlib.suppress(OSError):  # the listing's own is closed by now
            if (number := int(name)) > 2 and os.get_inheritable(number):
                found.append(number)
    return found


def _collect(pid: int) -> Exit:
    """Reap a child that has ended; unknowable when somebody in this process did so before."""
    try:
        return Exit.from_wait(os.waitpid(pid, 0)[1])
    except ChildProcessError:
        return Exit()


def _send(pid: int, number: int, *, group: bool) -> bool:
    try:
        (os.killpg if group else os.kill)(pid, number)
    except ProcessLookupError:
        return False
    except PermissionError:
        # macOS answers EPERM for a group of nothing but zombies.
        return False
    return True


def _await_exit(pid: int, *, ours: bool) -> None:
    """Block until *pid* has ended, without collecting it; any visible process will do."""
    if sys.platform == "darwin":
        with contextlib.suppress(ProcessLookupError), contextlib.closing(select.kqueue()) as queue:
            watch = select.kevent(
                pid,
                select.KQ_FILTER_PROC,
                select.KQ_EV_ADD | select.KQ_EV_ONESHOT,
                select.KQ_NOTE_EXIT,
            )
            queue.control([watch], 1)
        return
    try:
        watched = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    except OSError:  # a kernel before 5.3, a strict sandbox, or no descriptors left
        if ours:
            os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        while not ours and _send(pid, 0, group=False):
            time.sleep(0.5)
        return
    try:
        poll = select.poll()
        poll.register(watched, select.POLLIN)
        poll.poll()
    finally:
        os.close(watched)


def _await_empty_group(group: int, limit_s: float) -> None:
    """Wait until no member of a killed *group* lives, so that their memory is free as well."""
    deadline, pause_s = time.monotonic() + limit_s, 0.001
    while _send(group, 0, group=True) and time.monotonic() < deadline:
        if sys.platform == "linux" and not _lives(group):
            return  # zombies, and an init that is slow to collect them
        time.sleep(pause_s)
        pause_s = min(pause_s * 2, 0.02)


def _lives(group: int) -> bool:
    """Whether any process of *group* is more than a zombie; by /proc."""
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            # pid (name) state parent group …; the name may hold anything, parentheses included
            state, _, its_group, *_ = stat.read_text().rpartition(")")[2].split()
            if int(its_group) == group and state not in "ZX":
                return True
    return False
