"""What llmd's data plane adds: direct against through, side by side, in under half a minute.

    python tests/bench/data_plane.py                       the data plane alone, in its own process
    python tests/bench/data_plane.py --direct 127.0.0.1:9001 --through 127.0.0.1:8081
                                                           any two addresses (a daemon, a rival)

An address is `host:port` or `unix:path`. Prints a table, writes `build/bench/data_plane.json`.
The numbers of one run are comparable to each other, not to those of another machine.
"""

import argparse
import asyncio
import json
import multiprocessing
import statistics
import sys
import tempfile
import time
from pathlib import Path

import bench_engine
import bench_plane
import uvloop


BODY = (
    b'{"model":"any","messages":[{"role":"system","content":"You are helpful."},'
    b'{"role":"user","content":"Say hello."}],"max_tokens":64%b}'
)
HEADERS = (
    b"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept: application/json\r\n"
    b"Content-Type: application/json\r\nUser-Agent: bench/1\r\nAuthorization: Bearer none\r\n"
    b"Content-Length: %d\r\n\r\n%b"
)
CHUNKS = 300
GAP_US = 200


def say(text):
    sys.stdout.write(text + "\n")


def request(extra: bytes = b"") -> bytes:
    body = BODY % extra
    return HEADERS % (len(body), body)


class Caller(asyncio.Protocol):
    """Sends one request over and over and notes how long each answer took."""

    def connection_made(self, transport):
        self.transport = transport
        self.buffer = b""
        self.times = []
        self.expected = 0

    def run(self, request, *, count=0, until_s=0.0):
        """Start; the future is done after *count* answers, or with the first after *until_s*."""
        self.request, self.left, self.until_s = request, count, until_s
        self.done = asyncio.get_running_loop().create_future()
        self.send()
        return self.done

    def send(self):
        self.began = time.perf_counter()
        self.transport.write(self.request)

    def data_received(self, data):
        buffer = self.buffer + data if self.buffer else data
        if not self.expected:
            end = buffer.find(b"\r\n\r\n")
            if end < 0:
                self.buffer = buffer
                return
            head = buffer[:end].lower()
            at = head.index(b"content-length:") + 15
            self.expected = (
                end + 4 + int(head[at : head.find(b"\r", at) if b"\r" in head[at:] else end])
            )
        if len(buffer) < self.expected:
            self.buffer = buffer
            return
        self.buffer = b""
        # The head's length varies (request ids), so it is looked at each time.
        self.expected = 0
        now = time.perf_counter()
        self.times.append(now - self.began)
        self.left -= 1
        if self.left == 0 or (self.until_s and now > self.until_s):
            self.done.set_result(None)
        else:
            self.send()


class Listener(asyncio.Protocol):
    """Reads one stream after the other: its first byte, its end, the delay of each event."""

    def connection_made(self, transport):
        self.transport = transport

    def run(self, request):
        self.first_s = 0.0
        self.delays = []
        self.tail = b""
        self.done = asyncio.get_running_loop().create_future()
        self.began = time.perf_counter()
        self.transport.write(request)
        return self.done

    def data_received(self, data):
        now = time.perf_counter()
        if not self.first_s:
            self.first_s = now - self.began
        at = data.rfind(b'"at":')
        if at >= 0:
            sent_ns = int(data[at + 5 : data.index(b"}", at)])
            if sent_ns:
                self.delays.append(now - sent_ns / 1e9)
        self.tail = (self.tail + data)[-32:]
        if self.tail.endswith(b"0\r\n\r\n") and b"[DONE]" in self.tail:
            self.total_s = now - self.began
            self.done.set_result(None)


async def connect(address, protocol):
    loop = asyncio.get_running_loop()
    if address.startswith("unix:"):
        return (await loop.create_unix_connection(protocol, address[5:]))[1]
    host, _, port = address.rpartition(":")
    return (await loop.create_connection(protocol, host.strip("[]"), int(port)))[1]


def quantile(values, q):
    return sorted(values)[min(len(values) - 1, int(len(values) * q))]


async def latency(sides, *, rounds, count):
    """Sequential requests on one connection, a block of each side in turn: p50 and p99, seconds."""
    callers = {side: await connect(address, Caller) for side, address in sides.items()}
    for caller in callers.values():
        await caller.run(request(), count=200)
        caller.times.clear()
    for _ in range(rounds):
        for caller in callers.values():
            await caller.run(request(), count=count)
    for caller in callers.values():
        caller.transport.close()
    return {
        side: {"p50_s": quantile(caller.times, 0.5), "p99_s": quantile(caller.times, 0.99)}
        for side, caller in callers.items()
    }


async def throughput(sides, *, connections, rounds, block_s):
    """Requests per second at *connections*: the median of the blocks, and their latencies."""
    found = {side: {"per_s": [], "times": []} for side in sides}
    for _ in range(rounds):
        for side, address in sides.items():
            callers = [await connect(address, Caller) for _ in range(connections)]
            began = time.perf_counter()
            await asyncio.gather(
                *(caller.run(request(), until_s=began + block_s) for caller in callers)
            )
            took = time.perf_counter() - began
            times = [one for caller in callers for one in caller.times]
            found[side]["per_s"].append(len(times) / took)
            found[side]["times"] += times
            for caller in callers:
                caller.transport.close()
    return {
        side: {
            "per_s": statistics.median(one["per_s"]),
            "p50_s": quantile(one["times"], 0.5),
            "p99_s": quantile(one["times"], 0.99),
        }
        for side, one in found.items()
    }


async def streams(sides, *, rounds, gap_us):
    """Streams of `CHUNKS` events, in turn: total, first byte and the delay of an event, seconds."""
    extra = b',"stream":true,"chunks":%d' % CHUNKS
    if gap_us:
        extra += b',"gap_us":%d' % gap_us
    readers = {side: await connect(address, Listener) for side, address in sides.items()}
    found = {side: {"total_s": [], "first_s": [], "delay_s": []} for side in sides}
    for number in range(rounds + 1):
        for side, reader in readers.items():
            await reader.run(request(extra))
            if number:
                found[side]["total_s"].append(reader.total_s)
                found[side]["first_s"].append(reader.first_s)
                found[side]["delay_s"] += reader.delays
    for reader in readers.values():
        reader.transport.close()
    return {
        side: {name: statistics.median(values) for name, values in one.items() if values}
        for side, one in found.items()
    }


async def measure(sides, usage):
    """All of it; *usage* tells the CPU seconds of the data plane, if it is ours."""
    results = {"one_connection": await latency(sides, rounds=8, count=400)}
    results["throughput_1"] = await throughput(sides, connections=1, rounds=2, block_s=0.8)
    before = usage()
    results["throughput_32"] = await throughput(sides, connections=32, rounds=4, block_s=1.0)
    after = usage()
    if before:
        served = results["throughput_32"]["through"]["per_s"] * 4.0
        results["cpu_per_request_s"] = (after[0] - before[0]) / served
    results["stream_back_to_back"] = await streams(sides, rounds=60, gap_us=0)
    before = usage()
    results["stream_paced"] = await streams(sides, rounds=12, gap_us=GAP_US)
    after = usage()
    if before:
        results["cpu_per_chunk_s"] = (after[0] - before[0]) / (13 * CHUNKS)
        results["peak_memory_bytes"] = after[1]
    return results


def table(results):
    def us(value):
        return f"{value * 1e6:10,.1f}"

    def row(name, direct, through, show, *, per=1):
        added = (through - direct) / per
        extra = us(added) if show is us else f"{through / direct:10.2f}x"
        say(f"{name:42}{show(direct)}{show(through)}{extra}")

    say(f"{'':42}{'direct':>10}{'through':>10}{'added':>10}")
    one, many = results["one_connection"], results["throughput_32"]
    row("small POST, p50, µs", one["direct"]["p50_s"], one["through"]["p50_s"], us)
    row("small POST, p99, µs", one["direct"]["p99_s"], one["through"]["p99_s"], us)
    for name, key in (("1 connection", "throughput_1"), ("32 connections", "throughput_32")):
        sides = results[key]
        row(
            f"requests/s, {name}",
            sides["direct"]["per_s"],
            sides["through"]["per_s"],
            lambda value: f"{value:10,.0f}",
        )
    row("32 connections, p50, µs", many["direct"]["p50_s"], many["through"]["p50_s"], us)
    row("32 connections, p99, µs", many["direct"]["p99_s"], many["through"]["p99_s"], us)
    burst, paced = results["stream_back_to_back"], results["stream_paced"]
    row(f"{CHUNKS} chunks at once, µs", burst["direct"]["total_s"], burst["through"]["total_s"], us)
    row(
        "  of it per chunk, µs",
        burst["direct"]["total_s"] / CHUNKS,
        burst["through"]["total_s"] / CHUNKS,
        us,
    )
    row("first byte of a stream, µs", burst["direct"]["first_s"], burst["through"]["first_s"], us)
    row(
        f"delay of a chunk ({GAP_US} µs apart), µs",
        paced["direct"]["delay_s"],
        paced["through"]["delay_s"],
        us,
    )
    for name, key in (
        ("CPU per request, µs", "cpu_per_request_s"),
        ("CPU per chunk, µs", "cpu_per_chunk_s"),
    ):
        if key in results:
            say(f"{name:42}{'':10}{us(results[key])}")
    if "peak_memory_bytes" in results:
        say(f"{'peak memory, MiB':42}{'':10}{results['peak_memory_bytes'] / 2**20:10,.1f}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--direct", help="address of the engine; default: one of its own")
    parser.add_argument("--through", help="address of the proxy; default: the data plane alone")
    parser.add_argument("--json", type=Path, default=Path("build/bench/data_plane.json"))
    options = parser.parse_args()
    if bool(options.direct) != bool(options.through):
        parser.error("--direct and --through go together")
    started = []
    with tempfile.TemporaryDirectory() as directory:
        try:
            sides, usage = {"direct": options.direct, "through": options.through}, lambda: None
            if not options.direct:
                sides, usage = start_own(directory, started)
            results = uvloop.run(measure(sides, usage))
        finally:
            for process in started:
                process.kill()
                process.join()
    table(results)
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(results, indent=1))
    say(f"written to {options.json}")


def start_own(directory, started):
    """Start an instant engine and the data plane, each a process; the addresses and a gauge."""
    processes = multiprocessing.get_context("spawn")
    path = f"{directory}/engine.sock"
    ends = []
    for program in (bench_engine.run, bench_plane.run):
        mine, theirs = processes.Pipe()
        process = processes.Process(target=program, args=(path, theirs), daemon=True)
        process.start()
        started.append(process)
        if not mine.poll(20):
            raise SystemExit(f"{program.__module__} did not start")
        ends.append((mine, mine.recv()))
    (_, direct), (gauge, through) = ends

    def usage():
        gauge.send(None)
        return gauge.recv()

    return {"direct": f"127.0.0.1:{direct}", "through": f"127.0.0.1:{through}"}, usage


if __name__ == "__main__":
    main()
