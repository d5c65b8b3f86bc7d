"""What llmd is to reach, beside what was measured last.

    python -m tests.bench.targets idle swap         or all benchmarks

Read from build/bench/*.json; what was not run is left out, and when the rest was run stands beside
it. Times on a machine that did something else meanwhile say nothing. Two targets are no figures of
a benchmark: that no connection is refused during a restart (tests/system/test_restart.py) and what
the daemon may import (tests/test_architecture.py).
"""

import sys
from dataclasses import dataclass
from functools import reduce
from operator import getitem

from tests.bench.report import load, number, say, table


@dataclass(frozen=True)
class Target:
    """One figure that is to be reached: at most *bound*, or at least.

    Attributes:
        find: The figure in those of *bench*; None where that part of it was not run.
    """

    bench: str
    name: str
    bound: float
    find: object
    at_least: bool = False

    def reached(self, value):
        return value >= self.bound if self.at_least else value <= self.bound

    def __str__(self):
        return f"{'≥' if self.at_least else '≤'} {number(self.bound)}"


def at(*path):
    """The figure that *path* leads to."""
    return lambda figures: reduce(getitem, path, figures)


def memory_growth(rows):
    """Percent, from a tenth of the requests to all of them."""
    tenth, after = (row["through"] for name, row in rows.items() if "memory, after" in name)
    return (after / tenth - 1) * 100


def beside_llama_swap(rows):
    rate = rows["requests/s, 32 connections"]
    return rate["llmd"] / rate["llama-swap"] if "llama-swap" in rate else None


def beside_clairvoyant(found):
    mean = found["ratios"]["reported"]["mean"]
    return mean["llmd"] / mean["clairvoyant"]


def estimated_well(results):
    """Percent of the models; how far an estimate may be off is said in `footprint.py`."""
    return sum(one["within"] for one in results) / len(results) * 100 if results else None


def learned_off(results):
    """Percent, of the model that was learned worst."""
    off = [abs(one["learned_over"]) for one in results if one["learned_over"] is not None]
    return max(off) * 100 if off else None


def busiest_host(found):
    return max(row["wake-ups/s"] for name, row in found["processes"].items() if name != "daemon")


RATE, SMALL = "requests/s, 32 connections", "small POST, p50, µs"
VICTIM = ("ratios", "reported")
TARGETS = [
    Target("whole_daemon", f"added to a {SMALL}", 110, at(SMALL, "added")),
    Target("whole_daemon", RATE, 17_000, at(RATE, "through"), at_least=True),
    *(
        Target("whole_daemon", f"added to {row}", bound, at(row, "added"))
        for row, bound in (
            ("a chunk of 300, 1 stream, µs", 9),
            ("a chunk of 300, 16 streams, µs", 9),
            ("a chunk of 300, 128 streams, µs", 9),
            ("first byte of a stream, µs", 187),
        )
    ),
    Target("whole_daemon", "memory, 10,000 to 100,000 requests, %", 1, memory_growth),
    Target("rivals", f"{RATE}, llama-swap = 1", 4, beside_llama_swap, at_least=True),
    *(
        Target("swap", f"MLX to first token{when}, by hand = 1", 0.5,
               at("first_token", f"llmd, MLX, warm spare{when}", "ratio"))
        for when in ("", ", after a boot")
    ),
    *(
        Target("swap", f"{name}, ms", bound, at("others", name, "median, ms"))
        for name, bound in (
            ("ready, and not noticed", 20),
            ("unload to reaped, MLX", 100),
            ("unload to reaped, llama.cpp", 100),
        )
    ),
    *(
        Target("prompt", f"{engine}, loaded again, times faster", 10,
               at(f"{engine}, loaded again", "times faster"), at_least=True)
        for engine in ("mlx", "llama.cpp")
    ),
    Target("eviction", "waiting, mean, LRU = 1", 0.92, at(*VICTIM, "mean", "llmd")),
    Target("eviction", "waiting, worst family, LRU = 1", 1.02, at(*VICTIM, "worst family", "llmd")),
    Target("eviction", "waiting, mean, clairvoyant = 1", 1.08, beside_clairvoyant),
    Target("footprint", "models estimated well, %", 100, estimated_well, at_least=True),
    Target("footprint", "learned, off by at most, %", 3, learned_off),
    Target("idle", "daemon, wake-ups/s", 1, at("processes", "daemon", "wake-ups/s")),
    Target("idle", "daemon, CPU %", 0.05, at("processes", "daemon", "CPU %")),
    Target("idle", "daemon, RSS, MB", 60, at("processes", "daemon", "RSS, MB")),
    Target("idle", "busiest host, wake-ups/s", 1, busiest_host),
    *(
        Target("startup", f"{name}, ms", bound, at(name, "median, ms"))
        for name, bound in (("llmd serve, until its port answers", 300), ("llmd-ctl status", 150))
    ),
    Target("growth", "start to its last port, 100 ports, ms", 300,
           at("daemon_by_ports", "start to its last port, ms", "100")),
]  # fmt: skip


def main():
    rows = {}
    for target in TARGETS:
        saved = load(target.bench)
        if saved is None or (sys.argv[1:] and target.bench not in sys.argv[1:]):
            continue
        value = target.find(saved["figures"])
        if value is not None:
            rows[f"{target.bench}: {target.name}"] = {
                "measured": value,
                "target": str(target),
                "reached": "yes" if target.reached(value) else "no",
                "when (UTC)": saved["about"]["date"][:16].replace("T", " "),
            }
    if rows:
        table(rows, ["measured", "target", "reached", "when (UTC)"])
        say(f"reached: {sum(row['reached'] == 'yes' for row in rows.values())} of {len(rows)}")


if __name__ == "__main__":
    main()
