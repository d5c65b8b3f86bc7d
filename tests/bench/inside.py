"""What llmd itself computes for one small request, without kernel, network and event loop.

The real daemon with one remote profile, whose client and engine are transports that keep nothing:
the request is put into `data_received` of the client's connection and the answer into that of the
engine's. *Cold* is behind a walk through more memory than the second-level cache holds, as after
other processes had the core; what a request costs in life lies between the two, nearer to cold
while it is the only one. Then where the time goes, by file, with a profiler in the way.
"""

import asyncio
import cProfile
import gc
import logging
import pstats
import tempfile
import time
from collections import Counter
from pathlib import Path

import structlog
import uvloop

from llmd.config.models import Config
from llmd.proxy.upstream import UpstreamConnection
from llmd.runtime.daemon import Daemon
from llmd.runtime.learned import Learned
from llmd.runtime.ledger import Ledger
from llmd.runtime.log import EventLog
from llmd.runtime.ports import Held
from tests.bench.instant_engine import ANSWER
from tests.bench.load import quantile, request
from tests.bench.report import ROOT, number, save, say, table
from tests.system.running import free_ports


ROUNDS = 3000
WALK_BYTES = 2 * 2**20
REQUEST = request()
MOST_FILES = 20


class Nowhere(asyncio.Transport):
    """Takes what is written, and counts the writes."""

    writes = 0

    def write(self, _data):
        self.writes += 1

    def is_closing(self):
        return False

    def set_write_buffer_limits(self, high=None, low=None):
        pass

    def get_write_buffer_size(self):
        return 0

    def abort(self):
        pass

    def close(self):
        pass


class Both:
    """A client and an engine of a daemon that runs."""

    def __init__(self, daemon, port):
        self.client = daemon.ports._listeners[port]._accept()
        self.written = Nowhere()
        self.client.connection_made(self.written)
        self.engine = asyncio.get_running_loop().create_future()
        daemon.pool._connect = self.connect

    async def connect(self, shelf, _upstream, caller):
        engine = UpstreamConnection(shelf, lambda _connection: None)
        engine.connection_made(Nowhere())
        self.engine.set_result(engine)
        caller.connected(engine)

    async def begin(self):
        self.client.data_received(REQUEST)
        engine = await self.engine
        engine.data_received(ANSWER)
        return self.client.data_received, engine.data_received


def measured(client, engine, walk):
    """µs of each way, one pair for each round; *walk* is gone through before each."""
    ways = []
    for _ in range(ROUNDS):
        walk.count(1)
        began = time.perf_counter()
        client(REQUEST)
        sent = time.perf_counter()
        walk.count(1)
        came = time.perf_counter()
        engine(ANSWER)
        ways.append(((sent - began) * 1e6, (time.perf_counter() - came) * 1e6))
    return ways


def by_file(client, engine):
    """Share of the time and calls for one request, by file."""
    with cProfile.Profile() as profile:
        for _ in range(ROUNDS):
            client(REQUEST)
            engine(ANSWER)
    shares, calls = Counter(), Counter()
    for (file, _line, _name), (_, count, own_s, *_rest) in pstats.Stats(profile).stats.items():
        path = Path(file)
        name = str(path.relative_to(ROOT)) if path.is_relative_to(ROOT / "llmd") else "C, others"
        shares[name] += own_s
        calls[name] += count
    total = shares.total()
    return {
        name: {"time, %": 100 * own_s / total, "calls": calls[name] / ROUNDS}
        for name, own_s in shares.most_common(MOST_FILES)
    }


async def figures(daemon, port):
    both = Both(daemon, port)
    client, engine = await both.begin()
    gc.collect()
    gc.freeze()
    rows = {}
    for name, size in (("hot", 1), ("cold", WALK_BYTES)):
        ways = measured(client, engine, bytearray(size))
        for way, found in zip(("request", "answer"), zip(*ways, strict=True), strict=True):
            rows.setdefault(f"{way}, µs", {})[name] = quantile(found, 0.5)
    files = by_file(client, engine)
    if both.written.writes != 3 * ROUNDS + 1:
        raise RuntimeError("not every request was answered")
    return rows, files


def daemon_in(directory, port):
    remote = {"engine": "remote", "url": "http://127.0.0.1:9", "port": port, "parallel": 256}
    return Daemon(
        Config.model_validate({"gateway": None, "profiles": {"bench": remote}}),
        learned=Learned.load(directory / "footprints.json"),
        ledger=Ledger.beside(directory, directory / "s"),
        owner=directory / "s",
        log_dir=directory,
        events=EventLog(),
        held=Held(),
    )


async def run(directory):
    (port,) = free_ports(1)
    daemon, found = daemon_in(directory, port), []

    async def ready():
        found.extend(await figures(daemon, port))
        daemon.depart("stop")

    await daemon.run(ready)
    return found


def main():
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    with tempfile.TemporaryDirectory(prefix="llmd-", dir="/tmp") as directory:
        rows, files = uvloop.run(run(Path(directory)))
    table(rows, ["hot", "cold"])
    calls = sum(row["calls"] for row in files.values())
    say(f"\n{number(calls)} calls for each request, and where its time goes:")
    table(files, ["time, %", "calls"])
    save("inside", {"ways": rows, "files": files})


if __name__ == "__main__":
    main()
