"""Many requests a second across restarts, crashes and an upgrade: nobody is refused.

`LLMD_MINUTE_S` makes it longer than it is in the suite; the figures are printed (`pytest -s`).
"""

import asyncio
import collections
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field

import aiohttp
import yaml

import llmd
from tests.conftest import ROOT
from tests.lessons import FRANCE, LESSONS
from tests.system.running import Llmd, alive, free_ports
from tests.system.service_manager import ServiceManager


DURATION_S = float(os.environ.get("LLMD_MINUTE_S", "20"))
PER_SECOND = 200
"""At most, and no more than a third of what this machine can: else they would wait for the machine,
until there are too many of them."""
TRIAL_S = 2.0
STREAMS_PER_SECOND = 3
PROMPT, ANSWER = FRANCE
STORY = LESSONS["story"]


@dataclass
class Tally:
    """What became of the requests.

    Attributes:
        kills: From when to when the daemon was being killed.
        cut: Those that broke off without having been in flight at a kill.
    """

    counts: collections.Counter = field(default_factory=collections.Counter)
    kills: list = field(default_factory=list)
    cut: list = field(default_factory=list)
    slowest_s: float = 0.0

    def broke(self, began, kind, error):
        """A request of *kind* ended with *error*: at a kill that is to be expected."""
        refused = isinstance(getattr(error, "os_error", error), ConnectionRefusedError)
        if refused:
            self.counts["refused"] += 1
        now = time.monotonic()
        at_a_kill = any(start <= now and began <= over for start, over in self.kills)
        self.counts[f"{kind} cut by a kill" if at_a_kill else f"{kind} broken"] += 1
        if not at_a_kill:
            self.cut.append((kind, repr(error)))


async def ask(session, port, tally, *, kept):
    began = time.monotonic()
    body = {"messages": [{"role": "user", "content": PROMPT}], "temperature": 0, "max_tokens": 2}
    headers = {} if kept else {"Connection": "close"}
    try:
        url = f"http://127.0.0.1:{port}/v1/chat/completions"
        async with session.post(url, json=body, headers=headers) as response:
            document = await response.json()
        assert response.status == 200, document
        assert document["choices"][0]["message"]["content"], document
    except (aiohttp.ClientError, OSError) as error:
        tally.broke(began, "request", error)
    else:
        tally.counts["answered"] += 1
        tally.slowest_s = max(tally.slowest_s, time.monotonic() - began)


async def stream(session, port, tally):
    """A story; it must be whole, or visibly broken."""
    began, text, done = time.monotonic(), "", False
    body = {
        "messages": [{"role": "user", "content": STORY["prompt"]}], "temperature": 0,
        "stream": True,
    }  # fmt: skip
    try:
        url = f"http://127.0.0.1:{port}/v1/chat/completions"
        async with session.post(url, json=body) as response:
            async for line in response.content:
                if line.startswith(b"data: [DONE]"):
                    done = True
                elif line.startswith(b"data: "):
                    event = json.loads(line[6:])
                    assert "error" not in event, event
                    text += event["choices"][0]["delta"].get("content") or ""
        assert done, f"a clean end without [DONE], after {text!r}"
        assert text == STORY["answer"]
    except (aiohttp.ClientError, OSError) as error:
        tally.broke(began, "stream", error)
    else:
        tally.counts["streamed"] += 1


async def capacity(port):
    """Requests per second, of four clients that have nothing else to do."""
    tally, began = Tally(), time.monotonic()

    async def client(session):
        while time.monotonic() < began + TRIAL_S:
            await ask(session, port, tally, kept=False)

    async with aiohttp.ClientSession() as session:
        await asyncio.gather(*(client(session) for _ in range(4)))
    assert not tally.cut
    return tally.counts["answered"] / (time.monotonic() - began)


async def load(ports, tally, per_second, until):
    """Open loop: requests begin on time, whatever became of those before."""
    no_limit = aiohttp.TCPConnector(limit=0)
    async with (
        aiohttp.ClientSession(connector=no_limit, timeout=aiohttp.ClientTimeout(60)) as session,
        asyncio.TaskGroup() as tasks,
    ):
        began, count, streams = time.monotonic(), 0, 0
        while (now := time.monotonic()) < until:
            while count < (now - began) * per_second:
                tasks.create_task(ask(session, ports[8083], tally, kept=count % 4 == 0))
                count += 1
            while streams < (now - began) * STREAMS_PER_SECOND:
                tasks.create_task(stream(session, ports[8084], tally))
                streams += 1
            await asyncio.sleep(0.004)


class Machine:
    """llmd in a directory of its own, installed there so that it can be upgraded."""

    def __init__(self, directory, demo_models):
        self.package = directory / "installed" / "llmd"
        shutil.copytree(ROOT / "llmd", self.package, ignore=shutil.ignore_patterns("*.pyc"))
        self.ports = dict(zip((8083, 8084), free_ports(2), strict=True))
        model = {"engine": "llama.cpp", "args": ["--threads", "1"]}
        config = {
            "budget": "1GiB", "gateway": None, "models_dirs": [str(demo_models)],
            "profiles": {
                "raw": {**model, "model": "tiny-q8_0.gguf", "port": self.ports[8083],
                        "parallel": 4, "context": 2048},
                "reason": {**model, "model": "tiny-f16.gguf", "port": self.ports[8084],
                           "parallel": 4, "context": 2048},
            },
        }  # fmt: skip
        self.llmd = Llmd(directory, yaml.safe_dump(config))
        self.llmd.socket.parent.mkdir(mode=0o700)
        installed = {"PYTHONPATH": str(self.package.parent), "PYTHONSAFEPATH": "1"}
        self.env = {**self.llmd.env, **installed}

    def upgrade(self, version):
        init = self.package / "__init__.py"
        init.write_text(init.read_text().replace(llmd.__version__, version))

    def restart(self):
        done = subprocess.run(
            [sys.executable, "-m", "llmd.cli.main", "--json", "restart"],
            env=self.env, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return json.loads(done.stdout)


async def events(machine, manager, tally, began):
    """Two restarts, two kills and an upgrade, spread over the time."""
    pause_s = DURATION_S / 6

    async def at(number):
        await asyncio.sleep(max(0.0, began + number * pause_s - time.monotonic()))

    async def kill():
        starts = len(manager.starts)
        start = time.monotonic()
        tally.kills.append((start, float("inf")))
        await asyncio.to_thread(manager.kill, signal.SIGKILL)
        for _ in range(3):
            await asyncio.sleep(0)  # until the clients here have heard of it, and use no kept one
        tally.kills[-1] = (start, time.monotonic())
        await asyncio.to_thread(manager.wait_until, lambda: len(manager.starts) > starts)
        await asyncio.to_thread(manager.wait_ready, 30)

    await at(1)
    await asyncio.to_thread(machine.restart)
    await at(2)
    await kill()
    await at(3)
    machine.upgrade("0.2.0")
    assert (await asyncio.to_thread(machine.restart))["version"] == "0.2.0"
    await at(4)
    await kill()
    await at(5)
    await asyncio.to_thread(machine.restart)


async def the_time(machine, manager, tally):
    """Returns how many requests began each second, beside the streams."""
    per_second = min(PER_SECOND, await capacity(machine.ports[8083]) / 3)
    began = time.monotonic()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(load(machine.ports, tally, per_second, began + DURATION_S))
        tasks.create_task(events(machine, manager, tally, began))
    return per_second


def test_nobody_is_refused_and_nothing_is_loaded_twice(short_dir, demo_models):
    machine, tally = Machine(short_dir, demo_models), Tally()
    argv = [sys.executable, "-m", "llmd", "serve"]
    with ServiceManager(
        short_dir, argv, machine.env, ports=machine.ports.values(), admin=machine.llmd.socket
    ) as manager:
        manager.start()
        for profile in ("raw", "reason"):
            assert machine.llmd.admin("POST", f"/v1/profiles/{profile}/load")[0] == 200
        hosts = {p["name"]: p["host_pid"] for p in machine.llmd.status()["profiles"]}
        per_second = asyncio.run(the_time(machine, manager, tally))
        status = machine.llmd.status()
        left = machine.llmd.host_pids()
        assert machine.llmd.ctl("stop").returncode == 0, manager.log()
        assert not alive(left)
    rate, slowest = f"{per_second:.0f} requests/s", f"slowest answer {tally.slowest_s:.2f} s"
    sys.stdout.write(f"{rate}: {dict(tally.counts)}, {slowest}\n")
    assert status["version"] == "0.2.0"
    assert {p["name"]: (p["host_pid"], p["loads"]) for p in status["profiles"]} == {
        name: (pid, 1) for name, pid in hosts.items()
    }
    assert not tally.counts["refused"]
    assert not tally.cut, tally.cut[:5]
    # How many is the machine's business; that they were many, and none lost, is ours.
    assert tally.counts["answered"] > 0.5 * per_second * DURATION_S
    assert [run.exit for run in manager.starts] == [-signal.SIGKILL, -signal.SIGKILL, 0]
