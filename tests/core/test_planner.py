"""Whom to evict: tables, and the exact search held against brute force."""

from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmd.core.planner import Candidate, cheapest_set, least_recently_used


def c(key, size, cost=1.0, used=0.0):
    return Candidate(key, size, cost, used)


@pytest.mark.parametrize(
    ("need", "candidates", "expected"),
    [
        pytest.param(0, [c(1, 8)], (), id="nothing needed, nobody goes"),
        pytest.param(8, [c(1, 8, 5), c(2, 8, 3)], (2,), id="the cheaper of two"),
        pytest.param(8, [c(1, 4, 1), c(2, 4, 1), c(3, 8, 3)], (1, 2), id="two cheap for one dear"),
        pytest.param(8, [c(1, 4, 2), c(2, 4, 2), c(3, 8, 3)], (3,), id="one dear for two cheap"),
        pytest.param(8, [c(1, 16, 0), c(2, 8, 0)], (2,), id="equal cost: frees less"),
        pytest.param(8, [c(1, 8, 0, 9), c(2, 8, 0, 5)], (2,), id="equal cost: unused longer"),
        pytest.param(9, [c(1, 4), c(2, 4)], None, id="all together do not suffice"),
        pytest.param(1, [], None, id="nobody to go"),
    ],
)
def test_cheapest_set(need, candidates, expected):
    chosen = cheapest_set(need, candidates)
    assert (None if chosen is None else tuple(sorted(chosen))) == expected


@pytest.mark.parametrize(
    ("need", "candidates", "expected"),
    [
        pytest.param(
            8, [c(1, 8, 0, 9), c(2, 8, 9, 5)], (2,), id="longest unused, whatever it costs"
        ),
        pytest.param(9, [c(1, 8, used=9), c(2, 8, used=5)], (2, 1), id="one by one until enough"),
        pytest.param(17, [c(1, 8), c(2, 8)], None, id="not enough"),
        pytest.param(0, [c(1, 8)], (), id="nothing needed"),
    ],
)
def test_least_recently_used(need, candidates, expected):
    assert least_recently_used(need, candidates) == expected


sizes = st.tuples(st.integers(1, 50), st.integers(0, 20), st.integers(0, 9))


@given(st.lists(sizes, max_size=7), st.integers(0, 200))
@settings(max_examples=300)
def test_search_is_as_good_as_trying_every_set(rows, need):
    pool = [c(key, size, float(cost), float(used)) for key, (size, cost, used) in enumerate(rows)]
    best = min(
        (
            sum(x.cost_s for x in some)
            for n in range(len(pool) + 1)
            for some in combinations(pool, n)
            if sum(x.bytes for x in some) >= need
        ),
        default=None,
    )
    chosen = cheapest_set(need, pool)
    if best is None:
        assert chosen is None
    else:
        assert sum(pool[key].cost_s for key in chosen) == best
        assert sum(pool[key].bytes for key in chosen) >= need


@given(st.lists(sizes, min_size=15, max_size=60), st.integers(1, 1500))
@settings(max_examples=100)
def test_many_residents_are_still_decided_and_free_enough(rows, need):
    pool = [c(key, size, float(cost), float(used)) for key, (size, cost, used) in enumerate(rows)]
    chosen = cheapest_set(need, pool)
    if sum(x.bytes for x in pool) < need:
        assert chosen is None
    else:
        assert len(set(chosen)) == len(chosen)
        assert sum(pool[key].bytes for key in chosen) >= need
