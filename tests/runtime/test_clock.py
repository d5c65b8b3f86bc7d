"""Sleep is told from the two clocks of the system."""

import asyncio
from collections import deque
from types import SimpleNamespace

import pytest
import uvloop

from llmd.core.events import RequestFinished, Ticked
from llmd.runtime import clock
from llmd.runtime.clock import NAP_S, Naps, time_limit
from llmd.runtime.daemon import Daemon


class FakeMachine:
    """How long it has slept since it was started."""

    def __init__(self):
        self.asleep_s = 7000.0

    def __call__(self):
        return self.asleep_s


@pytest.fixture
def machine():
    return FakeMachine()


def test_sleep_is_told_once(machine):
    naps = Naps(machine)
    assert naps.slept_s(100.0) == 0.0
    machine.asleep_s += 3600
    assert naps.slept_s(3701.0) == 3600
    assert naps.slept_s(3702.0) == 0.0
    assert naps.slept_s(3800.0) == 0.0


def test_naps_too_short_to_matter_add_up(machine):
    naps = Naps(machine)
    machine.asleep_s += NAP_S * 0.6
    assert naps.slept_s(10.0) == 0.0
    machine.asleep_s += NAP_S * 0.6
    assert naps.slept_s(20.0) == pytest.approx(NAP_S * 1.2)


def test_clock_is_not_looked_at_again_where_no_nap_could_have_been(machine):
    naps = Naps(machine)
    assert naps.slept_s(100.0) == 0.0
    machine.asleep_s += 3600  # impossible in so short a time
    assert naps.slept_s(100.0 + NAP_S * 0.9) == 0.0
    assert naps.slept_s(100.0 + NAP_S) == 3600


def test_reading_that_was_interrupted_is_no_sleep(machine):
    naps = Naps(machine)
    machine.asleep_s -= 10  # ten seconds between reading the one clock and the other
    assert naps.slept_s(10.0) == 0.0
    machine.asleep_s += 10
    assert naps.slept_s(20.0) == 0.0


def test_machine_that_is_awake_has_not_slept():
    assert Naps().slept_s(clock.now()) == 0.0
    assert clock.now() <= clock.now()


class FakeAwake:
    """A clock of seconds awake that answers as written, and then stays."""

    def __init__(self, *readings):
        self.readings = list(readings)

    def __call__(self):
        return self.readings.pop(0) if len(self.readings) > 1 else self.readings[0]


async def test_limit_ends_work_that_takes_longer():
    with pytest.raises(TimeoutError):
        async with time_limit(0.01):
            await asyncio.Event().wait()


async def test_limit_does_not_end_work_for_seconds_asleep():
    awake = FakeAwake(100.0, 100.001, 100.002, 100.02)
    with pytest.raises(TimeoutError):
        async with time_limit(0.01, awake):
            await asyncio.Event().wait()
    assert awake.readings == [100.02]


async def test_limit_is_forgotten_with_the_work_that_kept_it():
    awake = FakeAwake(100.0, 200.0, 300.0)
    async with time_limit(0.0, awake):
        pass
    await asyncio.sleep(0)  # a timer that was left would run
    await asyncio.sleep(0)
    assert awake.readings == [200.0, 300.0]


def test_limit_holds_on_the_loop_of_the_daemon():
    async def late():
        async with time_limit(0.01):
            await asyncio.Event().wait()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner, pytest.raises(TimeoutError):
        runner.run(late())


def test_daemon_hears_of_a_sleep_before_the_event_that_ended_it(machine, monkeypatch):
    handled = []
    daemon = Daemon.__new__(Daemon)
    daemon._queue, daemon._dispatching, daemon._naps = deque(), False, Naps(machine)
    daemon.dispatched = 0
    daemon.scheduler = SimpleNamespace(handle=lambda event, *, now: handled.append(event) or [])
    daemon.dispatch(RequestFinished(1))
    machine.asleep_s += 3600
    now_s = clock.now()
    monkeypatch.setattr(clock, "now", lambda: now_s + 3600)
    daemon.dispatch(RequestFinished(2))
    assert handled == [RequestFinished(1), Ticked(slept_s=3600), RequestFinished(2)]


@pytest.mark.parametrize(
    ("first_s", "then_s"), [(0.0, 0.0), (0.0003, 0.0002), (0.0, 60.0), (60.0, 0.0), (60.0, 0.0003)]
)
def test_daemon_wakes_at_the_earliest_moment_however_near(first_s, then_s):
    """For less than half a millisecond uvloop gives a timer that cannot tell when it is due."""

    async def wake():
        daemon = Daemon.__new__(Daemon)
        daemon._timer, daemon._due_s = None, 0.0
        woken = asyncio.Event()
        daemon.dispatch = lambda event: woken.set()
        daemon._wake_at(clock.now() + first_s)
        daemon._wake_at(clock.now() + then_s)
        async with asyncio.timeout(10):
            await woken.wait()

    uvloop.run(wake())
