"""What has to be looked at now and then: hosts and their logs, pressure, sleep, the configuration.

One round every few seconds is the only timer of an idle daemon. Nothing in it blocks for long.
"""

import asyncio
from collections.abc import Awaitable, Callable
from math import inf
from typing import Final

from llmd.core.events import PressureRose, Ticked
from llmd.runtime import clock
from llmd.runtime.awake import KeepAwake
from llmd.runtime.config_file import ConfigFile
from llmd.runtime.daemon import Daemon
from llmd.runtime.host_log import shorten_log
from llmd.runtime.memory import pressure


ROUND_S: Final = 2.0
"""Between rounds while somebody is served."""
IDLE_ROUND_S: Final = 4.0
"""While nobody is: a quarter of a wake-up per second."""
MEASURE_IDLE_S: Final = 30.0
"""Between measurements while nobody is served: each walks through all processes of the machine."""
PRESSURE_PAUSE_S: Final = 10.0
"""Between reactions to memory pressure: freed memory takes time to be seen."""

SERVICE_LOG: Final = "service.log"
"""Standard output and error under launchd, which appends to the file and never rotates it."""


class Watch:
    """One round after the other, until cancelled."""

    def __init__(
        self,
        daemon: Daemon,
        config_file: ConfigFile,
        reload: Callable[[], Awaitable[object]],
        *,
        beat: Callable[[], None] = lambda: None,
        beat_s: float | None = None,
        mind_hosts: Callable[[], None] = lambda: None,
        pressure: Callable[[], str | None] = pressure,
        keep_awake: KeepAwake | None = None,
        now: Callable[[], float] = clock.now,
    ) -> None:
        """Look at nothing yet.

        Args:
            daemon: Told of what is found.
            config_file: Its configuration.
            reload: Called when the file changes; does not raise for what is wrong in it.
            beat: Called each round: the event loop turns.
            beat_s: How often at least; None whenever it suits.
            mind_hosts: Called each round; looks for hosts that hang.
            pressure: Why memory is short, or None.
            keep_awake: Told each round whether there is work, while `keep_awake` is set.
            now: Seconds on a monotonic clock.
        """
        self._daemon = daemon
        self._config_file = config_file
        self._reload = reload
        self._beat = beat
        self._beat_s = inf if beat_s is None else beat_s
        self._mind_hosts = mind_hosts
        self._pressure = pressure
        self._keep_awake = KeepAwake() if keep_awake is None else keep_awake
        self._now = now
        self._busy = True
        self._dispatched = -1
        """By the daemon after the next round, if nothing happens until then."""
        self._measured_s = -inf
        self._relieved_s = -inf

    async def run(self) -> None:
        """Look around every few seconds until cancelled."""
        try:
            while True:
                await asyncio.sleep(self.pause_s)
                await self.look()
        finally:
            # Before the daemon re-executes itself, too: it keeps the pid that the holder watches.
            self._keep_awake.release()

    @property
    def pause_s(self) -> float:
        """Until the next round."""
        return min(ROUND_S if self._busy else IDLE_ROUND_S, self._beat_s)

    async def look(self) -> None:
        """One round."""
        daemon = self._daemon
        self._beat()
        daemon.dispatch(Ticked())  # on Linux timers stand still during sleep; see `clock.Naps`
        busy = self._busy = daemon.scheduler.busy
        if busy or self._now() >= self._measured_s + MEASURE_IDLE_S:
            self._measured_s = self._now()
            for host in daemon.hosting:
                daemon.hosting.measure(host)
        for host in daemon.hosting:
            if host.process is not None:
                host.process.log.shorten()
        self._mind_hosts()
        shorten_log(daemon.log_dir / SERVICE_LOG)
        self._relieve()
        self._keep_awake.mind(busy=busy and daemon.config.keep_awake)
        if daemon.dispatched != self._dispatched:
            daemon.record()
        self._dispatched = daemon.dispatched + 1  # with the tick
        await self._follow_file()

    def _relieve(self) -> None:
        source = self._pressure()
        if source is not None and self._now() >= self._relieved_s + PRESSURE_PAUSE_S:
            self._relieved_s = self._now()
            self._daemon.dispatch(PressureRose(source))

    async def _follow_file(self) -> None:
        if self._daemon.config.watch_config and self._config_file.changed():
            await self._reload()
