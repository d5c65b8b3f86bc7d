"""What administrators ask for and wait for: loads and unloads, by ticket."""

import asyncio
from collections.abc import Callable

from llmd.core.events import Complete, Event, LoadRequested, UnloadRequested
from llmd.core.facts import Ticket
from llmd.errors import LlmdError, ShuttingDownError
from llmd.runtime.departure import Departure


class Commands:
    """The commands that have no answer yet.

    Args:
        dispatch: Takes the commands to the scheduler.
        new_ticket: Numbers them.
        departure: While it is under way, commands are refused.
    """

    def __init__(
        self,
        dispatch: Callable[[Event], None],
        new_ticket: Callable[[], Ticket],
        departure: Departure,
    ) -> None:
        self._dispatch = dispatch
        self._new_ticket = new_ticket
        self._departure = departure
        self._waiting: dict[Ticket, asyncio.Future[Complete]] = {}

    async def load(self, profile: str, *, pin: bool, ttl_s: float | None) -> Complete:
        """Make *profile* resident; returns when it is ready.

        Raises:
            LlmdError: What stood in the way.
        """
        return await self._ask(LoadRequested(self._new_ticket(), profile, pin, ttl_s))

    async def unload(self, profile: str) -> Complete:
        """Drain and stop *profile*; returns when its memory is free.

        Raises:
            LlmdError: There is no such profile, or the daemon is stopping.
        """
        return await self._ask(UnloadRequested(self._new_ticket(), profile))

    async def _ask(self, event: LoadRequested | UnloadRequested) -> Complete:
        way = self._departure.way
        if way is not None:
            verb = "restarting" if way == "restart" else "stopping"
            raise ShuttingDownError(f"llmd is {verb}", retry_after_s=5.0)
        future: asyncio.Future[Complete] = asyncio.get_running_loop().create_future()
        self._waiting[event.ticket] = future
        self._dispatch(event)
        return await future

    def complete(self, done: Complete) -> None:
        """A command is done; nothing happens when nobody waits for it any more."""
        future = self._waiting.pop(done.ticket, None)
        if future is not None and not future.done():
            future.set_result(done)

    def refuse(self, ticket: Ticket, error: LlmdError) -> None:
        """A command will not be done; a *ticket* that is none of a command is ignored."""
        future = self._waiting.pop(ticket, None)
        if future is not None and not future.done():
            future.set_exception(error)

    def refuse_all(self) -> None:
        """The daemon ends: nobody will carry out what is still to be done."""
        for ticket in tuple(self._waiting):
            self.refuse(ticket, ShuttingDownError("llmd ended before this was done"))
