"""Machines to replay on: profiles of 2 to 70 GB with load times, and budgets of 24 to 128 GB."""

from dataclasses import dataclass
from random import Random

from llmd.core.facts import Residency


GB = 10**9
BUDGETS_GB = (24, 32, 48, 64, 96, 128)
SIZES_GB = {
    "embed": (2, 3),
    "helper": (2, 5),
    "small": (5, 9),
    "medium": (9, 20),
    "large": (18, 42),
    "huge": (40, 70),
}
FIRST_PORT = 8081


@dataclass(frozen=True)
class Model:
    """One profile. Its port is `FIRST_PORT` and its index.

    Attributes:
        load_s: What a load really takes.
        expected_s: What the engine's recipe expects before the first load.
    """

    bytes: int
    load_s: float
    expected_s: float


@dataclass(frozen=True)
class Machine:
    """A budget, and the profiles that share it."""

    budget_bytes: int
    models: tuple[Model, ...]

    def residencies(self) -> tuple[Residency, ...]:
        """The profiles as the scheduler knows them; none is ever unloaded for being idle.

        Each has a port of its own: on a shared one there is nothing to choose.
        """
        return tuple(
            Residency(
                name=f"p{index:02}", port=FIRST_PORT + index, footprint_bytes=model.bytes,
                parallel=2, idle_ttl_s=float("inf"), load_s=model.expected_s,
            )
            for index, model in enumerate(self.models)
        )  # fmt: skip


def a_model(rng: Random, kind: str) -> Model:
    """A model of *kind*: a start, and a read at 0.7 to 5 GB/s, as engines and disks differ."""
    size_gb = rng.uniform(*SIZES_GB[kind])
    read_gb_s = min(max(rng.lognormvariate(0.7, 0.5), 0.7), 5.0)
    start_s = rng.choice((0.4, 1.0, 3.0))
    return Model(int(size_gb * GB), start_s + size_gb / read_gb_s, 1.0 + size_gb / 2.0)


def a_machine(rng: Random, kinds: list[str]) -> Machine:
    """Models of *kinds*, and a budget in which each fits, and not all of them together."""
    while True:
        models = tuple(a_model(rng, kind) for kind in kinds)
        largest, together = max(m.bytes for m in models), sum(m.bytes for m in models)
        budgets = [b * GB for b in BUDGETS_GB if largest <= b * GB <= together / 1.4]
        if budgets:
            return Machine(rng.choice(budgets), models)
