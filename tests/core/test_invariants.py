"""A random walk: whatever happens, the budget holds and everybody is answered."""

import random

import pytest

from llmd.core import events as e
from llmd.core import facts
from tests.core.world import World, profile


def random_world(rng):
    budget = rng.randint(20, 60)
    profiles = [
        profile(
            f"p{n}",
            8081 + rng.randrange(4),
            rng.randint(1, 25),
            parallel=rng.randint(1, 3),
            pinned=rng.random() < 0.1,
            preload=rng.random() < 0.1,
            idle_ttl_s=rng.choice([5.0, 60.0, float("inf")]),
            spare_kind=rng.choice([None, "mlx"]),
        )
        for n in range(rng.randint(2, 8))
    ]
    return World(
        profiles,
        budget,
        eviction=rng.choice(["cost", "lru"]),
        gateway_port=8080,
        queue_limit=rng.choice([2, 64]),
        spare_bytes=rng.choice([0, 3]),
    )


def step(world, rng):
    names = list(world.profiles)
    match rng.randrange(15):
        case 0 | 1 | 2 | 3:
            ports = [8080, *{p.port for p in world.profiles.values()}]
            world.ask(rng.choice(ports), rng.choice([None, "any", *names]))
        case 4 | 5 if world.granted:
            world.finish(rng.choice(list(world.granted)), served=rng.random() < 0.9)
        case 6 if world.open - set(world.granted):
            ticket = rng.choice(list(world.open - set(world.granted)))
            if ticket in world.scheduler._where:
                world.finish(ticket, served=False)
        case 7 | 8 if world.running:
            host = rng.choice(list(world.running))
            if host not in world.stopping:
                world.send(e.HostReady(host))
        case 9 if world.stopping:
            world.gone(rng.choice(list(world.stopping)))
        case 10 if world.running and rng.random() < 0.4:
            failure = facts.Failure("crashed", signal="SIGABRT")
            world.gone(rng.choice(list(world.running)), failure)
        case 11:
            match rng.randrange(5):
                case 0:
                    world.load(rng.choice(names), pin=rng.random() < 0.1)
                case 1:
                    world.unload(rng.choice(names))
                case 2:
                    world.send(e.PinChanged(rng.choice(names), pinned=rng.random() < 0.3))
                case 3:
                    world.send(e.PressureRose("test"))
                case 4 if rng.random() < 0.3:
                    rules = world.scheduler._book.rules
                    kept = [p for p in world.profiles.values() if rng.random() < 0.8]
                    world.profiles = {p.name: p for p in kept} or world.profiles
                    world.send(e.ConfigReplaced(rules, tuple(world.profiles.values())))
        case 12 if rng.random() < 0.2:
            world.crash()
        case 12 if world.running and rng.random() < 0.3:
            world.stall(rng.choice(list(world.running)))
        case _:
            world.sleep(rng.choice([0.1, 1.0, 4.0, 20.0]))


def settle_everything(world):
    """Let a kind world finish: hosts get ready, requests end, time passes."""
    for name in world.profiles:
        world.send(e.PinChanged(name, pinned=False))
    for _ in range(400):
        for host in list(world.stopping):
            world.gone(host)
        for host in list(world.running):
            if host not in world.stopping:
                world.send(e.HostReady(host))
        for ticket in list(world.granted):
            world.finish(ticket)
        if not world.open and not world.stopping:
            return
        world.sleep(1)
    raise AssertionError(f"not answered: {sorted(world.open)}")


@pytest.mark.parametrize("seed", range(150))
def test_random_walk_keeps_every_promise(seed):
    rng = random.Random(seed)
    world = random_world(rng)
    for _ in range(300):
        step(world, rng)
    settle_everything(world)
    assert not world.open
    assert not world.scheduler._where, "every ticket is forgotten once it is settled"
    world.send(e.Stopping(force=True))
    for host in list(world.running):
        world.gone(host)
    assert world.view().used_bytes == 0
