"""The daemon, as an event loop may speak to it: the typed client on worker threads."""

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from anyio import from_thread, to_thread

from llmd.admin import wire
from llmd.admin.client import AdminClient
from llmd.mcp.progress import Progress, describe_stage


T = TypeVar("T")


class Daemon:
    """The daemon behind the socket at *path*, which need not run yet.

    Nothing is kept between calls, so that a daemon that comes, goes or restarts is no matter. A
    cancelled caller returns at once; its thread ends with its answer.
    """

    def __init__(self, path: Path) -> None:
        self._client = AdminClient(path)

    async def ask(self, question: Callable[[AdminClient], T]) -> T:
        """What the client answers to *question*.

        Raises:
            LlmdError: As `AdminClient` says.
        """
        return await to_thread.run_sync(question, self._client, abandon_on_cancel=True)

    async def load(self, profile: str, progress: Progress) -> wire.LoadReport:
        """Make *profile* resident, telling how far it is. Cancellation does not undo it.

        Raises:
            LlmdError: As `AdminClient` says.
        """

        def tell(stage: str, fraction: float | None) -> None:
            # Raises in a caller that was cancelled, which ends the thread and its connection.
            from_thread.run(progress.tell_news, describe_stage(profile, stage, fraction))

        return await self.ask(lambda client: client.load(profile, progress=tell))
