"""A daemon that follows another: what it takes over, and what it lets go."""

from msgspec.structs import replace

from llmd.core import events as e
from llmd.core import facts
from llmd.errors import PortPinnedError
from tests.core.world import World, profile


def two_ports(**rules):
    return World([profile("a", 8081, 4), profile("b", 8082, 4)], 10, **rules)


def loaded(world, *ports):
    """Has a request served on each of *ports*."""
    for port in ports:
        ticket = world.ask(port)
        world.sleep(2)
        world.up(next(p.name for p in world.profiles.values() if p.port == port))
        world.finish(ticket)
    return world


def view(world, name):
    return next(p for p in world.view().profiles if p.name == name)


def test_what_was_resident_serves_again_and_is_not_loaded_again():
    world = loaded(two_ports(), 8081)
    before = view(world, "a")
    world.sleep(7)
    world.crash()
    assert world.state("a") == "loading"
    world.ready("a")
    after = view(world, "a")
    assert (after.state, after.loads, after.requests) == ("ready", before.loads, before.requests)
    assert after.idle_s == 7
    assert world.ask(8081) in world.granted
    assert not [n for n in world.notes[-3:] if n.name == "load.started"]


def test_request_that_comes_before_the_host_was_heard_waits_for_it():
    world = loaded(two_ports(), 8081)
    world.crash()
    ticket = world.ask(8081)
    assert ticket not in world.granted
    world.ready("a")
    assert world.granted[ticket] == ("a", world.host("a"))


def test_adopted_bytes_are_charged_from_the_first_moment():
    world = loaded(two_ports(), 8081)
    world.send(e.MemoryMeasured(world.host("a"), 5))
    world.crash()
    assert world.view().used_bytes == 5


def test_load_that_was_under_way_counts_once_it_is_done():
    world = two_ports()
    world.ask(8081)
    assert world.state("a") == "loading"
    world.crash()
    world.ask(8081)
    world.ready("a")
    assert view(world, "a").loads == 1
    assert [n["profile"] for n in world.noted("load.finished")] == ["a"]


def test_pins_and_an_administrators_ttl_are_kept():
    world = loaded(two_ports(), 8081)
    world.load("a", pin=True, ttl_s=77)
    world.crash()
    world.ready("a")
    assert (view(world, "a").pinned, view(world, "a").idle_ttl_s) == (True, 77)


def test_idle_time_goes_on_while_there_is_no_daemon():
    world = loaded(World([profile("a", 8081, idle_ttl_s=60)], 10), 8081)
    world.sleep(50)
    world.crash()
    world.ready("a")
    world.sleep(11)
    assert world.state("a") == "unloading"


def test_host_whose_profile_changed_is_replaced():
    world = loaded(two_ports(), 8081)
    changed = replace(world.profiles["a"], fingerprint="new")
    world.crash([changed, world.profiles["b"]])
    assert world.state("a") == "unloading"
    ticket = world.ask(8081)
    world.up("a")
    assert ticket in world.granted
    assert view(world, "a").loads == 2


def test_host_whose_profile_is_gone_is_ended_and_charged_until_then():
    world = loaded(two_ports(), 8081)
    world.crash([world.profiles["b"]])
    (host,) = world.stopping
    assert world.view().used_bytes == 4
    world.gone(host)
    assert world.view().used_bytes == 0
    assert [port.port for port in world.view().ports] == [8082]


def test_host_whose_profile_moved_to_another_port_is_ended():
    world = loaded(two_ports(), 8081)
    world.crash([replace(world.profiles["a"], port=8083), world.profiles["b"]])
    assert len(world.stopping) == 1
    ticket = world.ask(8083)
    world.up("a")
    assert ticket in world.granted


def test_survivor_that_turns_out_dead_is_no_failed_load():
    world = loaded(two_ports(), 8081)
    world.crash()
    ticket = world.ask(8081)
    world.gone("a", facts.Failure("nobody answers"))
    assert ticket in world.open, "it waits for a fresh host"
    world.ready("a")
    assert ticket in world.granted


def test_survivor_that_was_not_heard_yet_is_no_cheap_victim():
    """It costs what it cost before, not what a load costs that nobody waits for."""
    world = World([profile("a", 8081, 4), profile("b", 8082, 4), profile("c", 8083, 4)], 8)
    loaded(world, 8081, 8082)
    for _ in range(5):
        world.now += 61
        world.finish(world.ask(8081))
    world.finish(world.ask(8082))
    world.crash()
    world.ask(8083)
    assert world.noted("profile.evicted") or world.noted("load.abandoned")
    assert world.state("a") == "loading"
    assert world.state("b") == "unloading"


def test_spare_is_taken_over():
    world = World([profile("a", 8081, 4, spare_kind="mlx")], 10, spare_bytes=2)
    world.sleep(3)
    (spare,) = world.spares
    world.send(e.HostReady(spare))
    world.crash()
    (spare,) = world.spares
    assert world.view().spare_state == "starting"
    world.send(e.HostReady(spare))
    assert world.view().spare_state == "prepared"
    assert len(world.running) == 1


def test_preloaded_profile_that_survived_is_not_loaded_again():
    world = World([profile("a", 8081, 4, preload=True)], 10)
    world.ready("a")
    world.crash()
    world.ready("a")
    assert view(world, "a").loads == 1
    assert world.state("a") == "ready"


def test_pinned_survivor_keeps_its_port():
    world = World([profile("a", 8081, 4), profile("c", 8081, 4)], 10)
    world.load("a", pin=True)
    world.ready("a")
    world.crash()
    ticket = world.ask(8081, "c")
    assert isinstance(world.refused[ticket], PortPinnedError)


def test_smaller_budget_evicts_what_no_longer_fits():
    world = loaded(two_ports(), 8081, 8082)
    stock = world.scheduler.stock()
    assert {host.profile for host in stock.hosts} == {"a", "b"}
    smaller = facts.Rules(budget_bytes=4)
    world.grown = True  # for a moment more is held than the budget has
    world.left = {host.key: host.profile for host in stock.hosts}
    world.running, world.scheduler = {}, type(world.scheduler)()
    world.send(e.ConfigReplaced(smaller, tuple(world.profiles.values()), stock))
    assert len(world.stopping) == 1
