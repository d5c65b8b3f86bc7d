"""Pressure and sleep: what the machine does to everybody at once, and what is made of it."""

import pytest

from llmd.core import events as e
from llmd.core import facts
from llmd.errors import QueueTimeoutError
from tests.core.world import World, profile


HOUR_S = 3600.0


def world_with(*residents, **rules):
    """Three profiles of 10, room for all; *residents* are ready."""
    world = World(
        [profile("code", 8081, 10), profile("chat", 8082, 10), profile("raw", 8083, 10)],
        budget=30,
        **rules,
    )
    for name in residents:
        world.load(name)
        world.now += 1
        world.up(name)
    return world


def press(world):
    """Report pressure; the record of what was done, if there is one."""
    world.notes.clear()
    world.send(e.PressureRose("some 20 %"))
    records = world.noted("pressure.rose")
    assert len(records) < 2
    return records[0] if records else None


# --- pressure


def test_record_of_pressure_says_who_went_and_what_remains():
    world = world_with("code", "chat")
    world.ask(8081)
    assert press(world) == {
        "source": "some 20 %",
        "done": "evicted chat",
        "evicted": ("chat",),
        "trimmed": (),
        "freed_bytes": 10,
        "used_bytes": 10,
    }


def test_record_of_pressure_says_whose_caches_were_trimmed_when_all_are_busy():
    world = world_with("code", "chat")
    world.ask(8081)
    world.ask(8082)
    record = press(world)
    assert record["done"] == "trimmed the prompt caches of code, chat"
    assert (record["trimmed"], record["freed_bytes"]) == (("code", "chat"), 0)
    assert record["used_bytes"] == 20


def test_record_of_pressure_says_when_nothing_can_be_done():
    world = world_with()
    record = press(world)
    assert record["done"] == "nothing: no resident is left that could go"
    assert (record["freed_bytes"], record["used_bytes"]) == (0, 0)


def test_one_that_leaves_already_is_not_counted_as_freed_again():
    world = world_with("code", "chat")
    world.unload("code")
    record = press(world)
    assert (record["evicted"], record["freed_bytes"], record["used_bytes"]) == (("chat",), 10, 0)


def test_pressure_that_lasts_is_answered_by_trimming_only_now_and_then():
    world = world_with("code")
    world.ask(8081)
    assert press(world)["trimmed"] == ("code",)
    world.now += 10
    assert press(world) is None
    assert len(world.trimmed) == 1
    world.now += 60
    assert press(world)["trimmed"] == ("code",)


def test_pressure_that_lasts_still_takes_whoever_becomes_idle():
    world = world_with("code")
    ticket = world.ask(8081)
    press(world)
    world.finish(ticket)
    world.now += 10
    assert press(world)["evicted"] == ("code",)


def test_spare_that_pressure_ended_is_not_started_again_at_once():
    world = World([profile("code", 1, 10, spare_kind="mlx")], budget=30, spare_bytes=5)
    (host,) = world.spares
    record = press(world)
    assert (record["done"], record["freed_bytes"]) == ("stopped the spare", 5)
    world.gone(host)
    world.sleep(59)
    assert not world.spares
    world.sleep(2)
    assert world.spares


# --- sleep


def doze(world, seconds):
    """Sleep: nothing runs, the clock goes on, and waking up is what comes first."""
    world.now += seconds
    world.send(e.Ticked(slept_s=seconds))


@pytest.fixture
def waiting():
    """A world in which a request waits for a busy port that serves one at a time."""
    world = world_with("code")
    world.ask(8081)
    world.second = world.ask(8081)
    return world


def test_request_is_not_timed_out_for_time_that_the_machine_slept(waiting):
    waiting.sleep(500)
    doze(waiting, HOUR_S)
    waiting.sleep(99)
    assert waiting.second not in waiting.refused
    waiting.sleep(1)
    assert isinstance(waiting.refused[waiting.second], QueueTimeoutError)


def test_busy_resident_is_not_drained_for_one_that_was_impatient_only_asleep():
    world = world_with("code", "chat", "raw")
    profiles = (*world.profiles.values(), profile("extra", 8084, 10))
    world.send(e.ConfigReplaced(facts.Rules(budget_bytes=30), profiles))
    world.now += 60
    for port in (8081, 8082, 8083, 8084):
        world.ask(port)
    doze(world, HOUR_S)
    assert "draining" not in [port.state for port in world.view().ports]
    world.sleep(5)
    assert "draining" in [port.state for port in world.view().ports]


def test_night_asleep_is_a_night_idle():
    world = world_with("code")
    doze(world, 8 * HOUR_S)
    assert world.state("code") == "unloading"


def test_resident_that_slept_for_less_than_its_ttl_stays():
    world = world_with("code")
    doze(world, 1000.0)
    assert world.state("code") == "ready"
    assert world.view().profiles[0].idle_s == 1000.0


def test_resident_with_a_request_in_flight_sleeps_and_stays(waiting):
    doze(waiting, 8 * HOUR_S)
    assert waiting.state("code") == "ready"


def test_back_off_is_over_after_a_sleep():
    world = world_with()
    world.ask(8081)
    for _ in range(5):
        world.gone("code", facts.Failure("no luck", exit_code=1))
        world.now += HOUR_S
        world.ask(8081)
    world.gone("code", facts.Failure("no luck", exit_code=1))
    refused = world.ask(8081)
    assert refused in world.refused
    doze(world, HOUR_S)
    assert world.ask(8081) not in world.refused


def test_sleep_does_not_make_a_load_look_slow():
    world = world_with()
    world.ask(8081)
    world.now += 3
    doze(world, HOUR_S)
    world.now += 4
    world.ready("code")
    assert world.view().profiles[0].load_s == 7.0


def test_waking_up_is_recorded_and_a_tick_is_not():
    world = world_with()
    world.send(e.Ticked())
    doze(world, 3600.04)
    assert world.noted("system.woke") == [{"slept_s": 3600.0}]
