"""Hosts that hang, as the scheduler takes it: ended, replaced, held back when they go on so."""

from llmd.core import events as e
from llmd.core import facts
from llmd.core.history import BACKOFF_FIRST_S
from llmd.errors import LoadFailedError
from tests.core.world import World, profile


def loaded(*profiles, budget=10, **rules):
    """A world with the first of *profiles* ready and a request with it."""
    world = World(profiles, budget, **rules)
    ticket = world.ask(profiles[0].port, profiles[0].name)
    world.ready(profiles[0].name)
    assert ticket in world.granted
    return world, ticket


def test_host_that_hangs_is_stopped_and_told_with_its_numbers():
    world, _ = loaded(profile("a", 8081, 4))
    host = world.host("a")
    effects = world.stall(host, silent_s=121.04)
    assert e.StopHost(host, "it hung", at_once=True) in effects
    assert world.stopping == {host}
    assert world.noted("host.stalled") == [
        {"port": 8081, "profile": "a", "reason": "it hung", "in_flight": 1, "silent_s": 121.0,
         "bytes": 4}
    ]  # fmt: skip
    assert world.state("a") == "unloading"
    world.gone(host)
    assert world.state("a") == "unloaded"
    (view,) = world.view().profiles
    assert view.last_error == "it hung"


def test_whoever_waits_for_it_gets_a_fresh_host_once_it_is_reaped():
    world, _ = loaded(profile("a", 8081, 6, parallel=1))
    waiting = world.ask(8081)
    hung = world.host("a")
    world.stall(hung)
    assert list(world.running) == [hung], "not before its memory is free"
    world.gone(hung)
    world.ready("a")
    assert waiting in world.granted


def test_nothing_is_granted_to_it_any_more():
    world, _ = loaded(profile("a", 8081, 6))
    hung = world.host("a")
    world.stall(hung)
    late = world.ask(8081)
    assert late in world.open
    assert late not in world.granted
    world.gone(hung)
    world.ready("a")
    assert late in world.granted


def test_one_that_hangs_while_it_drains_makes_way_all_the_same():
    """It would drain for ever, and whoever waits for its port or its room with it."""
    world, _ = loaded(profile("a", 8081, 6), profile("b", 8081, 6), patience_s=1.0)
    other = world.ask(8081, "b")
    world.sleep(20)
    assert world.state("a") == "draining"
    hung = world.host("a")
    world.stall(hung)
    assert len(world.noted("host.stalled")) == 1
    world.gone(hung)
    world.ready("b")
    assert other in world.granted


def test_one_that_hangs_again_before_it_served_anything_backs_off():
    world, _ = loaded(profile("a", 8081, 4))
    for _ in range(2):
        hung = world.host("a")
        world.stall(hung)
        last = world.ask(8081)
        if last in world.refused:
            break
        world.gone(hung)
        world.ready("a")
    assert isinstance(world.refused[last], LoadFailedError)
    assert "it hung" in world.refused[last].message
    world.gone(hung)
    world.sleep(2 * BACKOFF_FIRST_S)
    assert world.ask(8081) in world.open, "and is tried again afterwards"


def test_one_that_served_in_between_is_simply_replaced():
    world, ticket = loaded(profile("a", 8081, 4))
    for _ in range(5):
        world.finish(ticket)
        hung = world.host("a")
        world.stall(hung)
        ticket = world.ask(8081)
        world.gone(hung)
        world.ready("a")
        assert ticket in world.granted


def test_verdict_on_a_host_that_is_gone_or_going_changes_nothing():
    world, ticket = loaded(profile("a", 8081, 4))
    world.finish(ticket)
    world.unload("a")
    host = world.host("a") if world.running.keys() - world.stopping else next(iter(world.stopping))
    world.stall(host)
    assert world.noted("host.stalled") == []
    world.gone(host)
    world.send(e.HostStalled(host, facts.Failure("it hung"), 9.0))
    world.send(e.HostStalled(999, facts.Failure("it hung"), 9.0))
    assert world.noted("host.stalled") == []


def test_one_that_is_still_loading_is_the_load_timeouts_business():
    world = World([profile("a", 8081, 4)], 10)
    world.ask(8081)
    world.stall(world.host("a"))
    assert world.state("a") == "loading"
    assert not world.stopping


def test_spare_that_hangs_is_replaced_after_a_pause():
    world = World([profile("a", 8081, 4, spare_kind="mlx")], 10, spare_bytes=1)
    world.sleep(30)
    (spare,) = world.spares
    world.send(e.HostReady(spare))
    world.stall(spare)
    world.stall(spare)
    assert world.stopping == {spare}
    assert [note["reason"] for note in world.noted("spare.failed")] == ["it hung"]
    world.gone(spare)
    assert not world.spares
    world.sleep(600)
    assert world.spares
