"""One host as the daemon sees it: started or adopted, spoken to, stopped, and reaped.

No decision is taken here. Waiting is done with futures and timers of the loop, so that an idle
host costs no wake-up, and a cancelled caller leaves nothing half done.
"""

import asyncio
import contextlib
import os
import secrets
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from llmd.core.facts import Failure
from llmd.errors import HostStuckError
from llmd.hosts.protocol import PROTOCOL, Launch
from llmd.platform.identity import started
from llmd.platform.linux_memory import oom_kills
from llmd.platform.spawn import Child, Exit, adopt, spawn
from llmd.proxy.gate import Upstream
from llmd.runtime.clock import time_limit
from llmd.runtime.control import (
    ControlClient,
    ControlLostError,
    ControlRefusedError,
    socket_path,
)
from llmd.runtime.host_command import HOST_PROGRAM, host_options
from llmd.runtime.host_log import HostLog, writable


_CONNECT_PAUSE_S: Final = (0.002, 0.02)
_STUCK_AFTER_S: Final = 5.0
_EXIT_FOLLOWS_S: Final = 0.5
"""How long after hanging up a host may take to be reaped, so that its exit can be reported."""


class HostFailedError(Exception):
    """The host did not start, or refused; `failure` says why. It still has to be stopped."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.message)
        self.failure = failure


class HostProcess:
    """A host's process, its control socket and its log.

    Made with `start`, or with `found` and `attach` when an earlier daemon started it; to be ended
    with `stop` in every case, also when it exited or failed, which removes its sockets, or let go
    of with `detach`.

    Attributes:
        instance: A random name that only this host and its starters know.
        kind: `mlx`, `llama` or `exec`.
        pid: Of the process, which leads a session and group of its own.
        started: Tells it from an earlier or later process of that number; see `identity.started`.
        exited: Settled with the `Exit` once the process is reaped; never cancelled.
        upstream: Where requests go; None until a load is done.
        log: What it and its engine print.
    """

    def __init__(
        self, child: Child, *, kind: str, instance: str, directory: Path, log: HostLog
    ) -> None:
        self.kind = kind
        self.instance = instance
        self.pid = child.pid
        self.started = started(child.pid) or 0.0
        self.log = log
        self.upstream: Upstream | None = None
        self.fingerprint: str | None = None
        self.state = "idle"
        self._child = child
        self._directory = directory
        self._control: ControlClient | None = None
        self._loop = asyncio.get_running_loop()
        self._stopping = False
        self._oom_kills = oom_kills()
        self._timers: list[asyncio.TimerHandle] = []
        self.exited: asyncio.Future[Exit] = self._loop.create_future()
        self._stuck: asyncio.Future[None] = self._loop.create_future()
        child.on_exit(self._on_exit)

    # --- beginnings -------------------------------------------------------------------------

    @classmethod
    async def start(
        cls,
        kind: str,
        *,
        directory: Path,
        log_path: Path,
        orphan_grace_s: float,
        owner: Path | None = None,
        env: Mapping[str, str] | None = None,
        python: str | Path = sys.executable,
        program: Sequence[str] = HOST_PROGRAM,
        timeout_s: float = 20.0,
    ) -> "HostProcess":
        """Start a host of *kind* and return once it answers on its control socket.

        Args:
            kind: `mlx`, `llama` or `exec`.
            directory: For its sockets: private (0700), on a short path.
            log_path: Appended to; rotated to `….1` when it has grown long.
            orphan_grace_s: It ends itself after so long without a daemon.
            owner: The daemon's own socket, by which a later daemon knows its hosts.
            env: Its whole environment; default: the daemon's.
            python: The interpreter to run it with, as an absolute path.
            program: The interpreter's arguments that name the host program.
            timeout_s: For the first answer.

        Raises:
            ConfigError: The socket paths would be too long.
            HostFailedError: It exited or said nothing; it is reaped already.

        A cancelled caller leaves no process behind.
        """
        instance = secrets.token_hex(4)
        control, upstream = (socket_path(directory, instance, name) for name in ("c", "u"))
        log = HostLog.begin(log_path)
        options = host_options(
            kind,
            instance=instance,
            control=control,
            upstream=upstream,
            orphan_grace_s=orphan_grace_s,
            owner=owner,
        )
        child = spawn(
            [python, *program, *options],
            # Unbuffered, so that the log has the last words of a crash.
            env={**(os.environ if env is None else env), "PYTHONUNBUFFERED": "1"},
            log=log_path if writable(log_path) else None,  # None: where the daemon's stderr goes
        )
        host = cls(child, kind=kind, instance=instance, directory=directory, log=log)
        try:
            await host.attach(timeout_s)
        except BaseException:
            await host.stop(grace_s=0)
            raise
        return host

    @classmethod
    def found(
        cls, *, pid: int, kind: str, instance: str, directory: Path, log_path: Path
    ) -> "HostProcess":
        """A live host that an earlier daemon started; the caller has proven that *pid* is it.

        To be attached to next. How it ends will be unknown, unless it is a child of this process.
        """
        log = HostLog(log_path)
        return cls(adopt(pid), kind=kind, instance=instance, directory=directory, log=log)

    async def attach(self, timeout_s: float) -> None:
        """Connect as soon as the control socket is there, and check who answers.

        Afterwards `upstream`, `fingerprint` and `state` are as the host reports them.

        Raises:
            HostFailedError: Nobody answers, or somebody else; nothing was signalled.
        """
        path = socket_path(self._directory, self.instance, "c")
        pause_s, longest_s = _CONNECT_PAUSE_S
        try:
            async with asyncio.timeout(timeout_s):
                while True:
                    if self.exited.done():
                        raise HostFailedError(self.failure("the host exited at start"))
                    try:
                        self._control = await ControlClient.connect(path)
                        break
                    except OSError:
                        await asyncio.sleep(pause_s)
                        pause_s = min(pause_s * 1.5, longest_s)
                hello = await self._control.request("hello")
        except TimeoutError:
            raise HostFailedError(
                self.failure(f"the host did not answer for {timeout_s:g} s")
            ) from None
        except ControlLostError:
            raise HostFailedError(await self._lost("the host ended at start")) from None
        expected = {"protocol": PROTOCOL, "instance": self.instance, "pid": self.pid}
        found = {key: hello.get(key) for key in expected}
        if found != expected:
            self._control.close()
            raise HostFailedError(Failure(f"another program answers on {path}: {found}"))
        self._heard(hello)

    def _heard(self, answer: dict[str, Any]) -> None:
        self.state = answer.get("state", self.state)
        self.fingerprint = answer.get("fingerprint", self.fingerprint)
        if (upstream := answer.get("upstream")) is not None:
            self.upstream = Upstream(**upstream)

    # --- requests ---------------------------------------------------------------------------

    async def prepare(self) -> None:
        """Have it import its engine; returns when done.

        Raises:
            HostFailedError: It could not, or ended.
        """
        await self._request("prepare")
        self.state = "prepared"

    async def load(
        self,
        launch: Launch,
        fingerprint: str,
        on_progress: Callable[[float], None] | None = None,
    ) -> Upstream:
        """Have it run *launch*; returns once a one-token completion came back.

        *on_progress* hears fractions from 0 to 1, if the engine can tell. Cancelling leaves the
        load running: stop the host.

        Raises:
            HostFailedError: The load failed or took longer than `load_timeout_s`; the host is
                not stopped yet.
        """

        def on_event(event: dict[str, Any]) -> None:
            if on_progress is not None and event.get("event") == "progress":
                on_progress(float(event["fraction"]))

        self.state = "loading"
        try:
            async with time_limit(launch.load_timeout_s):
                answer = await self._request(
                    "load", on_event=on_event, launch=launch.to_wire(), fingerprint=fingerprint
                )
        except TimeoutError:
            message = f"loading took longer than load_timeout, {launch.load_timeout_s:g} s"
            raise HostFailedError(self.failure(message)) from None
        self._heard({**answer, "state": "ready", "fingerprint": fingerprint})
        assert self.upstream is not None  # noqa: S101 - part of the answer
        return self.upstream

    async def settled(self) -> None:
        """Wait for the end of a preparation or load that an earlier daemon began.

        Raises:
            HostFailedError: It ended.
        """
        self._heard(await self._request("settled"))

    async def status(self) -> dict[str, Any]:
        """Its state and the engine's own count of memory and requests.

        A llama host answers nothing while it loads: give the call a time limit.

        Raises:
            HostFailedError: It ended.
        """
        return await self._request("status")

    async def pulse(self) -> dict[str, Any]:
        """How far its engine is, as in `llmd.hosts.protocol`; empty when nobody counts.

        A host that hangs never answers, one that ends does, and so does one of an earlier version.
        """
        try:
            return {} if self._control is None else await self._control.request("pulse")
        except (ControlLostError, ControlRefusedError):
            return {}

    async def trim(self) -> int:
        """Have it let go of prompt caches; the bytes that were freed.

        Raises:
            HostFailedError: It ended.
        """
        return int((await self._request("trim"))["freed_bytes"])

    async def save(self, *, limit_bytes: int, within_s: float) -> tuple[int, int]:
        """Have it write prompts to disk for the next host; how many, and their bytes.

        Raises:
            HostFailedError: It ended, or is of an earlier version.
        """
        answer = await self._request("save", limit_bytes=limit_bytes, within_s=within_s)
        return int(answer["prompts"]), int(answer["bytes"])

    async def _request(
        self, op: str, on_event: Callable[[dict[str, Any]], None] | None = None, **fields: Any
    ) -> dict[str, Any]:
        try:
            if self._control is None:
                raise ControlLostError
            return await self._control.request(op, on_event=on_event, **fields)
        except ControlRefusedError as refusal:
            self.state = "failed" if op in ("load", "prepare") else self.state
            raise HostFailedError(self.failure(str(refusal), exit_code=refusal.exit_code)) from None
        except ControlLostError:
            raise HostFailedError(await self._lost(f"the host ended during {op}")) from None

    # --- the end ----------------------------------------------------------------------------

    async def stop(self, *, grace_s: float) -> Exit:
        """Ask the host to exit, insist after *grace_s* seconds, and reap it.

        Signals the whole process group. On return its memory is free and its sockets are gone.
        Idempotent; a cancelled caller still leaves no process behind: timers of the loop go on to
        kill it, and `exited` tells when that is done.

        Raises:
            HostStuckError: It outlived SIGKILL by 5 s; its memory stays taken.
        """
        if not self._stopping and not self.exited.done():
            self._stopping = True
            self.state = "stopping"
            if grace_s > 0:
                self._child.kill(signal.SIGTERM)
            else:
                self.kill()
            self._timers = [
                self._loop.call_later(grace_s, self.kill),
                self._loop.call_later(grace_s + _STUCK_AFTER_S, self._give_up),
            ]
        await asyncio.wait((self.exited, self._stuck), return_when=asyncio.FIRST_COMPLETED)
        if not self.exited.done():
            raise HostStuckError(
                f"the host {self.pid} is still there {_STUCK_AFTER_S:g} s after SIGKILL",
                remedy="it hangs in the kernel (a dead disk or driver?); its memory stays charged",
            )
        return self.exited.result()

    def kill(self) -> None:
        """Send SIGKILL to the whole group, now."""
        self._child.kill(signal.SIGKILL)

    def _give_up(self) -> None:
        if not self._stuck.done():
            self._stuck.set_result(None)

    def _on_exit(self, ended: Exit) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody is left to tell
            self._loop.call_soon_threadsafe(self._reaped, ended)

    def _reaped(self, ended: Exit) -> None:
        self.detach()
        for name in ("c", "u"):
            with contextlib.suppress(OSError):
                socket_path(self._directory, self.instance, name).unlink()
        if not self.exited.done():
            self.exited.set_result(ended)

    def detach(self) -> None:
        """Let go without stopping it: the host lives on for its orphan grace, to be adopted."""
        for timer in self._timers:
            timer.cancel()
        if self._control is not None:
            self._control.close()
            self._control = None

    # --- what happened ----------------------------------------------------------------------

    async def _lost(self, message: str) -> Failure:
        """The failure of a host that hung up, with its exit, which follows at once."""
        await asyncio.wait((self.exited,), timeout=_EXIT_FOLLOWS_S)
        return self.failure(message)

    def failure(self, message: str = "", *, exit_code: int | None = None) -> Failure:
        """Why this host is no good: *message*, its exit if it has ended, and the end of its log."""
        ended = self.exited.result() if self.exited.done() else Exit(code=exit_code)
        if not message:
            message = f"the host ended: {ended}"
        kills = oom_kills()
        if kills is not None and self._oom_kills is not None:
            kills -= self._oom_kills
        return Failure(message, ended.code, ended.signal, self.log.tail(), kills)
