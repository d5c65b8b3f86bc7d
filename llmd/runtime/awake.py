"""Keeps the machine awake while there is work: `keep_awake` in the configuration.

A program of the system's holds the machine, and ends with the daemon, however that ends: an idle
model, or a daemon that is gone, never keeps anybody's laptop from sleeping. Closing the lid puts it
to sleep all the same.
"""

import os
import shutil
import sys
from collections.abc import Callable
from math import inf
from pathlib import Path
from typing import Final

import structlog

from llmd.platform.spawn import Child, spawn
from llmd.runtime import clock


LINGER_S: Final = 30.0
"""After the last request: the next one of a conversation often follows."""

log = structlog.get_logger("llmd.awake")


def holder(daemon_pid: int, platform: str = sys.platform) -> tuple[str, ...]:
    """The program that keeps the machine awake for as long as it runs, and *daemon_pid* lives."""
    if platform == "darwin":
        return ("/usr/bin/caffeinate", "-i", "-w", str(daemon_pid))
    return (
        *("systemd-inhibit", "--what=idle:sleep", "--mode=block", "--who=llmd"),
        "--why=a model is answering",
        *("tail", "--follow", f"--pid={daemon_pid}", os.devnull),
    )


class KeepAwake:
    """Holds the machine while there is work, and lets go of it afterwards.

    Never raises: a machine without the program, or that refuses, sleeps as it always did, and the
    log says so once.
    """

    def __init__(
        self,
        *,
        program: tuple[str, ...] | None = None,
        spawn: Callable[..., Child] = spawn,
        now: Callable[[], float] = clock.now,
    ) -> None:
        """Prepare; holds nothing yet.

        Args:
            program: With its arguments; looked up on PATH. By default that of this system.
            spawn: Starts it.
            now: Seconds on a monotonic clock.
        """
        self._program = holder(os.getpid()) if program is None else program
        self._spawn = spawn
        self._now = now
        self._until_s = -inf
        self._held: Child | None = None
        self._failed = False
        self._told = False

    @property
    def holding(self) -> bool:
        """Whether the machine is being kept awake."""
        return self._held is not None and self._held.exit is None

    def mind(self, *, busy: bool) -> None:
        """Hold or let go, as needed; to be called every few seconds with whether there is work."""
        now = self._now()
        if busy:
            self._until_s = now + LINGER_S
        if now >= self._until_s:
            self.release()
        elif self._held is None and not self._failed:
            self._hold()
        elif self._held is not None and self._held.exit is not None:
            self._give_up(str(self._held.exit))

    def release(self) -> None:
        """Let go now. Idempotent."""
        if self._held is not None:
            self._held.kill()
            log.debug("machine.let_go")
        self._held, self._failed, self._until_s = None, False, -inf

    def _hold(self) -> None:
        name, *arguments = self._program
        try:
            path = shutil.which(name)
            if path is None:
                raise FileNotFoundError("no such program")
            self._held = self._spawn(
                [Path(path).absolute(), *arguments], env=os.environ, log=Path(os.devnull)
            )
        except OSError as error:
            self._give_up(str(error))
        else:
            log.debug("machine.held", pid=self._held.pid)

    def _give_up(self, reason: str) -> None:
        """Not again before the next run of requests: it would fail every few seconds."""
        self._held, self._failed = None, True
        if not self._told:
            self._told = True
            log.warning("machine.not_held", program=" ".join(self._program), reason=reason)
