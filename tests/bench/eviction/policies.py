"""What others do, and what somebody who knows the future would do, as strategies to replay.

A rival is fresh for each replay. Keys of candidates are ports.
"""

from collections import Counter
from collections.abc import Callable, Sequence

from msgspec.structs import replace

from llmd.core.planner import Candidate, cheapest_set
from tests.bench.eviction.machines import FIRST_PORT, Machine, Model


class Rival:
    """Chooses victims one by one, the lowest score first, until enough is free."""

    def begin(self, machine: Machine, ahead_s: Callable[[int], float]) -> None:
        """Before the first request.

        *ahead_s* tells how far a model's next use is; for the clairvoyant alone.
        """
        self.machine = machine
        self.ahead_s = ahead_s

    def used(self, port: int) -> None:
        """A request was granted there."""

    def score(self, candidate: Candidate) -> tuple[float, ...]:
        """Smaller goes first."""
        raise NotImplementedError

    def model(self, port: int) -> Model:
        """What is behind *port*."""
        return self.machine.models[port - FIRST_PORT]

    def __call__(self, need_bytes: int, candidates: Sequence[Candidate]) -> tuple[int, ...] | None:
        """The planner's signature: keys to evict, or None when all do not suffice."""
        chosen: list[int] = []
        for candidate in sorted(candidates, key=self.score):
            if need_bytes <= 0:
                break
            chosen.append(candidate.key)
            need_bytes -= candidate.bytes
        return tuple(chosen) if need_bytes <= 0 else None


class LeastFrequentlyUsed(Rival):
    """By all requests so far."""

    def begin(self, machine: Machine, ahead_s: Callable[[int], float]) -> None:
        super().begin(machine, ahead_s)
        self.uses: Counter[int] = Counter()

    def used(self, port: int) -> None:
        self.uses[port] += 1

    def score(self, candidate: Candidate) -> tuple[float, ...]:
        return self.uses[candidate.key], candidate.last_used_s


class GreedyDualSize(Rival):
    """Cao and Irani 1997: seconds per byte, on top of what the last victim was worth."""

    def begin(self, machine: Machine, ahead_s: Callable[[int], float]) -> None:
        super().begin(machine, ahead_s)
        self.floor = 0.0
        self.worth: dict[int, float] = {}

    def weight(self, port: int) -> float:
        """Of one use."""
        return 1.0

    def used(self, port: int) -> None:
        model = self.model(port)
        self.worth[port] = self.floor + self.weight(port) * model.load_s / model.bytes

    def score(self, candidate: Candidate) -> tuple[float, ...]:
        return (self.worth.get(candidate.key, 0.0),)

    def __call__(self, need_bytes: int, candidates: Sequence[Candidate]) -> tuple[int, ...] | None:
        chosen = super().__call__(need_bytes, candidates)
        if chosen:
            self.floor = max(self.floor, *(self.worth.get(key, 0.0) for key in chosen))
        return chosen


class GreedyDualSizeFrequency(GreedyDualSize):
    """Cherkasova 1998: the same times the number of uses."""

    def begin(self, machine: Machine, ahead_s: Callable[[int], float]) -> None:
        super().begin(machine, ahead_s)
        self.uses: Counter[int] = Counter()

    def used(self, port: int) -> None:
        self.uses[port] += 1
        super().used(port)

    def weight(self, port: int) -> float:
        return float(self.uses[port])


class ShortestKeepAlive(Rival):
    """Ollama: the shortest `keep_alive`, whoever used it when; then by name.

    Clients leave the default of five minutes, but for every fourth model.
    """

    def score(self, candidate: Candidate) -> tuple[float, ...]:
        index = candidate.key - FIRST_PORT
        return (1800.0 if index % 4 == 3 else 300.0), index


class StaticGroups(Rival):
    """llama-swap, as people set it up: small models stay, large ones take turns.

    Of the models in order of size, those stay that together leave room for the largest.
    """

    def begin(self, machine: Machine, ahead_s: Callable[[int], float]) -> None:
        super().begin(machine, ahead_s)
        free_bytes = machine.budget_bytes - max(m.bytes for m in machine.models)
        self.staying: set[int] = set()
        for index, model in sorted(enumerate(machine.models), key=lambda each: each[1].bytes):
            if model.bytes > free_bytes:
                break
            self.staying.add(FIRST_PORT + index)
            free_bytes -= model.bytes

    def score(self, candidate: Candidate) -> tuple[float, ...]:
        return candidate.key in self.staying, candidate.last_used_s

    def __call__(self, need_bytes: int, candidates: Sequence[Candidate]) -> tuple[int, ...] | None:
        taking_turns = [c for c in candidates if c.key not in self.staying]
        if sum(c.bytes for c in taking_turns) >= need_bytes:
            return tuple(c.key for c in taking_turns)
        return super().__call__(need_bytes, candidates)


class Clairvoyant(Rival):
    """The planner's own rule, with the true moment of the next use for a rate."""

    def __call__(self, need_bytes: int, candidates: Sequence[Candidate]) -> tuple[int, ...] | None:
        known = []
        for candidate in candidates:
            port = candidate.key
            ahead_s = max(self.ahead_s(port - FIRST_PORT), 1e-3)
            known.append(replace(candidate, cost_s=self.model(port).load_s / ahead_s))
        return cheapest_set(need_bytes, known)
