"""Every state that a small world can come to, with the real scheduler in it.

A state is a world at a moment, told apart by what its future depends on: ages instead of times, the
order of tickets and hosts instead of their numbers. Whatever may happen in a state is tried in it;
after each event `World` checks what must always hold, `Watched` what the design promises.
"""

import io
import pickle
import random
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from math import inf
from typing import Any

from llmd.core import events as e
from llmd.core import facts
from llmd.core.scheduler import Scheduler
from llmd.core.slot import SlotState
from llmd.errors import LlmdError
from tests.core.watched import Watched


Move = tuple[Any, ...]
"""The name of a step and its arguments."""

CRASH = facts.Failure("crashed", exit_code=1)
PATIENT_S = 60
"""Longer than everybody of these worlds may have to wait, much less than `queue_timeout_s`."""


@dataclass(frozen=True)
class Setup:
    """A small configuration, and what may happen in it besides requests and time.

    Attributes:
        rules: Of `events.Rules`; patience and residency are best small, ages multiply states.
        open_tickets: Requests and commands that are unsettled at one moment, at most.
        loads: Profiles that an administrator loads; *unloads*, *pins* likewise.
        crashes: Failures in a row of one profile, hangs too, at most; 0 is none at all.
        pressed: The system may run short of memory.
        restarts: The daemon may be killed, and the next one finds its hosts.
        stops: The daemon may be told to stop.
        reloads: Sets of profiles that the configuration may be replaced by.
        ticks_s: How long time may pass at once.
    """

    profiles: tuple[facts.Residency, ...]
    budget: int
    rules: dict[str, Any] = field(default_factory=dict)
    open_tickets: int = 4
    loads: tuple[str, ...] = ()
    unloads: tuple[str, ...] = ()
    pins: tuple[str, ...] = ()
    crashes: int = 0
    pressed: bool = False
    restarts: bool = False
    stops: bool = False
    reloads: tuple[tuple[facts.Residency, ...], ...] = ()
    ticks_s: tuple[float, ...] = (1.0,)

    def world(self) -> Watched:
        return Watched(self.profiles, self.budget, **self.rules)

    @property
    def oldest_s(self) -> float:
        """Ages beyond make no difference."""
        rules = facts.Rules(self.budget, **self.rules)
        ages = {rules.patience_s, rules.min_residency_s, rules.queue_timeout_s}
        everybody = [*self.profiles, *(p for profiles in self.reloads for p in profiles)]
        ages |= {p.idle_ttl_s for p in everybody}
        return max(age for age in ages if age < PATIENT_S)


# --- copying ------------------------------------------------------------------------------------


class Copier:
    """Freezes worlds and brings them back; what never changes is shared."""

    def __init__(self) -> None:
        self._shared: dict[int, object] = {}

    def freeze(self, world: Watched) -> bytes:
        """*world* as bytes."""
        buffer = io.BytesIO()
        pickler = pickle.Pickler(buffer, pickle.HIGHEST_PROTOCOL)
        pickler.persistent_id = self._share  # type: ignore[method-assign]
        pickler.dump(world)
        return buffer.getvalue()

    def thaw(self, frozen: bytes) -> Watched:
        """A world of its own, equal to the one that was frozen."""
        unpickler = pickle.Unpickler(io.BytesIO(frozen))
        unpickler.persistent_load = self._shared.__getitem__  # type: ignore[method-assign]
        world: Watched = unpickler.load()
        return world

    def _share(self, thing: object) -> int | None:
        if not isinstance(thing, facts.Residency | facts.Rules | facts.Failure | LlmdError):
            return None
        self._shared[id(thing)] = thing
        return id(thing)


# --- telling apart ------------------------------------------------------------------------------


def signature(world: Watched, oldest_s: float) -> tuple[Any, ...]:
    """What the future of *world* depends on; equal for worlds with the same future."""
    scheduler: Scheduler = world.scheduler
    book, now = scheduler._book, world.now

    def age(since_s: float | None) -> float | None:
        return None if since_s is None else min(now - since_s, oldest_s)

    def until(when_s: float | None) -> float | None:
        return None if when_s is None else min(max(when_s - now, 0.0), PATIENT_S)

    tickets = sorted(w.ticket for slot in book for w in slot.queue)
    promises = sorted(slot.promise_order for slot in book)
    used = sorted(slot.holds.last_used_s for slot in book if slot.holds is not None)
    slots = []
    for port, slot in sorted(book.slots.items()):
        held = slot.holds and (
            slot.holds.profile, slot.holds.charged_bytes, slot.holds.fingerprint,
            age(slot.holds.ready_s), used.index(slot.holds.last_used_s),
            slot.holds.idle_ttl_s < inf and age(slot.holds.last_used_s),
            slot.holds.idle_ttl_s, slot.holds.ttl_s,
            slot.holds.must_stop, slot.holds.served > 0, len(slot.holds.in_flight),
            len(slot.holds.unloads),
        )  # fmt: skip
        queue = tuple(
            (tickets.index(w.ticket), w.profile, age(w.arrived_s), w.command, w.ttl_s)
            for w in slot.queue
        )
        order = promises.index(slot.promise_order) if slot.state is SlotState.WAITING else None
        slots.append((port, slot.state, slot.wants, held, queue, order, until(slot.abandon_at_s)))
    pasts = tuple(
        (name, past.failures, past.error is not None, until(past.retry_at_s))
        for name, past in sorted(book.histories.items())
    )
    spare = book.spare and (book.spare.kind, book.spare.bytes, book.spare.state)
    return (
        tuple(slots), pasts, spare, tuple(sorted(book.profiles)), scheduler._stopping,
        tuple(sorted(book.pin_overrides.items())), until(scheduler._allocator.spare.not_before_s),
        until(scheduler._machine._trim_again_s), until(world.wake),
    )  # fmt: skip


# --- what may happen ----------------------------------------------------------------------------


def moves(world: Watched, setup: Setup) -> Iterator[Move]:
    """All that may happen next."""
    book = world.scheduler._book
    if len(world.open) < setup.open_tickets:
        for port in sorted({p.port for p in world.profiles.values()}):
            yield "ask", port, None
        for name, profile in world.profiles.items():
            yield "ask", profile.port, name
        yield from (("load", name) for name in setup.loads)
        yield from (("unload", name) for name in setup.unloads)
    yield from (("pin", name, not book.pinned(name)) for name in setup.pins)
    with_host: set[int] = set()
    for ticket, (_, host) in sorted(world.granted.items()):
        if host not in with_host:  # those of one host are alike
            with_host.add(host)
            yield "finish", ticket
    yield from (("leave", w.ticket) for slot in book for w in slot.queue if w.ticket > 0)
    for host, name in sorted(world.running.items()):
        if host in world.stopping:
            yield "gone", host
            continue
        found = book.by_host(host)
        if found is None or found[0].state is SlotState.LOADING:
            yield "ready", host
        past = book.histories.get(name)
        if setup.crashes and (past is None or past.failures < setup.crashes):
            yield "crash", host
            if found is not None and found[0].state is not SlotState.LOADING:
                yield "stall", host
    if setup.pressed:
        yield ("press",)
    if setup.restarts:
        yield ("restart",)
    if setup.stops and not world.scheduler._stopping:
        yield from (("stop", force) for force in (False, True))
    yield from (("reload", number) for number in range(len(setup.reloads)))
    yield from (("tick", seconds) for seconds in setup.ticks_s)


def make(world: Watched, move: Move, setup: Setup) -> None:
    """Let *move* happen."""
    match move:
        case "ask", port, model:
            world.ask(port, model)
        case "load", name:
            world.load(name)
        case "unload", name:
            world.unload(name)
        case "pin", name, pinned:
            world.send(e.PinChanged(name, pinned))
        case "finish", ticket:
            world.finish(ticket)
        case "leave", ticket:
            world.finish(ticket, served=False)
        case "ready", host:
            world.send(e.HostReady(host))
        case "gone", host:
            world.gone(host)
        case "crash", host:
            world.gone(host, CRASH)
        case "stall", host:
            world.stall(host)
        case ("press",):
            world.send(e.PressureRose("test"))
        case ("restart",):
            world.crash()
        case "stop", force:
            world.send(e.Stopping(force))
        case "reload", number:
            world.profiles = {p.name: p for p in setup.reloads[number]}
            world.send(e.ConfigReplaced(world.scheduler._book.rules, setup.reloads[number]))
        case "tick", seconds:
            world.sleep(seconds)
        case _:
            raise ValueError(move)


# --- exploring ----------------------------------------------------------------------------------


@dataclass
class Found:
    """What an exploration saw. *complete*: no state was left unvisited."""

    states: int = 0
    transitions: int = 0
    complete: bool = False
    settled_states: set[int] = field(default_factory=set)
    """Known to end with everybody answered."""


def explore(setup: Setup, *, most_states: int) -> Found:
    """Visit the states of *setup*, up to *most_states* of them, the same ones each time.

    The next is any of those found: nearest first would not come far in a large world.

    Raises:
        AssertionError: Something that must hold did not; the notes tell the way there.
    """
    copier, found, oldest_s, rng = Copier(), Found(), setup.oldest_s, random.Random(0)
    first = setup.world()
    origin = hash(signature(first, oldest_s))
    came_from: dict[int, tuple[int, Move] | None] = {origin: None}
    frontier = deque([(origin, copier.freeze(first))])
    while frontier:
        if found.states >= most_states:
            return found
        frontier.rotate(-rng.randrange(len(frontier)))
        here, frozen = frontier.popleft()
        found.states += 1
        move: Move = ("nothing",)
        try:
            wait_for_nothing(copier.thaw(frozen), oldest_s)
            settle(copier.thaw(frozen), setup, found.settled_states)
            if found.states % 10 == 0:
                serve_all_in_traffic(copier.thaw(frozen))
            for move in moves(copier.thaw(frozen), setup):
                world = copier.thaw(frozen)
                make(world, move, setup)
                found.transitions += 1
                there = hash(signature(world, oldest_s))
                if there not in came_from:
                    came_from[there] = (here, move)
                    frontier.append((there, copier.freeze(world)))
        except BaseException as error:
            error.add_note(f"after {way(came_from, here)}, and {move}")
            raise
    found.complete = True
    return found


def way(came_from: dict[int, tuple[int, Move] | None], state: int) -> list[Move]:
    """The moves that led to *state*."""
    steps: list[Move] = []
    while (step := came_from[state]) is not None:
        state, move = step
        steps.append(move)
    return steps[::-1]


def wait_for_nothing(world: Watched, oldest_s: float) -> None:
    """All that can be decided was decided: being woken at once changes nothing."""
    before = signature(world, oldest_s)[:-1]
    effects = world.send(e.Ticked())
    done = [effect for effect in effects if not isinstance(effect, e.WakeAt)]
    assert not done, f"nobody woke it for {done}"
    assert signature(world, oldest_s)[:-1] == before, "it should have been woken"


def behave(world: Watched) -> bool:
    """Every host does what it was told to; whether any had something to do."""
    book, busy = world.scheduler._book, False
    for host in list(world.stopping):
        world.gone(host)
        busy = True
    for slot in list(book):
        if slot.holds is not None and slot.state is SlotState.LOADING:
            world.send(e.HostReady(slot.holds.host))
            busy = True
    return busy


def settle(world: Watched, setup: Setup, known: set[int]) -> None:
    """Let hosts behave and requests end: everybody is answered, long before it is timed out."""
    passed: list[int] = []
    end_s = world.now + PATIENT_S
    while world.open:
        state = hash(signature(world, setup.oldest_s))
        if state in known:
            break
        passed.append(state)
        assert world.now < end_s, f"waits for ever: {sorted(world.open)}"
        busy = behave(world)
        for ticket in list(world.granted):
            world.finish(ticket)
            busy = True
        if not busy:
            world.sleep(1.0)
    known.update(passed)


def serve_all_in_traffic(world: Watched) -> None:
    """Everything is asked for without a pause, what is resident most: who waited is answered."""
    waiting, end_s = set(world.open) - set(world.granted), world.now + PATIENT_S
    while waiting := waiting & world.open - set(world.granted):
        assert world.now < end_s, f"starves: {sorted(waiting)}"
        before = list(world.granted)
        resident = {slot.wants for slot in world.scheduler._book if slot.state is SlotState.READY}
        for profile in world.profiles.values():
            for _ in range(profile.parallel + 1 if profile.name in resident else 1):
                world.ask(profile.port, profile.name)
        for ticket in before:
            if ticket in world.granted:
                world.finish(ticket)
        behave(world)
        world.sleep(1.0)
