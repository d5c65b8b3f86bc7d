"""What nobody can fall below: the fewest seconds of loading, for one client that knows its future.

Its requests come one by one, so whoever is asked for and not resident is waited for, all its load
long. Up to `SEARCHED_UP_TO` models the optimum is searched; beyond, a relaxation bounds it.
"""

from collections.abc import Callable, Iterator
from functools import cache
from itertools import groupby

import numpy as np

from tests.bench.eviction.machines import Machine
from tests.bench.eviction.traces import Trace


SEARCHED_UP_TO = 10
STEPS = 400


def lower_bound_s(trace: Trace) -> float | None:
    """Seconds; None for several clients, whose order depends on how long each one waits."""
    if len(trace.clients) > 1:
        return None
    uses = [model for model, _ in groupby(step.model for step in trace.clients[0])]
    find = optimum_s if len(set(uses)) <= SEARCHED_UP_TO else relaxation_s
    return find(trace.machine, uses)


def optimum_s(machine: Machine, uses: list[int]) -> float:
    """By dynamic programming over sets of residents; whoever need not go does not."""
    successors = _successors(machine)
    costs: dict[frozenset[int], float] = {frozenset(): 0.0}
    for model in uses:
        after: dict[frozenset[int], float] = {}
        for residents, cost_s in costs.items():
            paid_s = cost_s if model in residents else cost_s + machine.models[model].load_s
            for then in successors(residents, model):
                if paid_s < after.get(then, float("inf")):
                    after[then] = paid_s
        costs = after
    return min(costs.values())


def _successors(
    machine: Machine,
) -> Callable[[frozenset[int], int], tuple[frozenset[int], ...]]:
    """What residents can be once a model is used: it, and as many others as fit."""

    @cache
    def successors(residents: frozenset[int], model: int) -> tuple[frozenset[int], ...]:
        if model in residents:
            return (residents,)
        free_bytes = machine.budget_bytes - machine.models[model].bytes
        fitting = list(_fitting(machine, sorted(residents), free_bytes))
        largest = [some for some in fitting if not any(some < other for other in fitting)]
        return tuple(some | {model} for some in largest)

    return successors


def _fitting(machine: Machine, models: list[int], free_bytes: int) -> Iterator[frozenset[int]]:
    """Every subset of *models* that needs at most *free_bytes*."""
    if not models:
        yield frozenset()
        return
    first, *rest = models
    yield from _fitting(machine, rest, free_bytes)
    left_bytes = free_bytes - machine.models[first].bytes
    if left_bytes >= 0:
        for some in _fitting(machine, rest, left_bytes):
            yield some | {first}


def relaxation_s(machine: Machine, uses: list[int]) -> float:
    """The Lagrangian dual of the integer program; any prices give a bound, better ones a better.

    Between two uses of a model it stays, or is loaded again: x = 0 or 1. While another one is used,
    what does not fit beside it must have left: sum(size x) >= D; no size counts for more than D.
    """
    models, last = machine.models, dict[int, int]()
    pauses: list[tuple[int, int, int]] = []  # from, to, model
    for moment, model in enumerate(uses):
        if model in last:
            pauses.append((last[model], moment, model))
        last[model] = moment
    first_loads_s = sum(models[model].load_s for model in last)
    if not pauses:
        return first_loads_s
    moments = np.arange(len(uses))
    began, ended, who = (np.array(column) for column in zip(*pauses, strict=True))
    gigabytes = np.array([models[model].bytes / 1e9 for model in who])
    load_s = np.array([models[model].load_s for model in who])
    beside = np.array([(machine.budget_bytes - models[model].bytes) / 1e9 for model in uses])
    pausing = (began[:, None] < moments) & (moments < ended[:, None])
    must_leave = np.maximum((gigabytes[:, None] * pausing).sum(0) - beside, 0.0)
    counted = np.minimum(gigabytes[:, None] * pausing, must_leave)

    prices, best_s = np.zeros(len(uses)), 0.0
    for step in range(STEPS):
        gain_s = load_s - counted @ prices
        leaves = gain_s < 0
        best_s = max(best_s, float(prices @ must_leave + gain_s[leaves].sum()))
        slope = must_leave - leaves @ counted
        length = float(slope @ slope)
        if length == 0:
            break
        reach_s = 0.3 * float(load_s.sum()) * 0.985**step
        prices = np.maximum(prices + reach_s / length * slope, 0.0)
    return first_loads_s + best_s
