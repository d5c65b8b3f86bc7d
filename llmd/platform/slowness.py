"""Why a machine may be slow: it swaps, it saves power, it is hot. Parses what the system prints."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from llmd.platform.run import Ran, run


ASK_S: Final = 5.0

_LINUX_SWAPS: Final = re.compile(r"^pswp(?:in|out) (\d+)$", re.MULTILINE)
_MAC_SWAPS: Final = re.compile(r"^Swap(?:ins|outs):\s+(\d+)\.$", re.MULTILINE)
_POWER_MODE: Final = re.compile(r"^\s*(lowpowermode|powermode)\s+(\d)\b", re.MULTILINE)
_SPEED: Final = re.compile(r"^\s*CPU_Speed_Limit\s*=\s*(\d+)", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Power:
    """How a Mac is held back.

    Attributes:
        saves: Low Power Mode is on.
        speed_percent: What heat leaves of the processor's speed.
    """

    saves: bool = False
    speed_percent: int = 100


def swapped_pages_linux(file: Path = Path("/proc/vmstat")) -> int:
    """Pages swapped in and out since the start; 0 when the kernel does not tell."""
    try:
        return sum(map(int, _LINUX_SWAPS.findall(file.read_text())))
    except OSError:
        return 0


def swapped_pages_mac(run: Callable[..., Ran] = run) -> int:
    """The same from `vm_stat`."""
    return sum(map(int, _MAC_SWAPS.findall(run(["vm_stat"], timeout_s=ASK_S).output)))


def power_of_mac(run: Callable[..., Ran] = run) -> Power:
    """What `pmset` says. Its key depends on the machine: `powermode` 1 is low, 2 is high."""
    modes = dict(_POWER_MODE.findall(run(["pmset", "-g"], timeout_s=ASK_S).output))
    speed = _SPEED.search(run(["pmset", "-g", "therm"], timeout_s=ASK_S).output)
    return Power(saves="1" in modes.values(), speed_percent=int(speed[1]) if speed else 100)
