"""Seconds that users wait under each choice of victim, against LRU; the lower, the better.

    python -m tests.bench.eviction --traces 4

A row for each family of traces (`traces.py`), a column for each policy (`policies.py`), each the
mean over several traces. "clairvoyant" is llmd's rule with the future for a forecast, "bound" what
nobody falls below. The clock is simulated: the same figures come out anywhere. The planner's
constants were chosen on the traces with even seeds; the table is of the odd ones.
"""

import argparse
import statistics
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass

from tests.bench.eviction import policies
from tests.bench.eviction.bound import lower_bound_s
from tests.bench.eviction.replay import replay
from tests.bench.eviction.traces import FAMILIES, a_trace
from tests.bench.report import number, save, say, table


BASE, OURS, BOUND = "LRU", "llmd", "bound"
COLUMNS: dict[str, Callable[[], str | policies.Rival]] = {
    BASE: lambda: "lru",
    "LFU": policies.LeastFrequentlyUsed,
    "GDS": policies.GreedyDualSize,
    "GDSF": policies.GreedyDualSizeFrequency,
    "Ollama": policies.ShortestKeepAlive,
    "groups": policies.StaticGroups,
    OURS: lambda: "cost",
    "clairvoyant": policies.Clairvoyant,
}


@dataclass(frozen=True)
class Row:
    """One trace: seconds waited, and loads, by column."""

    family: str
    seed: int
    requests: int
    waited_s: dict[str, float]
    loads: dict[str, int]

    def ratio(self, column: str) -> float:
        """Against LRU."""
        return self.waited_s[column] / self.waited_s[BASE]


def measure(family: str, seed: int) -> Row:
    """Replay one trace under everybody."""
    trace = a_trace(family, seed)
    outcomes = {name: replay(trace, policy()) for name, policy in COLUMNS.items()}
    assert not any(outcome.refused for outcome in outcomes.values()), "everybody was served"
    waited_s = {name: outcome.waited_s for name, outcome in outcomes.items()}
    bound_s = lower_bound_s(trace)
    if bound_s is not None:
        waited_s[BOUND] = bound_s
    loads = {name: outcome.loads for name, outcome in outcomes.items()}
    return Row(family, seed, trace.requests, waited_s, loads)


def by_family(rows: Iterable[Row]) -> dict[str, dict[str, float | str]]:
    """Mean ratios of each family, and of all families alike."""
    found: dict[str, dict[str, float | str]] = {}
    rows = list(rows)
    for family in FAMILIES:
        mine = [row for row in rows if row.family == family]
        columns = mine[0].waited_s
        found[family] = {c: statistics.mean(row.ratio(c) for row in mine) for c in columns}
    means = {c: [float(ratios[c]) for ratios in found.values()] for c in COLUMNS}
    found["mean"] = {c: statistics.mean(ratios) for c, ratios in means.items()}
    found["worst family"] = {c: max(ratios) for c, ratios in means.items()}
    for family in FAMILIES:
        each = [row.ratio(OURS) for row in rows if row.family == family]
        found[family]["llmd, from to"] = f"{number(min(each))} {number(max(each))}"
    return found


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--traces", type=int, default=12, help="of each family and half")
    count = parser.parse_args().traces
    halves = {
        half: [measure(f, seed) for f in FAMILIES for seed in range(first, 2 * count, 2)]
        for half, first in (("chosen_on", 0), ("reported", 1))
    }
    reported, chosen_on = by_family(halves["reported"]), by_family(halves["chosen_on"])
    reported["mean, other half"] = chosen_on["mean"]
    table(reported, [*COLUMNS, BOUND, "llmd, from to"], head="waiting, LRU = 1", width=8)
    waited_s = sum(row.waited_s[BASE] for row in halves["reported"])
    requests = sum(row.requests for row in halves["reported"])
    say(f"{count} traces of each; {requests:,} requests wait {waited_s / requests:.1f} s under LRU")
    ratios = {"reported": reported, "chosen_on": chosen_on}
    traces = {half: [asdict(row) for row in rows] for half, rows in halves.items()}
    save("eviction", {"ratios": ratios, "traces": traces})


if __name__ == "__main__":
    main()
