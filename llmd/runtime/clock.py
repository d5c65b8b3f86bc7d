"""The one clock that decisions are made on."""

import sys
import time
from typing import Final


_CLOCK: Final = time.CLOCK_MONOTONIC if sys.platform == "darwin" else time.CLOCK_BOOTTIME
"""Counts through sleep on both systems (man clock_gettime): an hour's nap is an hour idle."""


def now() -> float:
    """Seconds since some moment in the past; never goes back, and goes on while asleep."""
    return time.clock_gettime(_CLOCK)
