"""Whom to evict: plain functions over candidates.

Two policies. `cost` finds the *set* of victims whose loss is cheapest: each costs its expected
reload seconds times its recent rate of use. `lru` takes the longest unused one by one; it is the
baseline to compare with.
"""

from collections.abc import Callable, Sequence
from typing import Final, Literal

from msgspec import Struct


EXACT_UP_TO: Final = 14
"""Candidates for which all sets are searched; beyond, the cheapest per byte are."""


class Candidate(Struct, frozen=True):
    """A resident that may go.

    Attributes:
        key: Whatever the caller names it by.
        bytes: What its going frees.
        cost_s: Seconds that users are expected to wait for its return.
        last_used_s: For `lru` and ties; smaller is longer ago.
    """

    key: int
    bytes: int
    cost_s: float
    last_used_s: float


def cheapest_set(need_bytes: int, candidates: Sequence[Candidate]) -> tuple[int, ...] | None:
    """The keys of the cheapest set that frees *need_bytes*; None when all together do not.

    Ties go to the set that was used least recently, then to the one that frees less. Exact up to
    `EXACT_UP_TO` candidates, by branch and bound.
    """
    pool = sorted(candidates, key=lambda c: (c.cost_s / max(c.bytes, 1), c.last_used_s))
    if sum(c.bytes for c in pool) < need_bytes:
        return None
    if len(pool) > EXACT_UP_TO:
        pool = _enough_of(pool, need_bytes)
    rest = [0] * (len(pool) + 1)  # bytes that candidates from here on could still free
    for index in range(len(pool) - 1, -1, -1):
        rest[index] = rest[index + 1] + pool[index].bytes
    best: tuple[tuple[float, float, int], tuple[int, ...]] | None = None

    def search(index: int, chosen: tuple[int, ...], freed: int, cost: float, newest: float) -> None:
        nonlocal best
        if best is not None and (cost, newest) > best[0][:2]:
            return
        if freed >= need_bytes:
            score = (cost, newest, freed)
            if best is None or score < best[0]:
                best = (score, chosen)
            return
        if index == len(pool) or freed + rest[index] < need_bytes:
            return
        c = pool[index]
        search(
            index + 1,
            (*chosen, c.key),
            freed + c.bytes,
            cost + c.cost_s,
            max(newest, c.last_used_s),
        )
        search(index + 1, chosen, freed, cost, newest)

    search(0, (), 0, 0.0, float("-inf"))
    return best[1] if best is not None else None


def _enough_of(pool: list[Candidate], need_bytes: int) -> list[Candidate]:
    """The first `EXACT_UP_TO` of *pool*, or as many more as free enough."""
    freed = 0
    for count, candidate in enumerate(pool, start=1):
        freed += candidate.bytes
        if count >= EXACT_UP_TO and freed >= need_bytes:
            return pool[:count] if count == EXACT_UP_TO else _greedy(pool[:count], need_bytes)
    return pool


def _greedy(pool: list[Candidate], need_bytes: int) -> list[Candidate]:
    """Cut *pool* to what a greedy choice would take: used where a search would take too long."""
    taken: list[Candidate] = []
    for candidate in pool:
        if need_bytes <= 0:
            break
        taken.append(candidate)
        need_bytes -= candidate.bytes
    return taken


def least_recently_used(need_bytes: int, candidates: Sequence[Candidate]) -> tuple[int, ...] | None:
    """Keys in order of last use until *need_bytes* are free; None when all do not suffice."""
    chosen: list[int] = []
    for candidate in sorted(candidates, key=lambda c: c.last_used_s):
        if need_bytes <= 0:
            break
        chosen.append(candidate.key)
        need_bytes -= candidate.bytes
    return tuple(chosen) if need_bytes <= 0 else None


Policy = Callable[[int, Sequence[Candidate]], tuple[int, ...] | None]

POLICIES: Final[dict[Literal["cost", "lru"], Policy]] = {
    "cost": cheapest_set,
    "lru": least_recently_used,
}
