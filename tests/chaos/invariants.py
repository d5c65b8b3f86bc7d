"""What must hold: watched all along, and looked at closely whenever the run calms down."""

import asyncio
import contextlib
import json
import time
from dataclasses import dataclass

import psutil

from tests.chaos.clients import compose, receive
from tests.chaos.faults import cancelled
from tests.chaos.pace import Stopwatch
from tests.chaos.script import DEMO, Ask, expected
from tests.chaos.tally import Tally
from tests.chaos.world import ORPHAN_GRACE_S, World


RECOVERY_S = 10.0
"""Within so long of the last fault, every port serves again, if nobody else uses the machine."""
TOLERANCE = 0.10
"""Measured memory may pass the budget by this share: it is measured every two seconds, and RSS
counts what processes share in each of them."""
GROWTH_FDS = 8
GROWTH_THREADS = 8
GROWTH_TASKS = 8
GROWTH_BYTES = 48 * 2**20
"""What a daemon may hold more than at its first rest, at most, however long it ran."""
PORT_PROFILES = ("code", "raw", "reason", "lab", "deaf", "leaky")


@dataclass(frozen=True)
class Weight:
    """What a daemon holds at rest."""

    pid: int
    fds: int
    threads: int
    tasks: int
    rss_bytes: int


class Observer:
    """Looks at *world*, and tells *tally* what it should not have seen."""

    def __init__(self, world: World, tally: Tally):
        self.world = world
        self.tally = tally
        self.first: Weight | None = None

    # --- all along

    async def watch(self):
        """Until cancelled: the budget by the ledger four times a second, in truth once."""
        rounds = 0
        while True:
            await self.look_at_status()
            if rounds % 4 == 0:
                await asyncio.to_thread(self.look_at_hosts)
            rounds += 1
            await asyncio.sleep(0.25)

    async def look_at_status(self):
        began = time.monotonic()
        status, document = await self.world.admin("GET", "/v1/status", limit_s=15)
        if status != 200:
            if not self.tally.may_be_cut(began):
                self.tally.violated(f"no status: {status} {document}")
            return
        budget = document["budget"]
        self.tally.used_bytes = max(self.tally.used_bytes, budget["used_bytes"])
        # Under a budget that was lowered, what is busy may stay until it is not.
        if budget["used_bytes"] > max(budget["total_bytes"], self.world.budget_bytes):
            charged = {p["name"]: p["footprint_bytes"] >> 20 for p in document["profiles"]}
            spare = (document.get("spare") or {}).get("footprint_bytes", 0) >> 20
            self.tally.violated(f"budget passed: {budget} {charged} spare {spare}")

    def look_at_hosts(self):
        measured = 0
        for pid in self.world.llmd.host_pids():
            with contextlib.suppress(psutil.Error):
                measured += psutil.Process(pid).memory_info().rss
        self.tally.measured_bytes = max(self.tally.measured_bytes, measured)
        if measured > self.world.budget_bytes * (1 + TOLERANCE):
            self.tally.violated(f"{measured / 2**20:.0f} MiB measured, budget passed")

    # --- at rest

    async def look_closely(self):
        """No more faults: every port serves soon, every host has an owner, nothing has grown."""
        calm = Stopwatch()
        async with cancelled(asyncio.ensure_future(calm.run())):
            self.world.calm()
            await self.world.admin("POST", "/v1/reload")
            for profile in self.world.base["profiles"]:
                await self.world.admin("POST", f"/v1/profiles/{profile}/unpin")
            await asyncio.gather(*(self.serves(name, calm) for name in PORT_PROFILES))

    async def serves(self, profile, calm):
        """A fresh request, again and again until it is answered."""
        came = ["nothing"]
        asking = asyncio.ensure_future(self.until_right(profile, came))
        async with cancelled(asking):
            while not asking.done() and calm.own_s < RECOVERY_S:
                await asyncio.wait((asking,), timeout=0.1)
        if asking.done() and not asking.cancelled():
            self.tally.slowest_s = max(self.tally.slowest_s, calm.passed_s)
            self.tally.slowest_own_s = max(self.tally.slowest_own_s, calm.own_s)
            self.tally.outcomes["right, fresh after the faults"] += 1
            return
        found = (await self.world.status() or {}).get("profiles", ())
        states = {p["name"]: (p["state"], p["retry_in_s"]) for p in found}
        self.tally.violated(
            f"{profile} does not serve {calm.passed_s:.1f} s later "
            f"({calm.own_s:.1f} s without other people's work): {came[-1]} {states}"
        )

    async def until_right(self, profile, came):
        """Ask until the answer is right; *came* is what came instead."""
        while True:
            try:
                answer = await fresh(profile, self.world.ports[profile])
            except OSError as error:
                answer = repr(error)
            if answer is None:
                return
            came.append(answer)
            await asyncio.sleep(0.2)

    async def look_at_rest(self):
        """Unloaded and idle: nothing has grown, and no host is without an owner."""
        await self.world.admin("POST", "/v1/unload")
        await self.until_owned()
        process = self.world.process()
        tasks = (await self.world.status() or {}).get("tasks", 0)
        weight = Weight(
            process.pid, process.num_fds(), process.num_threads(), tasks, process.memory_info().rss
        )
        if self.first is None or self.first.pid != weight.pid:
            self.first = weight
            return
        first = self.first
        if weight.fds > first.fds + GROWTH_FDS:
            self.tally.violated(f"descriptors grew: {first.fds} to {weight.fds}")
        if weight.threads > first.threads + GROWTH_THREADS:
            self.tally.violated(f"threads grew: {first.threads} to {weight.threads}")
        if weight.tasks > first.tasks + GROWTH_TASKS:
            self.tally.violated(f"tasks grew: {first.tasks} to {weight.tasks}")
        if weight.rss_bytes > first.rss_bytes + GROWTH_BYTES:
            self.tally.violated(
                f"memory grew: {first.rss_bytes >> 20} to {weight.rss_bytes >> 20} MiB"
            )

    async def until_owned(self):
        """Only hosts that the daemon knows of are left, soon."""
        deadline = time.monotonic() + ORPHAN_GRACE_S + 5
        while True:
            status = await self.world.status() or {}
            known = {p["host_pid"] for p in status.get("profiles", ())}
            known |= {(status.get("spare") or {}).get("host_pid")}
            hosts = await asyncio.to_thread(leaders, self.world.llmd.host_pids())
            if hosts <= known:
                return
            if time.monotonic() > deadline:
                self.tally.violated(f"hosts without an owner: {hosts - known}")
                return
            await asyncio.sleep(0.3)

    def look_for_remains(self):
        """The daemon was stopped: nothing of it runs."""
        if left := self.world.llmd.host_pids():
            self.tally.violated(f"left behind: {left}")


def leaders(pids):
    """The hosts among *pids*: whose parent is none of them. Zombies do not count."""
    found = set()
    for pid in pids:
        with contextlib.suppress(psutil.Error):
            process = psutil.Process(pid)
            if process.status() != "zombie" and process.ppid() not in pids:
                found.add(pid)
    return found


async def fresh(profile, port):
    """Ask *port* a question; None if it was answered right, else what came instead."""
    ask = Ask(profile, "capital" if profile in DEMO else "", unruly={"chunks": 2})
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(compose(ask, port))
        answer = await receive(reader)
    finally:
        writer.transport.abort()
    try:
        text = json.loads(answer.body)["choices"][0]["message"]["content"]
    except (ValueError, KeyError, TypeError):
        return f"{answer.status} {answer.body[:300]!r}"
    return None if text == expected(ask) else f"wrong answer {text!r}"
