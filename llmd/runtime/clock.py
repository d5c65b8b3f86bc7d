"""The one clock that decisions are made on, and whether the machine slept."""

import asyncio
import contextlib
import sys
import time
from collections.abc import AsyncGenerator, Callable
from functools import partial
from math import inf
from typing import Final


NAP_S: Final = 3.0
"""A shorter sleep is nobody's concern."""

# `_CLOCK` counts through sleep on both systems (man clock_gettime): an hour's nap is an hour idle.
# `_THROUGH` and `_AWAKE` run at exactly the same rate, but for sleep. macOS corrects the rate of
# its `CLOCK_MONOTONIC`, by up to some seconds a day.
if sys.platform == "darwin":
    _CLOCK: Final = time.CLOCK_MONOTONIC
    _THROUGH: Final = time.CLOCK_MONOTONIC_RAW
    _AWAKE: Final = time.CLOCK_UPTIME_RAW
else:
    _CLOCK: Final = time.CLOCK_BOOTTIME
    _THROUGH: Final = time.CLOCK_BOOTTIME
    _AWAKE: Final = time.CLOCK_MONOTONIC


now: Final[Callable[[], float]] = partial(time.clock_gettime, _CLOCK)
"""Seconds since some moment in the past; never goes back, and goes on while asleep."""


def awake_s() -> float:
    """Seconds since some moment in the past, but for those asleep; never goes back."""
    return time.clock_gettime(_AWAKE)


def asleep_s() -> float:
    """Seconds that the machine has slept since it was started, give or take a constant.

    Whoever is interrupted between the two readings is told too little, and the truth the next time.
    """
    through_s = time.clock_gettime(_THROUGH)
    return through_s - awake_s()


@contextlib.asynccontextmanager
async def time_limit(
    limit_s: float, awake_s: Callable[[], float] = awake_s
) -> AsyncGenerator[None, None]:
    """As `asyncio.timeout`, for work that stands still while the machine sleeps: a load.

    Raises:
        TimeoutError: It took longer than *limit_s* seconds awake.
    """
    loop = asyncio.get_running_loop()
    end_s = awake_s() + limit_s
    timer: asyncio.TimerHandle | None = None
    async with asyncio.timeout(None) as timeout:

        def look() -> None:
            nonlocal timer
            left_s = end_s - awake_s()
            if left_s <= 0:
                timeout.reschedule(loop.time())
            else:
                timer = loop.call_later(left_s, look)

        timer = loop.call_later(limit_s, look)
        try:
            yield
        finally:
            if timer is not None:
                timer.cancel()


class Naps:
    """Notices that the machine slept.

    Timers cannot tell: those of the event loop stand still meanwhile on Linux, and on macOS all
    fire at once afterwards (libuv counts on `mach_continuous_time` there).
    """

    def __init__(self, asleep_s: Callable[[], float] = asleep_s) -> None:
        self._asleep_s = asleep_s
        self._known_s = asleep_s()
        self._looked_s = -inf

    def slept_s(self, now_s: float) -> float:
        """Seconds slept since the last call; 0.0 when that is less than `NAP_S`.

        Call it often, with `now`: that it must look at a clock at all is rare then.
        """
        if now_s - self._looked_s < NAP_S:
            return 0.0  # no time for a nap
        self._looked_s = now_s
        slept_s = self._asleep_s() - self._known_s
        if slept_s < NAP_S:
            return 0.0
        self._known_s += slept_s
        return slept_s
