"""Hosts leave their prompts to the ones that follow, before they go."""

import asyncio
from typing import Final

import structlog

from llmd.runtime import clock
from llmd.runtime.host_process import HostFailedError, HostProcess
from llmd.runtime.saved_prompts import room_bytes, tidy


SAVE_S: Final = 3.0
"""For one host: so long at most does whoever needs its memory wait for it."""
_ANSWER_S: Final = 1.0
"""Beyond that, before it is held to hang."""

log = structlog.get_logger("llmd.saving")


class Saving:
    """Has prompts written, and deletes the oldest of them.

    Attributes:
        limit_bytes: What the prompts of all hosts that are gone may take on disk; the configuration
            may change it.
    """

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes

    async def of(self, profile: str, process: HostProcess) -> bool:
        """Have *process* write what it holds; whether it did. What it cannot write is lost.

        Raises:
            TimeoutError: It does not answer.
        """
        if process.state != "ready":
            return False
        began_s, room = clock.now(), room_bytes(self.limit_bytes)
        try:
            async with clock.time_limit(SAVE_S + _ANSWER_S):
                prompts, count = await process.save(limit_bytes=room, within_s=SAVE_S)
        except HostFailedError as error:
            log.warning("prompts.lost", profile=profile, reason=str(error))
            return False
        except TimeoutError:
            log.warning("prompts.lost", profile=profile, reason="the host does not answer")
            raise
        if prompts:
            took_s = round(clock.now() - began_s, 3)
            log.info("prompts.saved", profile=profile, prompts=prompts, bytes=count, s=took_s)
        return prompts > 0

    async def tidy(self) -> None:
        """Delete what is old, and what is too much."""
        await asyncio.to_thread(tidy, self.limit_bytes)
