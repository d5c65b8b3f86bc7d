"""What has to be looked at now and then: memory of the hosts, pressure, the configuration file."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

import structlog

from llmd.core.events import PressureRose
from llmd.runtime.daemon import Daemon
from llmd.runtime.memory import pressure


ROUND_S: Final = 2.0
"""Half a wake-up per second: the only timer of an idle daemon."""
PRESSURE_PAUSE_S: Final = 10.0
"""Between reactions to memory pressure: freed memory takes time to be seen."""

log = structlog.get_logger("llmd.watch")


async def watch(daemon: Daemon, config_file: Path, reload: Callable[[], Awaitable[object]]) -> None:
    """Look around every `ROUND_S` seconds until cancelled."""
    seen = stamp(config_file)
    relieved_s = 0.0
    loop = asyncio.get_running_loop()
    while True:
        await asyncio.sleep(ROUND_S)
        for host in daemon.hosting:
            daemon.hosting.measure(host)
        source = pressure()
        if source is not None and loop.time() >= relieved_s:
            relieved_s = loop.time() + PRESSURE_PAUSE_S
            daemon.dispatch(PressureRose(source))
        current = stamp(config_file)
        if current != seen and daemon.config.watch_config:
            seen = current
            if current is not None:
                await reload()


def stamp(path: Path) -> tuple[int, int, int] | None:
    """Changes when the file does; None when it is not there (an editor may be replacing it)."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino
