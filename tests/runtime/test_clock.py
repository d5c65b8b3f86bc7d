"""Sleep is told from the two clocks of the system."""

import pytest

from llmd.runtime import clock
from llmd.runtime.clock import NAP_S, Naps


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
    assert naps.slept_s() == 0.0
    machine.asleep_s += 3600
    assert naps.slept_s() == 3600
    assert naps.slept_s() == 0.0


def test_naps_too_short_to_matter_add_up(machine):
    naps = Naps(machine)
    machine.asleep_s += NAP_S * 0.6
    assert naps.slept_s() == 0.0
    machine.asleep_s += NAP_S * 0.6
    assert naps.slept_s() == pytest.approx(NAP_S * 1.2)


def test_reading_that_was_interrupted_is_no_sleep(machine):
    naps = Naps(machine)
    machine.asleep_s -= 10  # ten seconds between reading the one clock and the other
    assert naps.slept_s() == 0.0
    machine.asleep_s += 10
    assert naps.slept_s() == 0.0


def test_machine_that_is_awake_has_not_slept():
    assert Naps().slept_s() == 0.0
    assert clock.now() <= clock.now()
