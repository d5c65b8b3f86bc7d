"""What a proxy adds: the same measurements on any number of sides, in turns.

The first side is the engine itself; the others are ways to it. Small requests are sent to each
side in turn, one by one; what needs many connections at once takes turns in blocks.

How to read the rows: the clients and the engine share the machine's cores with the proxy, so
requests/s is what the machine does, and CPU per request what the proxy's process costs; the latter
suffers least from what else is running. "A chunk of 300" is a stream's time divided by its chunks,
which the engine writes back to back: several travel together. "A chunk, 200 µs apart" travels alone
as a model's tokens do: the delay is from the engine's write to the client's read.

"Beside work": a program computes on every core, as an engine without a GPU does, so that none of
them has to be woken. What is added there is what a proxy does; without, a small request also waits
for cores to wake, twice 30 µs where it was looked at (a virtual machine), or not at all when the
kernel happens to run client and engine on the same one, which is why that row varies.
"""

import asyncio
import contextlib
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from types import MappingProxyType

import psutil

from tests.bench.load import Caller, Listener, connect, connected, quantile, request
from tests.bench.report import say


CHUNKS = 300
GAP_US = 200
PROMPT_BYTES = 5_000_000
MANY = 100_000
"""Requests over which memory is to stay flat."""


async def small(sides, *, seconds, at_least=50):
    """One request to each side in turn, for *seconds* in all: p50 and p99, µs."""
    callers = {side: await connect(address, Caller) for side, address in sides.items()}
    for caller in callers.values():
        await caller.run(request(), count=at_least)
        caller.times.clear()
    until_s = time.perf_counter() + seconds
    while time.perf_counter() < until_s or len(caller.times) < at_least:
        for caller in callers.values():
            await caller.run(request(), count=1)
    for caller in callers.values():
        caller.transport.close()
    return {
        f"small POST, p{int(q * 100)}, µs": {
            side: quantile(caller.times, q) * 1e6 for side, caller in callers.items()
        }
        for q in (0.5, 0.99)
    }


def broke_off(results):
    """What is to be said of those that failed; nothing when none did."""
    errors = [result for result in results if isinstance(result, Exception)]
    return f"{len(errors)} broke off: {errors[0]}" if errors else ""


@contextlib.contextmanager
def work_on_every_core():
    """Programs that compute; ended with the context."""
    spin = [sys.executable, "-c", "while True: pass"]
    at_work = [subprocess.Popen(spin) for _ in range(os.cpu_count() or 1)]
    try:
        yield
    finally:
        for process in at_work:
            process.kill()
            process.wait()


async def small_beside_work(sides, *, seconds):
    """`small` while every core has something else to do, too."""
    with work_on_every_core():
        rows = await small(sides, seconds=seconds)
    return {name.replace("small POST", "small POST beside work"): row for name, row in rows.items()}


async def throughput(sides, pids, *, connections, rounds, block_s):
    """Requests per second at *connections*, their latencies, and the CPU time that each took."""
    found = {side: {"per_s": [], "times": [], "cpu_s": 0.0} for side in sides}
    for _ in range(rounds):
        for side, address in sides.items():
            one = found[side]
            callers = await connected(address, Caller, connections)
            before_s, began = cpu_s(pids.get(side)), time.perf_counter()
            ends = (caller.run(request(), until_s=began + block_s) for caller in callers)
            broken = broke_off(await asyncio.gather(*ends, return_exceptions=True))
            took_s = time.perf_counter() - began
            for caller in callers:
                caller.transport.close()
            if broken:
                say(f"{side}, {connections} connections: {broken}")
                continue
            one["cpu_s"] += cpu_s(pids.get(side)) - before_s
            times = [taken for caller in callers for taken in caller.times]
            one["per_s"].append(len(times) / took_s)
            one["times"] += times
    name = f"{connections} connection{'s' if connections > 1 else ''}"

    def figures(figure):
        return {side: figure(one) for side, one in found.items() if one["times"]}

    rows = {
        f"requests/s, {name}": figures(lambda one: statistics.median(one["per_s"])),
        f"  p50, {name}, µs": figures(lambda one: quantile(one["times"], 0.5) * 1e6),
        f"  p99, {name}, µs": figures(lambda one: quantile(one["times"], 0.99) * 1e6),
    }
    if pids:
        rows[f"  CPU per request, {name}, µs"] = {
            side: one["cpu_s"] / len(one["times"]) * 1e6
            for side, one in found.items()
            if side in pids and one["times"]
        }
    return rows


async def streams(sides, *, count, rounds):
    """*count* streams of `CHUNKS` events at once, in blocks: µs for each chunk, first byte."""
    wish = request(chunks=CHUNKS)
    per_chunk, first = {side: [] for side in sides}, {side: [] for side in sides}
    for number in range(rounds + 1):
        for side, address in sides.items():
            readers = await connected(address, Listener, count)
            began = time.perf_counter()
            ends = (reader.run(wish) for reader in readers)
            broken = broke_off(await asyncio.gather(*ends, return_exceptions=True))
            taken_s = time.perf_counter() - began
            for reader in readers:
                reader.transport.close()
            if broken:
                say(f"{side}, {count} streams: {broken}")
            elif number:
                per_chunk[side].append(taken_s / (count * CHUNKS))
                first[side] += [reader.first_s for reader in readers]
    name = f"{count} stream{'s' if count > 1 else ''}"
    rows = {f"a chunk of {CHUNKS}, {name}, µs": medians_us(per_chunk)}
    if count == 1:
        rows["first byte of a stream, µs"] = medians_us(first)
    return rows


async def paced(sides, pids, *, rounds):
    """A stream with pauses, as models make them: the delay of a chunk, and its CPU time; µs."""
    readers = {side: await connect(address, Listener) for side, address in sides.items()}
    wish = request(chunks=CHUNKS, gap_us=GAP_US)
    delays, used_s = {side: [] for side in sides}, dict.fromkeys(pids.keys() & sides.keys(), 0.0)
    first = {side: [] for side in sides}
    for number in range(rounds + 1):
        for side, reader in readers.items():
            before_s = cpu_s(pids.get(side))
            await reader.run(wish)
            if number:
                delays[side] += reader.delays
                first[side].append(reader.first_s)
                if side in used_s:
                    used_s[side] += cpu_s(pids[side]) - before_s
    for reader in readers.values():
        reader.transport.close()
    rows = {
        f"first byte, chunks {GAP_US} µs apart, µs": medians_us(first),
        f"delay of a chunk, {GAP_US} µs apart, µs": medians_us(delays),
    }
    if used_s:
        rows["  CPU per chunk, µs"] = {
            side: used / (rounds * CHUNKS) * 1e6 for side, used in used_s.items()
        }
    return rows


async def long_prompt(sides, *, rounds):
    """A prompt of 5 MB: from its first byte to the answer, ms."""
    callers = {side: await connect(address, Caller) for side, address in sides.items()}
    wish = request(prompt=b"x" * PROMPT_BYTES)
    for _ in range(rounds + 1):
        for caller in callers.values():
            await caller.run(wish, count=1)
    for caller in callers.values():
        caller.transport.close()
    times = {side: caller.times[1:] for side, caller in callers.items()}
    return {
        "a prompt of 5 MB, ms": {
            side: statistics.median(taken) * 1e3 for side, taken in times.items()
        }
    }


async def memory(sides, pids, *, requests=MANY, connections=32):
    """Memory of each side whose pid is known, before, after a tenth and after all *requests*."""
    rows = {}
    for side, pid in pids.items():
        seen = [rss_mb(pid)]
        callers = await connected(sides[side], Caller, connections)
        for share in (0.1, 0.9):
            each = int(requests * share / connections)
            await asyncio.gather(*(caller.run(request(), count=each) for caller in callers))
            seen.append(rss_mb(pid))
        for caller in callers:
            caller.transport.close()
        names = ("before", f"after {requests // 10:,} requests", f"after {requests:,}")
        for name, value in zip(names, seen, strict=True):
            rows.setdefault(f"memory, {name}, MB", {})[side] = value
    return rows


async def measure(sides, pids, *, scale=1.0, slow=MappingProxyType({})):
    """All of it, as rows by side.

    Args:
        sides: Addresses by name; the engine itself comes first.
        pids: Whose CPU time and memory to read.
        scale: Of the time that it takes.
        slow: Sides that the others do not take turns with, request by request, because they would
            fall asleep meanwhile; and how many connections each is given at most.
    """

    def able(count):
        return {side: at for side, at in sides.items() if count <= slow.get(side, count)}

    quick = {side: at for side, at in sides.items() if side not in slow}
    say("small requests", progress=True)
    rows = await small(quick, seconds=3 * scale)
    for side in sides.keys() - quick.keys():
        for name, values in (await small({side: sides[side]}, seconds=3 * scale)).items():
            rows[name] |= values
    rows |= await small_beside_work(quick, seconds=3 * scale)
    for connections in (1, 32, 256):
        say(f"{connections} at a time", progress=True)
        rows |= await throughput(
            able(connections), pids, connections=connections, rounds=4, block_s=scale * 0.8
        )
    for count, rounds in ((1, 40), (16, 8), (128, 2)):
        say(f"streams, {count} at a time", progress=True)
        rows |= await streams(able(count), count=count, rounds=max(int(rounds * scale), 1))
    say("paced streams, long prompts", progress=True)
    rows |= await paced(quick, pids, rounds=max(int(10 * scale), 1))
    return rows | await long_prompt(sides, rounds=max(int(10 * scale), 2))


def with_added(rows):
    """Each row with what the second side adds to the first, or its share of the first's rate."""
    for name, values in rows.items():
        if len(values) < 2:
            continue
        direct, through = list(values.values())[:2]
        rate = name.startswith("requests/s")
        values["added"] = f"{through / direct:.2f}x" if rate else through - direct
    return rows


def medians_us(found):
    return {side: statistics.median(values) * 1e6 for side, values in found.items() if values}


def cpu_s(pid):
    """CPU seconds of a process whose work is done by its first thread."""
    if pid is None:
        return 0.0
    exact = Path(f"/proc/{pid}/schedstat")  # nanoseconds; the others count in hundredths
    if exact.exists():
        return int(exact.read_text().split()[0]) / 1e9
    times = psutil.Process(pid).cpu_times()
    return times.user + times.system


def rss_mb(pid):
    return psutil.Process(pid).memory_info().rss / 1e6
