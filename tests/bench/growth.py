"""What grows with profiles, ports and waiting clients: decisions alone, then the whole daemon.

Each figure is given for several sizes, a column each. One that grows with the size of the
configuration although the work does not is a loop too many. The first two tables are the scheduler
alone, without a loop or a socket; the others a daemon and its clients.
"""

import asyncio
import itertools
import statistics
import tempfile
import time

import psutil
import uvloop

from llmd.core.events import (
    ConfigReplaced,
    HostReady,
    LoadRequested,
    MemoryMeasured,
    RequestArrived,
    RequestFinished,
    StartHost,
    Ticked,
)
from llmd.core.facts import Residency, Rules
from llmd.core.scheduler import Scheduler
from tests.bench import instant_engine
from tests.bench.load import Caller, Listener, connect, connected, request
from tests.bench.report import save, say, table
from tests.bench.startup import listening
from tests.system.running import Llmd, free_ports


PORTS = (1, 10, 100, 400)
"""With two profiles each, one of which is resident."""
QUEUES = (10, 100, 1_000, 10_000)
WAITING = (10, 100, 1_000)
ROUNDS = 300
CHUNKS = 300


class World:
    """A scheduler with the first profile of each of *ports* ready; time stands still."""

    def __init__(self, ports, *, parallel=1):
        self.scheduler = Scheduler()
        self.tickets = itertools.count(1)
        self.hosts = {}
        profiles = tuple(
            Residency(f"{letter}{port}", port, 1, parallel=parallel)
            for port in range(1, ports + 1)
            for letter in "ab"
        )
        rules = Rules(10 * ports, queue_limit=10 * max(QUEUES))
        self.handle(ConfigReplaced(rules, profiles))
        for port in range(1, ports + 1):
            self.handle(LoadRequested(next(self.tickets), f"a{port}"))
            self.handle(HostReady(self.hosts[f"a{port}"]))

    def handle(self, event):
        effects = self.scheduler.handle(event, now=0.0)
        self.hosts |= {e.profile: e.host for e in effects if isinstance(e, StartHost)}

    def timed_us(self, make, times=ROUNDS):
        """Median microseconds of handling each of the events that *make* makes."""
        taken = []
        for _ in range(times):
            event = make()
            began = time.perf_counter_ns()
            self.scheduler.handle(event, now=0.0)
            taken.append((time.perf_counter_ns() - began) / 1e3)
        return statistics.median(taken)

    def arrival(self, model=None):
        self.last = next(self.tickets)
        return RequestArrived(self.last, 1, model)


def decisions_by_ports(ports):
    """µs for each decision in a world of that many ports."""
    world = World(ports, parallel=10 * ROUNDS)
    rows = {"a request, granted": world.timed_us(world.arrival)}
    running = iter(range(world.last - ROUNDS + 1, world.last + 1))
    rows["its end"] = world.timed_us(lambda: RequestFinished(next(running), served=True))
    rows["measured memory, unchanged"] = world.timed_us(
        lambda: MemoryMeasured(world.hosts["a1"], 1)
    )
    rows["a tick"] = world.timed_us(Ticked)
    busy = World(ports)
    busy.handle(busy.arrival())
    rows["a request that waits"] = busy.timed_us(busy.arrival)
    leaver = iter(range(busy.last, 0, -1))
    rows["a client that gives up"] = busy.timed_us(
        lambda: RequestFinished(next(leaver), served=False), ROUNDS - 1
    )
    rows["a snapshot"] = statistics.median(timed_us(lambda: world.scheduler.snapshot(0.0)))
    return rows


def decisions_by_queue(waiting):
    """µs for each decision beside a queue of that length, in a world of ten ports."""
    world = World(10)
    first = world.last = next(world.tickets)
    world.handle(RequestArrived(first, 1, None))
    for _ in range(waiting):
        world.handle(world.arrival())
    rounds = min(ROUNDS, waiting // 2)
    served = itertools.count(first)
    rows = {
        "the end of a request, the next one granted": world.timed_us(
            lambda: RequestFinished(next(served), served=True), rounds
        ),
        "one more that waits": world.timed_us(world.arrival, rounds),
        "what a request waits for": statistics.median(
            timed_us(lambda: world.scheduler.explain(world.last))
        ),
    }
    leaver = iter(range(world.last, 0, -1))
    rows["a client that gives up"] = world.timed_us(
        lambda: RequestFinished(next(leaver), served=False), rounds
    )
    return rows


def timed_us(work, times=30):
    taken = []
    for _ in range(times):
        began = time.perf_counter_ns()
        work()
        taken.append((time.perf_counter_ns() - began) / 1e3)
    return taken


def daemon_by_ports(directory, engine, ports):
    """Start-up, memory and the latency of `status` with that many ports."""
    numbers = free_ports(ports)
    profiles = {
        f"{letter}{number}": {
            "engine": "remote", "url": f"http://127.0.0.1:{engine}", "port": number,
        }
        for number in numbers
        for letter in "ab"
    }  # fmt: skip
    # The first one finds nothing in the page cache.
    starts = [listening(directory, profiles, numbers[-1])[0] for _ in range(4)][1:]
    daemon = Llmd(directory, {"gateway": None, "profiles": profiles})
    began = time.perf_counter()
    daemon.start()
    rows = {
        "start to its last port, ms": statistics.median(starts),
        "start to the first status, ms": (time.perf_counter() - began) * 1e3,
    }
    try:
        process = psutil.Process(daemon.process.pid)
        rows["memory, MB"] = process.memory_info().rss / 1e6
        rows["status, ms"] = statistics.median(timed_us(daemon.status)) / 1e3
        caller = uvloop.run(asked(f"127.0.0.1:{numbers[0]}", 300))
        rows["a small POST, p50, µs"] = statistics.median(caller.times[20:]) * 1e6
    finally:
        daemon.stop()
    return rows


async def asked(address, count):
    caller = await connect(address, Caller)
    await caller.run(request(), count=count)
    caller.transport.close()
    return caller


async def crowd(daemon, address, count):
    """*count* clients wait behind the stream of profile `one`; then all are served in turn."""
    process = psutil.Process(daemon.process.pid)
    before_mb = process.memory_info().rss / 1e6
    stream = await connect(address, Listener)
    gap_us = 10_000 + 10 * count
    streaming = stream.run(request(chunks=CHUNKS, gap_us=gap_us))
    callers = await connected(address, Caller, count)
    waiting = [caller.run(request(), count=1) for caller in callers]
    await asyncio.to_thread(daemon.wait_for, lambda _: daemon.profile("one")["queued"] == count)
    status_us = await asyncio.to_thread(timed_us, daemon.status)
    memory_mb = process.memory_info().rss / 1e6
    await streaming
    began = time.perf_counter()
    await asyncio.gather(*waiting)
    taken_s = time.perf_counter() - began
    for client in (stream, *callers):
        client.transport.close()
    return {
        "memory for each, KB": (memory_mb - before_mb) * 1e3 / count,
        "status meanwhile, ms": statistics.median(status_us) / 1e3,
        "served one by one, µs each": taken_s / count * 1e6,
    }


async def many_streams(daemon, address, count):
    """*count* streams at once: what a chunk costs, and memory for each stream."""
    process = psutil.Process(daemon.process.pid)
    before_mb = process.memory_info().rss / 1e6
    readers = await connected(address, Listener, count)
    began = time.perf_counter()
    await asyncio.gather(*(reader.run(request(chunks=CHUNKS)) for reader in readers))
    taken_s = time.perf_counter() - began
    after_mb = process.memory_info().rss / 1e6
    for reader in readers:
        reader.transport.close()
    return {
        "a chunk, µs": taken_s / (count * CHUNKS) * 1e6,
        "memory for each, KB": (after_mb - before_mb) * 1e3 / count,
    }


def daemon_by_clients(directory, engine):
    """Waiting clients and streams, by their number."""
    one, many = free_ports(2)
    remote = {"engine": "remote", "url": f"http://127.0.0.1:{engine}"}
    profiles = {
        "one": {**remote, "port": one, "parallel": 1},
        "many": {**remote, "port": many, "parallel": 256},
    }
    daemon = Llmd(directory, {"gateway": None, "queue_limit": 2000, "profiles": profiles}).start()
    try:
        waiting = {
            f"{count:,}": uvloop.run(crowd(daemon, f"127.0.0.1:{one}", count)) for count in WAITING
        }
        streams = {
            f"{count}": uvloop.run(many_streams(daemon, f"127.0.0.1:{many}", count))
            for count in (16, 64, 256)
        }
    finally:
        daemon.stop()
    return waiting, streams


def show(title, by_size):
    """A table with a column for each size."""
    names = next(iter(by_size.values()))
    rows = {name: {size: found[name] for size, found in by_size.items()} for name in names}
    table(rows, list(by_size), head=title)
    say()
    return rows


def main():
    figures = {
        "decisions_by_ports": show(
            "µs, by ports", {f"{ports}": decisions_by_ports(ports) for ports in PORTS}
        ),
        "decisions_by_queue": show(
            "µs, by length of the queue", {f"{n:,}": decisions_by_queue(n) for n in QUEUES}
        ),
    }
    with tempfile.TemporaryDirectory(prefix="llmd-", dir="/tmp") as directory:
        path = f"{directory}/engine.sock"
        with instant_engine.running(instant_engine.run, path) as (engine, _):
            figures["daemon_by_ports"] = show(
                "the daemon, by ports",
                {f"{n}": daemon_by_ports(directory, engine, n) for n in (1, 10, 100)},
            )
            waiting, streams = daemon_by_clients(directory, engine)
    figures["waiting"] = show("by waiting clients", waiting)
    figures["streams"] = show(f"by streams of {CHUNKS} chunks", streams)
    save("growth", figures)


if __name__ == "__main__":
    main()
