"""`python -m tests.soak --seconds N`: see `make soak`. Exit status 1 when something is not flat."""

import argparse
import asyncio
import sys
import tempfile

from tests.bench.report import number, save, say
from tests.chaos.faults import cancelled
from tests.chaos.pace import pace
from tests.chaos.tally import Tally
from tests.conftest import DEMO
from tests.soak.gauges import FIELDS, Minute
from tests.soak.traffic import PORTS, Traffic, lay_out
from tests.soak.trend import trend
from tests.system.running import Llmd, free_ports


MINUTE_S = 60.0
READ_S = 5.0
ALLOWED = {
    "rss_mib": (0.05, 4.0), "descriptors": (0.0, 2.0), "threads": (0.0, 2.0), "tasks": (0.0, 4.0),
    "p50_ms": (0.25, 1.0), "p99_ms": (1.0, 20.0),
}  # fmt: skip
"""Rises up to this share, or up to so much, are no trend."""
WELL = ("right", "right, streamed", "left")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--seconds", type=float, default=3600)
    parser.add_argument("--seed", type=int, default=1, help="decides what clients ask and do")
    options = parser.parse_args()
    ports = dict(zip(PORTS, free_ports(len(PORTS)), strict=True))
    tally = Tally()
    with tempfile.TemporaryDirectory(prefix="llmd-", dir="/tmp") as directory:
        daemon = Llmd(directory, lay_out(ports, DEMO))
        daemon.start()
        try:
            minutes = asyncio.run(soak(daemon, ports, tally, options.seconds, options.seed))
        finally:
            daemon.stop()
    rows = judge(minutes)
    say(f"\nrequests: {sum(tally.outcomes.values())}")
    for what, count in tally.outcomes.most_common():
        say(f"{count:8} {what}")
    for what in tally.violations:
        say(f"  {what}")
    save("soak", {"seconds": options.seconds, "requests": dict(tally.outcomes), "trends": rows})
    rising = [row["what"] for row in rows if not row["flat"]]
    say("flat" if not rising else f"NOT FLAT: {', '.join(rising)}")
    return 1 if rising or not rows or set(tally.outcomes) - set(WELL) else 0


async def soak(daemon, ports, tally, seconds, seed):
    """Traffic for *seconds*, and what was seen in each minute of it."""
    minute_s = min(MINUTE_S, seconds / 10)
    minutes = [Minute()]

    def answered(took_s):
        minutes[-1].latencies_s.append(took_s)

    traffic = Traffic(ports, tally, seed, answered)
    head()
    async with cancelled(asyncio.ensure_future(traffic.run())):
        for index in range(max(1, round(seconds / minute_s))):
            if index:
                minutes.append(Minute())
            for _ in range(max(1, round(minute_s / READ_S))):
                await asyncio.sleep(min(READ_S, minute_s))
                minutes[-1].read(await asyncio.to_thread(daemon.status))
                minutes[-1].paces.append(await asyncio.to_thread(pace))
            show(index + 1, minutes[-1])
    return minutes


def head():
    say(f"{'minute':>6} {'what':8}" + "".join(f"{field:>12}" for field in FIELDS))


def show(index, minute):
    """One minute, in lines."""
    for name in minute.holdings:
        values = (number(minute.level(name, field) or float("nan")) for field in FIELDS)
        replaced = len(minute.pids[name]) - 1
        remark = f"  replaced {replaced} times" if replaced else ""
        say(f"{index:6} {name:8}" + "".join(f"{value:>12}" for value in values) + remark)
    p50, p99 = (number((minute.latency_s(percent) or 0) * 1e3) for percent in (50, 99))
    say(
        f"{index:6} requests{len(minute.latencies_s):12} answers, p50 {p50} ms, p99 {p99} ms, "
        f"{minute.pace:.0%} of a processor to be had"
    )


def judge(minutes):
    """A row for each series that can be judged: its readings, and whether they are flat."""
    series = {}
    for name in {name for minute in minutes for name in minute.holdings}:
        pids = set().union(*(minute.pids[name] for minute in minutes))
        if len(pids) == 1:  # each new host fills its caches anew
            for field in FIELDS:
                series[f"{name} {field}"] = field, [m.level(name, field) for m in minutes]
    for percent in (50, 99):
        # Without what others took of the machine meanwhile.
        readings = [(m.latency_s(percent) or 0) * 1e3 * m.pace for m in minutes]
        series[f"p{percent}_ms"] = f"p{percent}_ms", readings
    rows = []
    say()
    say(f"{'series':24}{'from':>10}{'rises by':>10}{'sure':>8}")
    for what, (field, readings) in sorted(series.items()):
        found = trend([reading for reading in readings if reading is not None])
        if found is None:
            continue
        flat = found.flat(*ALLOWED[field])
        rows.append(
            {"what": what, "flat": flat, "from": found.first, "growth": found.growth,
             "score": found.score, "readings": readings}
        )  # fmt: skip
        say(
            f"{what:24}{number(found.first):>10}{found.growth:>10.2f}{found.score:>8.1f}"
            f"{'' if flat else '  NOT FLAT'}"
        )
    return rows


if __name__ == "__main__":
    sys.exit(main())
