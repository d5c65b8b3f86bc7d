"""The choice of victim on whole traces: small ones of those that tests/bench/eviction replays."""

from dataclasses import replace
from itertools import combinations, pairwise, product

import pytest

from tests.bench.eviction.bound import lower_bound_s, optimum_s, relaxation_s
from tests.bench.eviction.machines import GB, Machine, Model
from tests.bench.eviction.policies import Clairvoyant, Rival
from tests.bench.eviction.replay import STOP_S, replay
from tests.bench.eviction.traces import FAMILIES, Step, Trace, a_trace


def machine(budget_gb, *sizes_gb):
    models = tuple(Model(size * GB, float(size), 1.0) for size in sizes_gb)
    return Machine(budget_gb * GB, models)


def one_client(where, models, think_s=100.0):
    return Trace("by hand", 0, where, (tuple(Step(think_s, m, 5.0) for m in models),))


@pytest.mark.parametrize("family", FAMILIES)
def test_users_never_wait_much_longer_than_under_lru(family):
    traces = [a_trace(family, seed) for seed in (1, 3)]
    ours, lru = (sum(replay(t, name).waited_s for t in traces) for name in ("cost", "lru"))
    assert ours <= 1.05 * lru


def test_what_is_used_all_day_outlives_what_is_tried_once():
    """The same few models, and in between every other one: LRU loses the few each time."""
    usual = [0, 1, 0, 1, 0, 1]
    trace = one_client(machine(40, 15, 15, 10, 10, 10), [*usual, 2, 3, 4] * 20)
    ours, lru = replay(trace, "cost"), replay(trace, "lru")
    assert ours.waited_s < 0.75 * lru.waited_s


def test_trace_is_the_same_each_time():
    assert a_trace("burst", 7) == a_trace("burst", 7)
    assert a_trace("burst", 7) != a_trace("burst", 8)


def test_waits_are_loads_and_stops():
    where = machine(20, 15, 10)
    assert replay(one_client(where, [0, 0, 1, 0]), "lru").waits_s == pytest.approx(
        [15, 0, 10 + STOP_S, 15 + STOP_S]
    )


def test_foresight_knows_the_next_use_after_what_was_waited_for():
    seen = []

    class Watching(Rival):
        def used(self, port):
            seen.append([self.ahead_s(model) for model in (0, 1)])

        def score(self, candidate):
            return (0,)

    replay(one_client(machine(20, 15, 5), [0, 1, 0]), Watching())
    assert seen[0] == pytest.approx([205 - 15 + 5, 105 - 15])
    assert seen[2][1] == float("inf")


def brute_force_s(where, uses):
    """Try every set of residents after each use."""
    sets = [
        frozenset(some)
        for n in range(len(where.models) + 1)
        for some in combinations(range(len(where.models)), n)
        if sum(where.models[m].bytes for m in some) <= where.budget_bytes
    ]
    best = float("inf")
    for path in product(sets, repeat=len(uses)):
        steps = zip(((frozenset(), *path[:-1])), path, uses, strict=True)
        if all(use in now and now <= before | {use} for before, now, use in steps):
            loads = (
                where.models[use].load_s
                for (before, _), use in zip(pairwise((frozenset(), *path)), uses, strict=True)
                if use not in before
            )
            best = min(best, sum(loads))
    return best


@pytest.mark.parametrize("uses", [[0, 1, 2, 0, 1], [2, 1, 0, 2, 0], [0, 2, 1, 2, 0]])
def test_optimum_is_what_trying_everything_finds(uses):
    where = machine(20, 12, 9, 7)
    assert optimum_s(where, uses) == brute_force_s(where, uses)


@pytest.mark.parametrize("family", ["working_day", "two_projects"])
def test_bounds_are_in_order(family):
    whole = a_trace(family, 0)
    trace = replace(whole, clients=(whole.clients[0][:150],))
    uses = [step.model for step in trace.clients[0]]
    known = replay(trace, Clairvoyant()).waited_s
    assert 0 < relaxation_s(trace.machine, uses) <= lower_bound_s(trace) <= known
