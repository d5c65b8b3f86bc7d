"""Profiles that die of memory are started smaller, and not for ever."""

from math import inf, nan

import pytest
from msgspec.structs import replace

from llmd.core import events as e
from llmd.core import facts
from llmd.core.reduction import REDUCED_S, Extent, Reduction, describe_reduction, smaller_sizes
from tests.core.world import World, profile


GIB = 2**30
FULL = Extent(4 * GIB, 4, 32768)
MEMORY = facts.Failure("the host ended", signal="SIGKILL", oom_kills=1)
CRASH = facts.Failure("the host ended", signal="SIGSEGV")


@pytest.mark.parametrize(
    ("full", "sizes"),
    [
        pytest.param(
            FULL,
            [Extent(GIB, 4, 32768), Extent(0, 1, 32768), Extent(0, 1, 16384), Extent(0, 1, 8192)],
            id="caches, then sequences, then context",
        ),
        pytest.param(
            Extent(0, 2, 4096), [Extent(0, 1, 4096), Extent(0, 1, 2048)], id="no cache to give up"
        ),
        pytest.param(Extent(0, 1, 3000), [Extent(0, 1, 2048)], id="a context of at least 2,048"),
        pytest.param(Extent(0, 1, 512), [], id="nothing left to give up"),
    ],
)
def test_sizes_get_smaller_one_by_one(full, sizes):
    assert list(smaller_sizes(full)) == sizes


def test_what_is_smaller_is_told_and_nothing_else():
    told = describe_reduction(FULL, Extent(0, 1, 8192))
    assert told == (
        "prompt cache nothing instead of 4 GiB, 1 sequence instead of 4, "
        "context 8,192 instead of 32,768"
    )
    assert describe_reduction(FULL, replace(FULL, prompt_cache_bytes=GIB)) == (
        "prompt cache 1 GiB instead of 4 GiB"
    )
    assert describe_reduction(FULL, FULL) == ""


@pytest.mark.parametrize("since", [inf, -inf, nan, 1e300])
def test_no_time_of_a_ledger_makes_a_reduction_last_for_ever(since):
    assert Reduction(1, since, "f").overdue(5.0)


def sized(name, port, *footprints):
    """A profile whose sizes take *footprints*, the full one first."""
    full, *smaller = (
        replace(
            profile(name, port, footprint, parallel=3 - size),
            fingerprint=f"{name}-{size}",
            extent=Extent((2 - size) * GIB, 1, 8192),
        )
        for size, footprint in enumerate(footprints)
    )
    return replace(full, smaller=tuple(smaller))


def one(**rules):
    """One profile of 10, 6 or 4, beside one of 10 that never dies; room for 20."""
    return World([sized("code", 8081, 10, 6, 4), profile("chat", 8082, 10)], budget=20, **rules)


def die(world, failure=MEMORY):
    """Load the profile if need be, serve a request, and die of *failure* during the next."""
    world.finish(world.ask(8081))
    world.ask(8081)
    world.gone("code", failure)


def code(world):
    return next(view for view in world.view().profiles if view.name == "code")


def loaded(world):
    ticket = world.ask(8081)
    world.up("code")
    world.finish(ticket)
    return code(world)


@pytest.fixture
def world():
    world = one()
    loaded(world)
    return world


def test_death_of_memory_makes_the_next_host_smaller_and_says_so(world):
    die(world)
    (note,) = world.noted("profile.reduced")
    assert note["change"] == "prompt cache 1 GiB instead of 2 GiB"
    assert (note["was_bytes"], note["need_bytes"]) == (10, 6)
    view = loaded(world)
    assert (view.charged_bytes, view.size) == (6, 1)
    assert view.reduced == "prompt cache 1 GiB instead of 2 GiB"
    assert view.last_error.endswith("from now on: prompt cache 1 GiB instead of 2 GiB")


def test_host_is_started_in_the_size_that_is_charged(world):
    die(world)
    effects = world.send(e.RequestArrived(99, 8081))
    world.open.add(99)
    starts = [effect for effect in effects if isinstance(effect, e.StartHost)]
    assert [start.size for start in starts] == [1]


def test_each_death_makes_it_smaller_until_nothing_is_left(world):
    sizes = []
    for _ in range(4):
        die(world)
        sizes.append(loaded(world).charged_bytes)
        world.now += 400  # past any back-off
    assert sizes == [6, 4, 4, 4]
    assert len(world.noted("profile.reduced")) == 2


def test_as_many_requests_are_granted_as_the_smaller_size_serves(world):
    die(world)
    loaded(world)
    for _ in range(3):
        world.ask(8081)
    assert (code(world).in_flight, code(world).queued) == (2, 1)


@pytest.mark.parametrize("failure", [CRASH, None])
def test_other_deaths_change_no_size(world, failure):
    die(world, failure)
    assert loaded(world).charged_bytes == 10
    assert not world.noted("profile.reduced")


def test_whoever_waits_for_a_load_that_dies_of_memory_gets_smaller_ones_until_there_are_none():
    world = one()
    ticket = world.ask(8081)
    world.gone("code", MEMORY)
    world.gone("code", MEMORY)
    assert (code(world).state, code(world).charged_bytes) == ("loading", 4)
    world.gone("code", MEMORY)
    assert "want of memory" in world.refused[ticket].message
    assert code(world).state == "failed"


def test_administrator_gets_the_full_size(world):
    die(world)
    world.load("code")
    world.up("code")
    assert (code(world).charged_bytes, code(world).reduced) == (10, "")
    assert world.noted("profile.restored")


def test_resident_keeps_its_size_when_an_administrator_asks_for_it(world):
    die(world)
    loaded(world)
    world.load("code")
    assert (code(world).charged_bytes, code(world).size) == (6, 1)


def test_day_without_such_a_death_gives_the_size_back_once_it_is_unloaded(world):
    die(world)
    loaded(world)
    world.ask(8081)  # so that it stays all the time
    world.now += REDUCED_S
    world.send(e.Ticked())
    assert (code(world).charged_bytes, code(world).size) == (6, 1)
    world.gone("code", CRASH)
    assert loaded(world).charged_bytes == 10


def test_other_configuration_is_tried_whole_and_the_same_is_not(world):
    die(world)
    rules = world.scheduler._book.rules
    same = tuple(world.profiles.values())
    world.send(e.ConfigReplaced(rules, same))
    assert code(world).estimated_bytes == 6
    changed = (replace(same[0], fingerprint="another"), same[1])
    world.send(e.ConfigReplaced(rules, changed))
    assert (code(world).estimated_bytes, code(world).size) == (10, 0)


def test_death_of_an_earlier_configuration_says_nothing_of_this_one(world):
    rules = world.scheduler._book.rules
    world.ask(8081)
    same = tuple(world.profiles.values())
    world.send(e.ConfigReplaced(rules, (replace(same[0], fingerprint="another"), same[1])))
    world.gone("code", MEMORY)
    assert not world.noted("profile.reduced")


def test_smaller_size_outlives_the_daemon(world):
    die(world)
    loaded(world)
    world.crash()
    assert (code(world).charged_bytes, code(world).size) == (6, 1)
    world.ready("code")
    assert code(world).state == "ready"


@pytest.mark.parametrize("size", [-1, 0, 3, 10**9])
def test_ledger_that_names_no_size_is_not_believed(size):
    world = one()
    full = world.profiles["code"]
    left = facts.Stock(reductions={"code": Reduction(size, 0.0, full.fingerprint)})
    world.send(e.ConfigReplaced(world.scheduler._book.rules, tuple(world.profiles.values()), left))
    assert code(world).estimated_bytes == 10
