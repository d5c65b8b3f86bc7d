"""Which past counts as use, which forecast is believed, and what an event tells of it."""

from math import inf

import pytest
from msgspec.structs import replace

from llmd.core.events import ConfigReplaced
from llmd.core.facts import Past
from llmd.core.forecasts import HALF_LIFE_S
from llmd.core.history import TIME_CONSTANTS_S, History
from tests.core.world import World, profile


ALL = range(len(TIME_CONSTANTS_S))
HOURS = (len(TIME_CONSTANTS_S) - 1,)


def used(*times_s):
    history = History(load_s=1.0)
    for now in times_s:
        history.used(now)
    return history


def test_requests_of_one_minute_are_one_visit():
    busy, once = used(0, 10, 20, 30), used(30)
    assert busy.rate(ALL, 100) == once.rate(ALL, 100)
    assert busy.requests == 4


def test_each_visit_counts_and_fades():
    assert used(0, 600, 1200).rate(ALL, 1800) > used(1200).rate(ALL, 1800)
    assert used(0, 600).rate(ALL, 700) > used(0, 600).rate(ALL, 800) > 0


def test_rate_is_what_a_regular_habit_has():
    history = used(*range(0, 400_000, 1000))
    assert history.rate(HOURS, 400_000) == pytest.approx(1 / 1000, rel=0.05)


def test_never_used_is_expected_never():
    assert History(load_s=9.0).rate(ALL, 5.0) == 0
    assert History(load_s=9.0).idle_s(5.0) == inf


def test_past_survives_a_restart():
    history = used(0, 600, 1200)
    assert History.of(history.past()).rate(ALL, 1500) == history.rate(ALL, 1500)


def test_past_without_visits_as_older_daemons_wrote_it_is_told_without_infinities():
    assert History.of(Past(1.0, requests=3)).past() == Past(1.0, requests=3)


@pytest.mark.parametrize("visits", [(), (1.0,), (-5.0,) * 4, (1e308,) * 4])
def test_past_that_makes_no_sense_is_no_hindrance(visits):
    history = History.of(Past(1.0, visits=visits, visited_s=-1e308, used_s=1e300))
    history.used(5.0)
    assert 0 <= history.rate(ALL, 6.0) < inf


def ask(world, port):
    """A request that is served after whatever it takes."""
    ticket = world.ask(port)
    while ticket not in world.granted:
        if world.stopping:
            world.gone(next(iter(world.stopping)))
        else:
            world.sleep(10)
            world.ready(next(n for n in world.profiles if world.state(n) == "loading"))
    world.finish(ticket)


def two_of_three(**more):
    return World([profile(name, 1 + n, 10, **more) for n, name in enumerate("abc")], 20)


def test_scan_past_a_daily_habit_makes_the_longer_memory_believed():
    """`a` is used all day; now and then everything else is tried, long enough to look fresher."""
    world = two_of_three(idle_ttl_s=inf)
    for _ in range(12):
        for _ in range(3):
            ask(world, 1)
            world.sleep(300)
        world.sleep(1500)
        ask(world, 2)
        world.sleep(100)
        ask(world, 3)
        world.sleep(100)
    changes = world.noted("forecast.changed")
    assert changes[-1]["by"] == "hours"
    assert changes[-1]["loading_s"]["hours"] < changes[-1]["loading_s"]["minutes"]
    assert world.noted("profile.evicted")[-1]["profile"] != "a"


def test_forecasts_that_fare_alike_leave_the_first_believed():
    world = two_of_three()
    for port in (1, 2, 1, 2, 1, 2):
        ask(world, port)
        world.sleep(100)
    assert not world.noted("forecast.changed")


def test_eviction_tells_what_was_compared():
    world = two_of_three(load_s=3.0)
    for port in (1, 2, 1, 3):
        ask(world, port)
        world.sleep(300)
    [told] = world.noted("profile.evicted")
    assert told["profile"] == "b"
    assert told["forecast"] == "minutes"
    assert told["load_s"] == 10
    assert told["cost_s"] == pytest.approx(told["uses_per_h"] * told["load_s"], abs=0.1)
    assert told["cost_s"] > 0


def test_lru_weighs_no_forecasts():
    world = World([profile(n, p, 10) for n, p in (("a", 1), ("b", 2))], 10, eviction="lru")
    for port in (1, 2, 1, 2):
        ask(world, port)
        world.sleep(100)
    assert {told["forecast"] for told in world.noted("profile.evicted")} == {"last use"}
    assert not trials(world)[0].residents


def trials(world):
    return world.scheduler._forecasts._trials


def test_pinned_profile_stays_in_trials_too():
    pinned, *others = (profile(n, p, 10, idle_ttl_s=inf) for n, p in (("a", 1), ("b", 2), ("c", 3)))
    world = World([replace(pinned, pinned=True), *others], 20)
    for port in (1, 2, 3, 2, 3, 2, 3):
        ask(world, port)
        world.sleep(3000)
    assert [trial.residents for trial in trials(world)] == [{"a", "c"}] * 3


def test_trial_has_one_resident_on_a_port():
    world = World([profile("a", 1, 5), profile("b", 1, 5), profile("c", 2, 5)], 20)
    ask(world, 2)
    for name in ("a", "b"):
        world.load(name)
        while world.stopping:
            world.gone(next(iter(world.stopping)))
        world.sleep(1)
        world.ready(name)
        world.finish(world.ask(1))
    assert [trial.residents for trial in trials(world)] == [{"b", "c"}] * 3


def test_trial_is_charged_the_seconds_of_each_load_which_fade():
    world = two_of_three()
    ask(world, 1)
    assert [trial.charged_s for trial in trials(world)] == [10] * 3
    world.sleep(HALF_LIFE_S - 10)
    ask(world, 2)
    assert [trial.charged_s for trial in trials(world)] == [pytest.approx(15)] * 3


def test_trials_let_go_of_what_is_idle_for_too_long_and_what_left_the_configuration():
    world = two_of_three(idle_ttl_s=600)
    ask(world, 1)
    world.sleep(700)
    ask(world, 2)
    assert [trial.residents for trial in trials(world)] == [{"b"}] * 3
    world.send(ConfigReplaced(world.scheduler._book.rules, (profile("c", 3, 10),)))
    world.profiles = {"c": world.profiles["c"]}
    ask(world, 3)
    assert [trial.residents for trial in trials(world)] == [{"c"}] * 3
