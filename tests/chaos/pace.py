"""Time as it passes where nobody else uses the machine: other people's work is not our fault."""

import asyncio
import time


SAMPLE_S = 0.05
"""Long enough to be interrupted: a moment is had at once on a busy machine, too."""
LOOK_S = 0.2


def pace() -> float:
    """The share of a processor that somebody gets who wants one: about 1.0 on an idle machine."""
    began, worked = time.monotonic(), time.thread_time()
    while (done := time.thread_time() - worked) < SAMPLE_S:
        pass
    return done / (time.monotonic() - began)


class Stopwatch:
    """How long something takes.

    Attributes:
        passed_s: On the clock.
        own_s: The same, without what others took of the machine meanwhile.
    """

    def __init__(self):
        self.passed_s = 0.0
        self.own_s = 0.0

    async def run(self):
        """Until cancelled."""
        while True:
            began = time.monotonic()
            await asyncio.sleep(LOOK_S)
            share = await asyncio.to_thread(pace)
            took = time.monotonic() - began
            self.passed_s += took
            self.own_s += took * share
