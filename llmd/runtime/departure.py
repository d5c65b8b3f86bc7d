"""How a daemon ends: it stops its hosts, or leaves them to the daemon that follows.

| way | requests in flight | hosts | afterwards |
|---|---|---|---|
| stop | finished, within the drain time | stopped and reaped | the process exits |
| leave | the same | live on for `orphan_grace`, to be adopted | the process exits |
| restart | the same | the same | the process re-executes itself |

While it leaves or restarts, nothing new begins: connections wait in the backlog of the listening
sockets, which the service manager or the next image holds.
"""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Final, Literal

import structlog

from llmd.core.events import Event, Stopping
from llmd.errors import ShuttingDownError
from llmd.proxy.listener import Standing
from llmd.runtime.hosting import Hosting
from llmd.runtime.ledger import Ledger
from llmd.runtime.ports import Ports


Way = Literal["stop", "leave", "restart"]

FORCE_S: Final = 5.0
"""After the drain time, for hosts to end once their requests are cut."""

_GOODBYE_S: Final = 1.0
"""For the last bytes to reach clients whose requests were cut."""

_RANK: Final[dict[Way, int]] = {"restart": 1, "leave": 2, "stop": 3}

log = structlog.get_logger("llmd")


class Departure:
    """The end of a daemon; begun at most once for each way, a graver one replacing a lighter.

    Attributes:
        way: How it ends; None while nobody has asked for it.
        ended: Set when everything is done.
        standing: What a restart passes on, by port.
    """

    def __init__(
        self,
        *,
        ports: Ports,
        hosting: Hosting,
        ledger: Ledger,
        dispatch: Callable[[Event], None],
        spawn_task: Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]],
        record: Callable[[], None],
    ) -> None:
        self._ports = ports
        self._hosting = hosting
        self._ledger = ledger
        self._dispatch = dispatch
        self._spawn_task = spawn_task
        self._record = record
        self._task: asyncio.Task[None] | None = None
        self.way: Way | None = None
        self.ended = asyncio.Event()
        self.standing: dict[int, Standing] = {}

    def begin(self, way: Way, *, drain_s: float) -> None:
        """Begin to end; returns at once. What is in flight gets *drain_s* seconds at most."""
        if self.way is not None and _RANK[way] <= _RANK[self.way]:
            return
        self.way = way
        if self._task is not None:
            self._task.cancel()
        log.info("daemon.departing", way=way, drain_timeout_s=drain_s)
        self._task = self._spawn_task(
            self._stop(drain_s) if way == "stop" else self._leave(drain_s, way)
        )

    async def _stop(self, drain_s: float) -> None:
        self._ports.stop_accepting()
        self._dispatch(Stopping())
        gone = asyncio.gather(*(host.gone.wait() for host in self._hosting))
        await asyncio.wait((gone,), timeout=drain_s)
        self._dispatch(Stopping(force=True))
        if not gone.done():
            await asyncio.wait((gone,), timeout=2 * FORCE_S)
            gone.cancel()
        await self._ports.drain(timeout_s=_GOODBYE_S)
        self._ledger.clear()
        self.ended.set()

    async def _leave(self, drain_s: float, way: Way) -> None:
        self._ports.hold()
        if not await self._ports.settle(timeout_s=drain_s):
            log.warning("requests.cut", reason=f"still in flight after {drain_s:g} s")
            self._ports.end_all(ShuttingDownError("llmd is being restarted", retry_after_s=1.0))
            await self._ports.settle(timeout_s=_GOODBYE_S)
        if way == "restart":
            try:
                self.standing = self._ports.hand_over()
            except OSError as error:
                log.error("restart.failed", reason=str(error))
                await self._ports.take_back()
                self.way = self._task = None
                return
        self._record()
        self._hosting.leave()
        self.ended.set()
