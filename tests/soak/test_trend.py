import random

import pytest

from tests.soak.trend import READINGS_MIN, trend


def noisy(value, count=40, seed=1, spread=3.0):
    """Readings of *value* at each moment, with noise."""
    dice = random.Random(seed)
    return [value(index) + dice.uniform(-spread, spread) for index in range(count)]


def test_slow_leak_under_noise_is_found():
    found = trend(noisy(lambda index: 100 + index * 0.5))
    assert 12 < found.growth < 20
    assert not found.flat(0.05, 4)


@pytest.mark.parametrize("seed", range(20))
def test_noise_alone_is_flat(seed):
    assert trend(noisy(lambda _: 100, seed=seed)).flat(0.05, 4)


def test_filling_caches_at_the_beginning_are_no_leak():
    assert trend(noisy(lambda index: min(100 + index * 20, 260))).flat(0.05, 4)


def test_one_outlier_is_no_trend():
    series = [100.0] * 30
    series[-1] = 1000.0
    assert trend(series).flat(0.05, 4)


def test_steady_growth_within_the_slack_is_flat():
    series = [100 + index * 0.1 for index in range(20)]
    assert trend(series).flat(0.05, 0)
    assert not trend(series).flat(0.005, 1)


def test_what_shrinks_is_flat():
    assert trend([100.0 - index for index in range(30)]).flat(0, 0)


def test_step_that_stays_is_growth():
    assert not trend([100.0] * 14 + [130.0] * 12).flat(0.05, 4)


def test_series_without_any_change_is_flat():
    found = trend([7.0] * 20)
    assert (found.first, found.growth, found.score) == (7.0, 0.0, 0.0)
    assert found.flat(0, 0)


def test_too_few_readings_say_nothing():
    assert trend([1.0] * READINGS_MIN) is None
