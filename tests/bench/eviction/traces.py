"""Families of traces: who asks for which model when. Nothing here knows a policy.

A client sends a request, waits for its answer, thinks, and sends the next: as people and agents do,
so a slow load delays what its client does next and nothing else.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random

from tests.bench.eviction.machines import Machine, a_machine


MINUTE = 60.0
HOUR = 3600.0


@dataclass(frozen=True)
class Step:
    """One request of a client: *think_s* after its last answer, answered in *serve_s*."""

    think_s: float
    model: int
    serve_s: float


@dataclass(frozen=True)
class Trace:
    """What happens on one machine."""

    family: str
    seed: int
    machine: Machine
    clients: tuple[tuple[Step, ...], ...]

    @property
    def requests(self) -> int:
        """How many there are."""
        return sum(len(client) for client in self.clients)


class Client:
    """Writes down the steps of one client."""

    def __init__(self, rng: Random) -> None:
        self.rng = rng
        self.steps: list[Step] = []
        self.clock_s = 0.0
        """How far it would be if it never waited."""
        self._pause_s = 0.0

    def asks(self, model: int, think_s: float, serve_s: float = 8.0) -> None:
        """One request: *think_s* and *serve_s* are means."""
        think_s = self._pause_s + self._about(think_s)
        serve_s = self._about(serve_s)
        self.steps.append(Step(think_s, model, serve_s))
        self.clock_s += think_s + serve_s - self._pause_s
        self._pause_s = 0.0

    def pauses(self, seconds: float) -> None:
        """Does nothing for so long."""
        self._pause_s += seconds
        self.clock_s += seconds

    def works(self, mix: dict[int, float], seconds: float, think_s: float, serve_s: float) -> None:
        """Asks for models in proportion to *mix* for so long."""
        until_s = self.clock_s + seconds
        while self.clock_s < until_s:
            (model,) = self.rng.choices(list(mix), list(mix.values()))
            self.asks(model, think_s, serve_s)

    def _about(self, seconds: float) -> float:
        """Mostly less than the mean, at times much more."""
        return seconds * self.rng.lognormvariate(-0.32, 0.8)


Clients = Sequence[Client]


def working_day(rng: Random) -> tuple[Machine, Clients]:
    """One person, two days: activities of ten minutes to an hour, each with its own models."""
    kinds = ["large", "helper", "embed", "medium", "large", "medium", "small"]
    code, helper, embed, chat, reason, other, vision = range(7)
    activities = [
        ({code: 6, helper: 3, embed: 1}, 5, 40.0),
        ({chat: 8, embed: 1, vision: 1}, 3, 60.0),
        ({reason: 6, chat: 2}, 2, 90.0),
        ({other: 5, code: 3, helper: 2}, 2, 40.0),
        ({vision: 6, chat: 2}, 1, 60.0),
    ]
    person = Client(rng)
    for _ in range(2):
        for half_day_s in (3.5 * HOUR, 4.5 * HOUR):
            until_s = person.clock_s + half_day_s
            while person.clock_s < until_s:
                ((mix, _, think_s),) = rng.choices(activities, [each[1] for each in activities])
                person.works(mix, rng.uniform(10, 60) * MINUTE, think_s, 15.0)
                person.pauses(rng.uniform(1, 10) * MINUTE)
            person.pauses(rng.uniform(40, 70) * MINUTE)
        person.pauses(14 * HOUR)
    return a_machine(rng, kinds), [person]


def agent_and_helper(rng: Random) -> tuple[Machine, Clients]:
    """An agent alternates with a small model for titles and summaries; now and then a third."""
    kinds = ["large", "helper", "medium", "medium", "small", "large"]
    agent = Client(rng)
    for _ in range(rng.randint(16, 22)):
        main = rng.choice((0, 0, 0, 5))
        for _ in range(rng.randint(5, 30)):
            agent.asks(main, 4.0, 20.0)
            if rng.random() < 0.6:
                agent.asks(1, 1.0, 2.0)
            if rng.random() < 0.06:
                agent.asks(rng.choice((2, 3, 4)), 5.0, 10.0)
        agent.pauses(rng.uniform(2, 25) * MINUTE)
    return a_machine(rng, kinds), [agent]


def nightly_batch(rng: Random) -> tuple[Machine, Clients]:
    """By day two or three models at leisure; by night one model after the other, and a judge."""
    kinds = ["medium", "large", "helper", "medium", "small", "large", "medium", "small"]
    person = Client(rng)
    daily = {0: 5, 1: 3, 2: 4}
    batch = rng.sample(range(3, 8), 4)
    judge = rng.choice((0, 2))
    for _ in range(3):
        for _ in range(6):
            person.works(daily, rng.uniform(15, 60) * MINUTE, 90.0, 15.0)
            person.pauses(rng.uniform(10, 60) * MINUTE)
        for model in batch:
            for _ in range(rng.randint(4, 8)):
                for _ in range(rng.randint(3, 8)):
                    person.asks(model, 1.0, 20.0)
                person.asks(judge, 1.0, 5.0)
        person.pauses(rng.uniform(4, 7) * HOUR)
    return a_machine(rng, kinds), [person]


def zipf(rng: Random) -> tuple[Machine, Clients]:
    """Each request for a model of its own, by a fixed popularity."""
    machine = a_machine(rng, _many(rng, rng.randint(8, 40)))
    popularity = _zipf(rng, len(machine.models))
    person = Client(rng)
    for _ in range(700):
        (model,) = rng.choices(list(popularity), list(popularity.values()))
        person.asks(model, 60.0)
    return machine, [person]


def scan(rng: Random) -> tuple[Machine, Clients]:
    """Regular work on a few models; every hour or two each model is tried once or twice."""
    machine = a_machine(rng, _many(rng, rng.randint(8, 20)))
    everything = list(range(len(machine.models)))
    usual = rng.sample(everything, rng.randint(3, 4))
    person = Client(rng)
    for _ in range(8):
        mix = dict(zip(usual, (5, 3, 2, 1), strict=False))
        person.works(mix, rng.uniform(40, 90) * MINUTE, 60.0, 10.0)
        for model in rng.sample(everything, len(everything)):
            for _ in range(rng.randint(1, 2)):
                person.asks(model, 5.0)
    return machine, [person]


def drift(rng: Random) -> tuple[Machine, Clients]:
    """Popularity as in `zipf`, but what is popular changes from half-hour to half-hour."""
    machine = a_machine(rng, _many(rng, rng.randint(8, 24)))
    popularity = _zipf(rng, len(machine.models))
    person = Client(rng)
    for _ in range(20):
        person.works(popularity, 30 * MINUTE, 45.0, 8.0)
        for _ in range(2):
            one, two = rng.sample(list(popularity), 2)
            popularity[one], popularity[two] = popularity[two], popularity[one]
    return machine, [person]


def two_projects(rng: Random) -> tuple[Machine, Clients]:
    """Two projects with models of their own and a shared one, in turns of 15 to 60 minutes."""
    kinds = ["embed", "large", "helper", "medium", "large", "small", "medium"]
    mixes = [{0: 2, 1: 5, 2: 3, 3: 1}, {0: 2, 4: 5, 5: 3, 6: 1}]
    person = Client(rng)
    for turn in range(24):
        person.works(mixes[turn % 2], rng.uniform(15, 60) * MINUTE, 45.0, 12.0)
        person.pauses(rng.uniform(0, 15) * MINUTE)
    return a_machine(rng, kinds), [person]


def burst(rng: Random) -> tuple[Machine, Clients]:
    """Four programs, each with its favourites; at times all of them ask within seconds."""
    machine = a_machine(rng, _many(rng, rng.randint(6, 14)))
    everything = range(len(machine.models))
    clients = [Client(rng) for _ in range(4)]
    for client in clients:
        one, two, three = rng.sample(everything, 3)
        while client.clock_s < 8 * HOUR:
            quiet_s = HOUR - client.clock_s % HOUR  # they meet at the full hour
            client.works({one: 4, two: 1}, rng.uniform(0.2, 0.7) * quiet_s, 120.0, 10.0)
            client.pauses(max(HOUR - client.clock_s % HOUR, 0.0))
            for model in rng.sample((one, two, three), 3):
                for _ in range(rng.randint(1, 3)):
                    client.asks(model, 3.0)
    return machine, clients


def clockwork(rng: Random) -> tuple[Machine, Clients]:
    """Programs that ask every 10 to 60 minutes, beside a person with two favourites."""
    machine = a_machine(rng, _many(rng, rng.randint(6, 12)))
    everything = range(len(machine.models))
    clients = []
    for _ in range(rng.randint(3, 5)):
        program, model = Client(rng), rng.choice(everything)
        every_s = rng.choice((10, 15, 30, 60)) * MINUTE
        while program.clock_s < 10 * HOUR:
            program.pauses(every_s * rng.uniform(0.9, 1.1))
            for _ in range(rng.randint(1, 4)):
                program.asks(model, 1.0, 5.0)
        clients.append(program)
    person = Client(rng)
    one, two, three = rng.sample(everything, 3)
    while person.clock_s < 10 * HOUR:
        person.works({one: 5, two: 3, three: 1}, rng.uniform(10, 40) * MINUTE, 60.0, 10.0)
        person.pauses(rng.uniform(2, 30) * MINUTE)
    return machine, [*clients, person]


Family = Callable[[Random], tuple[Machine, Clients]]

FAMILIES: dict[str, Family] = {
    each.__name__: each
    for each in (
        working_day, agent_and_helper, nightly_batch, zipf, scan, drift, two_projects, burst,
        clockwork,
    )
}  # fmt: skip


def a_trace(family: str, seed: int) -> Trace:
    """The trace of *family* with this *seed*; always the same one."""
    machine, clients = FAMILIES[family](Random(f"{family} {seed}"))
    return Trace(family, seed, machine, tuple(tuple(client.steps) for client in clients))


def _many(rng: Random, count: int) -> list[str]:
    weights = {"embed": 1, "helper": 3, "small": 4, "medium": 5, "large": 3, "huge": 1}
    return rng.choices(list(weights), list(weights.values()), k=count)


def _zipf(rng: Random, count: int) -> dict[int, float]:
    exponent = rng.uniform(0.7, 1.2)
    ranks = rng.sample(range(count), count)
    return {model: (rank + 1) ** -exponent for rank, model in enumerate(ranks)}
