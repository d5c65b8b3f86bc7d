"""One trace through the real scheduler, on a simulated clock: how long users waited."""

import heapq
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from math import inf

from llmd.core import events as e
from llmd.core import facts
from llmd.core.planner import POLICIES, Policy
from llmd.core.scheduler import Scheduler
from tests.bench.eviction.machines import FIRST_PORT
from tests.bench.eviction.policies import Rival
from tests.bench.eviction.traces import Trace


STOP_S = 0.2
"""From a host's SIGTERM to its memory being free."""
UNDER_TEST = "rival"


@dataclass
class Outcome:
    """What came of one replay.

    Attributes:
        waited_s: From each request's arrival to its grant, over all requests.
        loads: Started.
        refused: Requests that got an error, `queue_timeout_s` being the usual one.
        waits_s: The same as *waited_s*, request by request.
    """

    loads: int = 0
    refused: int = 0
    waits_s: list[float] = field(default_factory=list)

    @property
    def waited_s(self) -> float:
        """Over all requests."""
        return sum(self.waits_s)


class Foresight:
    """When each model will be asked for next, if nobody waits from now on."""

    def __init__(self, trace: Trace) -> None:
        self._nominal: list[dict[int, list[float]]] = []
        self._late_s = [0.0] * len(trace.clients)
        self._clock_s = [0.0] * len(trace.clients)
        for client in trace.clients:
            times: dict[int, list[float]] = defaultdict(list)
            clock_s = 0.0
            for step in client:
                clock_s += step.think_s
                times[step.model].append(clock_s)
                clock_s += step.serve_s
            self._nominal.append(times)

    def asked(self, client: int, nominal_s: float, now: float) -> None:
        """*client* sent the request that was due at *nominal_s*."""
        self._clock_s[client], self._late_s[client] = nominal_s, now - nominal_s

    def next_use_s(self, model: int) -> float:
        """The moment; infinite when there is none."""
        found = inf
        for times, clock_s, late_s in zip(self._nominal, self._clock_s, self._late_s, strict=True):
            mine = times.get(model, [])
            index = bisect_right(mine, clock_s)
            if index < len(mine):
                found = min(found, mine[index] + late_s)
        return found


class Replay:
    """The daemon's part: carries out effects, in no time but for loads, stops and answers."""

    def __init__(self, trace: Trace, rival: Rival | None, eviction: str) -> None:
        self._trace = trace
        self._rival = rival
        self._scheduler = Scheduler()
        self._agenda: list[tuple[float, int, Callable[[], None]]] = []
        self._order = count()
        self._now = 0.0
        self._wake_s = inf
        self._foresight = Foresight(trace)
        self._position = [0] * len(trace.clients)
        self._nominal_s = [0.0] * len(trace.clients)
        self._asked: dict[int, tuple[int, float]] = {}
        """Client and moment, by ticket."""
        self._tickets = count(1)
        self._outcome = Outcome()
        rules = facts.Rules(budget_bytes=trace.machine.budget_bytes, eviction=eviction)  # type: ignore[arg-type]
        self._send(e.ConfigReplaced(rules, trace.machine.residencies()))

    def run(self) -> Outcome:
        """From the first request to the last answer."""
        if self._rival is not None:
            self._rival.begin(self._trace.machine, self._ahead_s)
        for client in range(len(self._trace.clients)):
            self._think(client)
        while self._agenda:
            self._now, _, happen = heapq.heappop(self._agenda)
            happen()
        assert not self._asked, "everybody was answered"
        return self._outcome

    def _ahead_s(self, model: int) -> float:
        return self._foresight.next_use_s(model) - self._now

    def _at(self, when_s: float, happen: Callable[[], None]) -> None:
        heapq.heappush(self._agenda, (when_s, next(self._order), happen))

    def _think(self, client: int) -> None:
        steps, position = self._trace.clients[client], self._position[client]
        if position < len(steps):
            self._at(self._now + steps[position].think_s, lambda: self._ask(client))

    def _ask(self, client: int) -> None:
        step, ticket = self._trace.clients[client][self._position[client]], next(self._tickets)
        self._foresight.asked(client, self._nominal_s[client] + step.think_s, self._now)
        self._nominal_s[client] += step.think_s + step.serve_s
        self._asked[ticket] = client, self._now
        self._send(e.RequestArrived(ticket, FIRST_PORT + step.model))

    def _answered(self, client: int) -> None:
        self._position[client] += 1
        self._think(client)

    def _finish(self, ticket: int, client: int) -> None:
        self._send(e.RequestFinished(ticket))
        self._answered(client)

    def _tick(self, when_s: float) -> None:
        if when_s == self._wake_s:
            self._wake_s = inf
            self._send(e.Ticked())

    def _send(self, event: e.Event) -> None:
        for effect in self._scheduler.handle(event, now=self._now):
            self._carry_out(effect)

    def _carry_out(self, effect: e.Effect) -> None:
        match effect:
            case e.StartHost(host=host, profile=profile):
                self._outcome.loads += 1
                load_s = self._trace.machine.models[int(profile[1:])].load_s
                self._at(self._now + load_s, lambda: self._send(e.HostReady(host)))
            case e.StopHost(host=host):
                self._at(self._now + STOP_S, lambda: self._send(e.HostExited(host)))
            case e.Grant(ticket=ticket, profile=profile):
                client, asked_s = self._asked.pop(ticket)
                self._outcome.waits_s.append(self._now - asked_s)
                model = int(profile[1:])
                if self._rival is not None:
                    self._rival.used(FIRST_PORT + model)
                serve_s = self._trace.clients[client][self._position[client]].serve_s
                self._at(self._now + serve_s, lambda: self._finish(ticket, client))
            case e.Refuse(ticket=ticket):
                client, asked_s = self._asked.pop(ticket)
                self._outcome.waits_s.append(self._now - asked_s)
                self._outcome.refused += 1
                self._answered(client)
            case e.WakeAt(when_s=when_s) if when_s < self._wake_s:
                self._wake_s = when_s
                self._at(when_s, lambda: self._tick(when_s))
            case _:
                pass


@contextmanager
def _in_charge(policy: Policy) -> Iterator[None]:
    """Let the scheduler know *policy* as `eviction: rival`."""
    policies: dict[str, Policy] = POLICIES  # type: ignore[assignment]
    policies[UNDER_TEST] = policy
    try:
        yield
    finally:
        del policies[UNDER_TEST]


def replay(trace: Trace, policy: str | Rival) -> Outcome:
    """*trace* under one of the scheduler's own policies, by name, or under a rival."""
    if isinstance(policy, str):
        return Replay(trace, None, policy).run()
    with _in_charge(policy):
        return Replay(trace, policy, UNDER_TEST).run()
