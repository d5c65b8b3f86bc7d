"""One timer for many connections: deadlines that are cheap to move and cost nothing while idle.

A connection moves its deadline with each request, often with each chunk. An event-loop timer for
each would cost more than the splice itself, so all share a heap and a single timer set to the
earliest. Putting a deadline off is an attribute write: the heap notices when it gets there. With no
deadline pending there is no timer, and nothing wakes up.
"""

import asyncio
from collections.abc import Callable
from heapq import heapify, heappop, heappush
from math import inf
from typing import Final


_SWEEP_FROM: Final = 64
"""Heaps smaller than this are not worth sweeping."""


class Alarm:
    """One deadline of one owner; `due_s` is on the event loop's clock, `inf` when it is off."""

    __slots__ = ("_deadlines", "due_s", "queued_s", "ring")

    def __init__(self, deadlines: "Deadlines", ring: Callable[[], None]) -> None:
        self.due_s = inf
        self.ring: Callable[[], None] | None = ring
        self.queued_s = inf
        self._deadlines = deadlines

    def set(self, delay_s: float) -> None:
        """Ring in *delay_s* seconds, instead of whenever it would have rung."""
        self.due_s = due_s = self._deadlines.now() + delay_s
        if due_s < self.queued_s:
            self._deadlines.push(self, due_s)

    def clear(self) -> None:
        """Do not ring."""
        self.due_s = inf

    def close(self) -> None:
        """Never ring again, and let go of the owner at once."""
        if self.ring is not None:
            self.ring = None
            self.due_s = inf
            self._deadlines.forget(self)


class Deadlines:
    """The heap of queued deadlines and the one timer behind them."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self.now: Callable[[], float] = loop.time
        self._heap: list[tuple[float, int, Alarm]] = []
        self._pushes = 0
        self._dead = 0
        self._timer: asyncio.TimerHandle | None = None
        self._timer_s = inf

    @property
    def timer_running(self) -> bool:
        """Whether the event loop will be woken for a deadline."""
        return self._timer is not None

    def push(self, alarm: Alarm, due_s: float) -> None:
        """Queue *alarm* for *due_s*; an entry it has further back becomes void."""
        if alarm.queued_s != inf:
            self._dead += 1
        alarm.queued_s = due_s
        self._pushes += 1
        heappush(self._heap, (due_s, self._pushes, alarm))
        if due_s < self._timer_s:
            self._start_timer(due_s)

    def forget(self, alarm: Alarm) -> None:
        """Note that *alarm* was closed; sweep the heap when most of it is void."""
        if alarm.queued_s != inf:
            alarm.queued_s = inf
            self._dead += 1
        if self._all_void():
            self._stop_timer()
        elif self._dead > _SWEEP_FROM and self._dead * 2 > len(self._heap):
            self._heap = [entry for entry in self._heap if entry[2].queued_s == entry[0]]
            heapify(self._heap)
            self._dead = 0

    def _all_void(self) -> bool:
        """Whether nobody waits any more; if so, empty the heap."""
        if self._dead < len(self._heap):
            return False
        self._heap.clear()
        self._dead = 0
        return True

    def _start_timer(self, due_s: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer_s = due_s
        self._timer = self._loop.call_at(due_s, self._fire)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._timer_s = inf

    def _fire(self) -> None:
        self._timer = None
        # Keeps `push` from starting a timer while the loop below still looks at the heap.
        self._timer_s = -inf
        heap, now_s = self._heap, self.now()
        ringing: list[Alarm] = []
        while heap and heap[0][0] <= now_s:
            queued_s, _, alarm = heappop(heap)
            if alarm.queued_s != queued_s:
                self._dead -= 1
                continue
            alarm.queued_s = inf
            if alarm.due_s <= now_s:
                alarm.due_s = inf
                ringing.append(alarm)
            elif alarm.due_s != inf:
                self.push(alarm, alarm.due_s)
        try:
            for alarm in ringing:
                # An earlier one may have closed or moved a later one.
                if alarm.ring is not None and alarm.due_s == inf:
                    alarm.ring()
        finally:
            self._timer_s = inf
            if not self._all_void():
                self._start_timer(self._heap[0][0])
