"""Looks at hosts with signs that are set: who is asked when, who is given up, and what is said."""

import asyncio
from math import inf
from types import SimpleNamespace

import pytest

from llmd.core.events import HostStalled
from llmd.core.facts import SPARE, Failure
from llmd.proxy.at_work import AtWork
from llmd.proxy.gate import Upstream
from llmd.runtime import watchdog as watching
from llmd.runtime.watchdog import ASK_BUSY_S, ASK_IDLE_S, Watchdog, tree_cpu_s


TIMEOUT_S = 60.0
ROUND_S = 2.0


class FakeProcess:
    """Its pulse is answered by `answer`; the questions count."""

    def __init__(self, number):
        self.pid = number
        self.state = "ready"
        self.exited = asyncio.get_running_loop().create_future()
        self.asked = 0
        self.waiting = []

    async def pulse(self):
        self.asked += 1
        self.waiting.append(asyncio.get_running_loop().create_future())
        return await self.waiting[-1]

    def failure(self, message):
        return Failure(message, log_tail=("its last words",))


class World:
    """Hosts, requests, processor time and a clock, and the watchdog over them."""

    def __init__(self):
        self.hosts, self.requests, self.ended = [], [], []
        self.cpu_s, self.answers = {}, {}
        self.now = 1000.0
        self.posted = []
        self.tasks = set()
        self.timeouts_s = {}
        self.watchdog = Watchdog(
            self.hosts, self, lambda upstream: self.answers.get(upstream.path, 0),
            post=self.post, spawn_task=self.spawn,
            cpu_s=lambda pid: self.cpu_s.get(pid, 0.0), now=lambda: self.now,
        )  # fmt: skip

    def at_work(self):
        return self.requests

    def end_at(self, upstream, error):
        self.ended.append((upstream, error))

    def post(self, event):
        (host,) = [host for host in self.hosts if host.number == event.host]
        ended = [upstream for upstream, _ in self.ended]
        assert host.upstream not in ended, "what is ended first could be granted this host again"
        host.stopping = event.failure.message
        self.posted.append(event)

    def spawn(self, work):
        task = asyncio.get_running_loop().create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    def host(self, name="code"):
        number = len(self.hosts) + 1
        settled = asyncio.Event()
        settled.set()
        host = SimpleNamespace(
            number=number, name=name, process=FakeProcess(number), settled=settled,
            upstream=Upstream(path=f"/u{number}"), stopping=None,
        )  # fmt: skip
        self.hosts.append(host)
        return host

    def request(self, host, *, heard_s=0.0, held_up=False):
        self.requests.append(AtWork(host.upstream, heard_s, held_up))

    async def round(self, told=None):
        """A look; questions that are owed are then answered with *told*, unless it is None."""
        self.now += ROUND_S
        self.watchdog.look(lambda name: self.timeouts_s.get(name, TIMEOUT_S))
        for _ in range(3):
            await asyncio.sleep(0)
        for host in self.hosts:
            while told is not None and host.process.waiting:
                host.process.waiting.pop().set_result(told)
        for _ in range(3):
            await asyncio.sleep(0)

    async def rounds(self, seconds, told=None):
        for _ in range(round(seconds / ROUND_S)):
            await self.round(told)

    async def until_given_up(self, told=None, most_s=10 * TIMEOUT_S):
        """Seconds until the first verdict; None if there is none."""
        began_s = self.now
        while not self.posted and self.now - began_s < most_s:
            await self.round(told)
        return self.now - began_s if self.posted else None


@pytest.fixture
async def world():
    world = World()
    yield world
    for task in tuple(world.tasks):
        task.cancel()


BUSY = {"progress": "7", "resting": False}
IDLE = {"progress": "7", "resting": True}


async def test_idle_host_is_asked_twice_a_minute_and_left_alone(world):
    host = world.host()
    await world.rounds(600, IDLE)
    assert host.process.asked == 600 / ASK_IDLE_S
    assert world.posted == []


async def test_busy_host_is_asked_more_often(world):
    host = world.host()
    world.request(host)
    for n in range(150):
        await world.round({"progress": str(n), "resting": False})
    assert host.process.asked == 300 / ASK_BUSY_S
    assert world.posted == []


async def test_idle_host_that_owes_an_answer_is_given_up_and_asked_once(world):
    host = world.host()
    after_s = await world.until_given_up()
    assert TIMEOUT_S <= after_s <= TIMEOUT_S + ASK_IDLE_S
    assert host.process.asked == 1
    (event,) = world.posted
    assert isinstance(event, HostStalled)
    assert (event.host, event.silent_s) == (host.number, TIMEOUT_S)
    assert event.failure.hangs
    assert "silent on its control socket for 60 s (`stall_timeout` is 60 s)" in (
        event.failure.message
    )


async def test_engine_that_counts_nothing_more_is_given_up_though_its_host_answers(world):
    host = world.host()
    world.request(host, heard_s=3.0)
    assert TIMEOUT_S <= await world.until_given_up(BUSY) <= TIMEOUT_S + 2 * ASK_BUSY_S


async def test_requests_are_ended_with_what_happened_the_log_and_what_to_do(world):
    host = world.host()
    world.request(host)
    await world.until_given_up(BUSY)
    ((upstream, error),) = world.ended
    assert upstream is host.upstream
    assert error.code == "engine_died"
    assert error.message == (
        "the engine of code is replaced: it stopped answering: no token and no work for 60 s "
        "(`stall_timeout` is 60 s); last log lines: its last words"
    )
    assert "raise `stall_timeout`" in error.remedy


async def test_engine_that_goes_on_for_a_client_that_is_gone_is_watched(world):
    """Of one that counts, its own word tells whether it works."""
    world.host()
    assert await world.until_given_up(BUSY) is not None


async def test_engine_that_counts_is_not_excused_by_what_its_host_sends_meanwhile(world):
    """An MLX host comments on a silent stream by itself."""
    host = world.host()
    for _ in range(100):
        world.requests = [AtWork(host.upstream, world.now, held_up=False)]
        await world.round(BUSY)
    assert world.posted


async def test_engine_that_forgot_its_request_and_rests_is_given_up(world):
    world.request(world.host())
    assert await world.until_given_up(IDLE) is not None


async def test_engine_that_rests_while_its_client_takes_the_answer_slowly_is_left_alone(world):
    host = world.host()
    for n in range(150):
        world.requests = [AtWork(host.upstream, float(n // 20), held_up=False)]
        await world.round(IDLE)
    assert world.posted == []


async def test_server_that_counts_nothing_lives_by_what_it_sends(world):
    host = world.host()
    for n in range(150):
        world.requests = [AtWork(host.upstream, float(n // 20), held_up=False)]
        await world.round({})
    assert world.posted == []
    assert TIMEOUT_S - 20 * ROUND_S <= await world.until_given_up({}) <= TIMEOUT_S


async def test_server_that_counts_nothing_lives_by_answers_that_no_look_sees_coming(world):
    """Many short ones: at each look the requests at work have heard nothing yet."""
    host = world.host()
    world.request(host)
    for n in range(150):
        world.answers[host.upstream.path] = n // 20
        await world.round({})
    assert world.posted == []


async def test_server_that_computes_before_its_answer_may_take_its_time(world):
    host = world.host()
    world.request(host)
    for _ in range(1000):
        world.cpu_s[host.number] = world.now
        await world.round({})
    assert world.posted == []


async def test_server_that_turns_in_circles_amid_its_answer_is_given_up(world):
    host = world.host()
    world.request(host, heard_s=3.0)
    for _ in range(200):
        world.cpu_s[host.number] = world.now
        await world.round({})
    assert "turned in circles" in world.posted[0].failure.message


async def test_server_that_hangs_is_given_up_though_its_clients_give_up_first(world):
    """Its processor time is looked at between two of them, too, or it would seem to have worked."""
    host = world.host()
    world.cpu_s[host.number] = 500.0
    for n in range(60):
        world.requests = [] if n % 4 == 3 else [AtWork(host.upstream, 0.0, held_up=False)]
        await world.round({})
    assert world.posted


async def test_server_that_its_client_holds_up_is_not_at_work(world):
    host = world.host()
    world.request(host, heard_s=3.0, held_up=True)
    assert await world.until_given_up({}) is None


async def test_never_is_never(world):
    host = world.host()
    world.request(host)
    world.timeouts_s["code"] = inf
    await world.rounds(1000)
    assert world.posted == []
    assert host.process.asked == 0


@pytest.mark.parametrize(
    "case", ["loads", "is being adopted", "is told to end", "is gone", "is remote"]
)
async def test_nothing_is_asked_of_a_host_that(world, case):
    host = world.host()
    process = host.process
    match case:
        case "loads":
            process.state = "loading"
        case "is being adopted":
            host.settled.clear()
        case "is told to end":
            host.stopping = "evicted"
        case "is gone":
            process.exited.set_result(None)
        case "is remote":
            host.process = None
    await world.rounds(1000)
    assert world.posted == []
    assert process.asked == 0


async def test_spare_that_hangs_is_given_up(world):
    spare = world.host(SPARE)
    spare.process.state, spare.upstream = "prepared", None
    await world.until_given_up()
    assert world.posted[0].host == spare.number
    assert world.ended == []


async def test_one_host_that_hangs_says_nothing_of_another(world):
    hung, other = world.host("a"), world.host("b")
    idle = world.host("c")
    for host in (hung, other):
        world.request(host)
    for n in range(60):
        await world.round()
        for host, resting in ((other, False), (idle, True)):
            while host.process.waiting:
                told = {"progress": "0" if resting else str(n), "resting": resting}
                host.process.waiting.pop().set_result(told)
    assert {event.host for event in world.posted} == {hung.number}


async def test_host_that_follows_one_that_hung_begins_anew(world):
    host = world.host()
    await world.rounds(TIMEOUT_S - ROUND_S)
    world.hosts.clear()
    await world.round()
    world.host().number = host.number + 1
    await world.rounds(TIMEOUT_S - ROUND_S)
    assert world.posted == []
    assert list(world.watchdog._watched) == [host.number + 1], "who is gone is forgotten"


async def test_machine_that_sleeps_is_no_hang(world):
    host = world.host()
    world.request(host)
    await world.rounds(20)
    world.now += 8 * 3600
    await world.rounds(20)
    assert world.posted == []


def test_processor_time_is_that_of_all_processes_and_of_none_that_is_gone(monkeypatch):
    monkeypatch.setattr(watching, "process_tree", lambda pid: {pid, 2**22 + 1})
    before_s = tree_cpu_s(watching.psutil.Process().pid)
    sum(range(2_000_000))
    assert tree_cpu_s(watching.psutil.Process().pid) > before_s > 0
