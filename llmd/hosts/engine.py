"""What the control loop asks of an engine, whichever it is."""

from collections.abc import Callable
from typing import Any, ClassVar, Final, Protocol

from llmd.hosts.protocol import Launch
from llmd.hosts.saved_prompts import Allowance


EXIT_ENGINE_DIED: Final = 70
"""The exit status of a host whose engine broke down inside it (EX_SOFTWARE)."""


class LoadError(Exception):
    """The engine cannot run this profile; the text says why, for people.

    Attributes:
        exit_code: The exit status of the server that gave up, when there was one.
    """

    def __init__(self, message: str, *, exit_code: int | None = None) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class Engine(Protocol):
    """One model inside this process, or in a server that this process looks after.

    `prepare`, `load`, `trim` and `save` run on a worker thread, one at a time; the rest is called
    on the control loop and must not block.
    """

    holds_interpreter: ClassVar[bool]
    """Whether `load` keeps every other Python thread from running: no signal handler, no answer."""

    on_death: Callable[[str, int], None]
    """To be called, from any thread, with a reason and an exit status when the engine has ended."""

    def prepare(self) -> None:
        """Import what takes long, so that a later load is quick."""

    def load(self, launch: Launch) -> dict[str, Any]:
        """Run *launch*, answer a one-token completion, and return the upstream's address.

        Raises:
            LoadError: It cannot be run; the process should end.
        """

    def progress(self) -> float | None:
        """How much of a running load is done, 0 to 1; None when unknown."""

    def status(self) -> dict[str, Any]:
        """The engine's own count of its memory and requests; keys as in `llmd.hosts.protocol`."""

    def pulse(self) -> dict[str, Any]:
        """How far the engine is, as in `llmd.hosts.protocol`; empty when nobody counts."""

    def trim(self) -> int:
        """Let go of prompt caches and spare buffers; returns the bytes that were freed."""

    def save(self, allowance: Allowance) -> None:
        """Write what *allowance* admits of the prompts that it holds, for the next host."""

    def stop(self, *, attended: bool) -> None:
        """End whatever would outlive this process. Called last, before it exits.

        *attended*: a daemon is connected, and will kill what is left of the process group.
        """
