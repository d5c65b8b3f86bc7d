"""Small worlds, looked through whole: what a random walk may miss, and the way to it if it fails.

In each state of each world: the budget holds, nobody busy or pinned is evicted, nobody is evicted
for a profile that backs off, nobody is overtaken, every ticket is settled once; and from there
everybody is answered, if hosts behave, also where what is resident is asked for without a pause.
The suite stops at some states; `make explore` goes on.
"""

import os
from math import inf

import pytest
from msgspec.structs import replace

from tests.core.explorer import Setup, explore
from tests.core.world import profile


MOST_STATES = int(os.environ.get("LLMD_EXPLORE_STATES", "200"))
QUICK = {"patience_s": 1.0, "min_residency_s": 1.0, "eviction": "lru"}
"""The shortest that differ from nothing: every age more multiplies the states. With two ports there
is one candidate at most, and policies do not differ."""

A = profile("a", 1, 2, idle_ttl_s=inf)
B = profile("b", 1, 3, idle_ttl_s=inf)
C = profile("c", 2, 2, idle_ttl_s=inf, parallel=2)
ALL = (A, B, C)
ONE, TWO, EVERYBODY = 3, 5, 7  # budgets, by how many profiles fit


WHOLE = [
    pytest.param(Setup(ALL, ONE, QUICK, 2), id="room for one"),
    pytest.param(Setup((A, B), ONE, QUICK, 1, crashes=1), id="a port alone, hosts fail"),
    pytest.param(Setup((A, C), ONE, QUICK, 1, pins=("a",)), id="pins come and go"),
    pytest.param(
        Setup(ALL, ONE, QUICK | {"queue_timeout_s": 2.0, "queue_limit": 1}, 2),
        id="short queues, short time-outs",
    ),
    pytest.param(
        Setup((A, C), ONE, QUICK, 1, loads=("a",), unloads=("a",), stops=True), id="commands"
    ),
]

LARGE = [
    pytest.param(Setup(ALL, ONE, QUICK), id="room for one"),
    pytest.param(Setup(ALL, TWO, QUICK), id="room for two"),
    pytest.param(Setup(ALL, EVERYBODY, QUICK, crashes=2), id="room for all, hosts fail"),
    pytest.param(Setup(ALL, ONE, QUICK, crashes=2), id="room for one, hosts fail"),
    pytest.param(
        Setup(ALL, ONE, QUICK, loads=("a", "c"), unloads=("a", "c"), stops=True), id="commands"
    ),
    pytest.param(
        Setup((replace(A, pinned=True), B, C), TWO, QUICK, loads=("b",), pins=("a", "c")), id="pins"
    ),
    pytest.param(
        Setup((replace(A, idle_ttl_s=2.0), B, replace(C, idle_ttl_s=1.0)), TWO, QUICK),
        id="idle times",
    ),
    pytest.param(
        Setup(ALL, TWO, QUICK, 3, pressed=True, ticks_s=(1.0, 60.0)), id="memory pressure"
    ),
    pytest.param(Setup(ALL, TWO, QUICK, 3, restarts=True, crashes=1), id="killed daemons"),
    pytest.param(
        Setup(
            ALL, TWO, QUICK, 3, unloads=("c",),
            reloads=(ALL, (A,), (A, replace(B, port=2), C), (replace(A, fingerprint="a2"), B, C)),
        ),
        id="configurations come and go",
    ),
    pytest.param(
        Setup(
            tuple(replace(p, spare_kind="mlx") for p in ALL), TWO, QUICK | {"spare_bytes": 1}, 3,
            crashes=1, ticks_s=(1.0, 60.0),
        ),
        id="a warm spare",
    ),
    pytest.param(
        Setup((A, replace(B, port=3), replace(C, pinned=True, parallel=1)), TWO, QUICK, 1),
        id="three ports, one at a time",
    ),
    pytest.param(
        Setup((A, replace(B, port=3), replace(C, pinned=True)), TWO, QUICK, 3, unloads=("c",)),
        id="three ports",
    ),
]  # fmt: skip


@pytest.mark.parametrize("setup", WHOLE)
def test_no_state_of_a_small_world_breaks_a_promise(setup):
    found = explore(setup, most_states=100_000)
    print(f"{found.states} states, {found.transitions} transitions")  # noqa: T201 - make explore -s
    assert found.complete


@pytest.mark.parametrize("setup", LARGE)
def test_no_near_state_of_a_larger_world_breaks_a_promise(setup):
    found = explore(setup, most_states=MOST_STATES)
    print(f"{found.states} states, {found.transitions} transitions")  # noqa: T201
    assert found.complete or found.states == MOST_STATES
