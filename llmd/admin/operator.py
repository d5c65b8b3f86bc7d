"""What the admin API needs of the daemon; the daemon implements it, tests have a small one."""

from collections.abc import AsyncIterator, Callable
from typing import Protocol

from llmd.admin import wire


Progress = Callable[[str, float | None], None]
"""Told a stage (`evicting chat`, `weights`) and how far it is, 0 to 1 or unknown. Never blocks."""


class Operator(Protocol):
    """The daemon, as an administrator sees it.

    Called on the event loop. A *name* is always a profile's own: the API has resolved aliases and
    refused unknown names; the profile may still have vanished by the time a coroutine runs.
    Expected failures are raised as `LlmdError`.
    """

    def status(self) -> wire.Status:
        """Everything, now."""

    def profiles(self) -> list[wire.Profile]:
        """The profiles, in file order."""

    async def load(
        self, name: str, *, pin: bool, ttl_s: float | None, progress: Progress
    ) -> wire.LoadReport:
        """Make *name* resident; returns once it is ready.

        *ttl_s* replaces `idle_ttl` for this residency: None leaves it, infinity is never. The API
        does not cancel this when its client hangs up, only when the server closes.

        Raises:
            LlmdError: No room, a pinned resident in the way, a failed load, or shutting down.
        """

    async def unload(self, name: str) -> wire.UnloadReport:
        """Drain and unload *name*; returns once its memory is free."""

    async def unload_all(self) -> wire.UnloadReport:
        """Drain and unload every resident, pinned ones too."""

    def pin(self, name: str, *, pinned: bool) -> None:
        """Pin or unpin *name* until the daemon ends. Loads nothing."""

    def plan(self, name: str) -> wire.PlanReport:
        """What a load of *name* would do now."""

    def events(self, *, follow: bool, lines: int) -> AsyncIterator[wire.Event]:
        """The last *lines* decision records, oldest first; with *follow*, then each new one."""

    def logs(self, name: str | None, *, follow: bool, lines: int) -> AsyncIterator[str]:
        """The last *lines* lines of a log, without their ends; with *follow*, then each new one.

        The log of *name*'s host, or the daemon's own when it is None.
        """

    async def reload(self) -> wire.ReloadReport:
        """Read the configuration again and apply the difference.

        Raises:
            ConfigError: The file is bad; nothing was changed.
        """

    async def restart(self) -> wire.RestartReport:
        """Begin to re-execute the daemon; returns once that is certain to happen.

        Raises:
            RestartRefusedError: What is installed now would not start; nothing was changed.
        """

    def stop(self) -> None:
        """Begin to drain and exit; returns at once. Idempotent."""

    def metrics(self) -> str:
        """Prometheus text (see `llmd.admin.metrics.prometheus_text`)."""
