"""What `llmd-ctl bench` has measured, and how models compare. Plain data and functions."""

import re
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal, NamedTuple

from llmd.cli.tally import Tally


_VARIANT: Final = re.compile(
    r"[-_.](mlx|gguf|hf|\d+-?bit|bf16|fp?16|fp?32|i?q\d\w*|mxfp4|nvfp4|dwq|ud|\d{5}-of-\d{5})$"
)


@dataclass(frozen=True, slots=True)
class Sample:
    """One answer, measured.

    Attributes:
        wait_s: From the question to the first token.
        total_s: From the question to the end.
        tokens: Generated.
        prompt_tokens: Of the prompt; 0 when the engine does not tell.
        prefill_per_s: Tokens of the prompt read per second.
        decode_per_s: Tokens generated per second, after the first.
        source: How tokens are known.
    """

    wait_s: float
    total_s: float
    tokens: int
    prompt_tokens: int
    prefill_per_s: float | None
    decode_per_s: float | None
    source: Literal["timings", "usage", "chunks"]

    @classmethod
    def of(cls, tally: Tally) -> "Sample":
        """What *tally*, of an answer with at least one token, adds up to."""
        wait_s = tally.wait_s or 0.0
        fresh = tally.prompt_tokens - tally.cached_tokens
        prefill = fresh / wait_s if fresh > 0 and wait_s > 0 else None
        if tally.source == "timings" and tally.timings.get("prompt_per_second"):
            prefill = float(tally.timings["prompt_per_second"])
        return cls(
            wait_s=wait_s,
            total_s=tally.total_s,
            tokens=tally.tokens,
            prompt_tokens=tally.prompt_tokens,
            prefill_per_s=prefill,
            decode_per_s=tally.decode_per_s,
            source=tally.source,
        )


class Spread(NamedTuple):
    """Several measurements of one thing."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Iterable[float | None]) -> "Spread | None":
        """The spread of those of *values* that are known."""
        known = [value for value in values if value is not None]
        return cls(statistics.median(known), min(known), max(known)) if known else None


@dataclass(slots=True)
class Result:
    """What is known of one profile so far; `bench` adds to it as it goes.

    Attributes:
        profile: Its name.
        engine: Its engine.
        model: Its weights, as the configuration names them; the profile's name if unknown.
        at_once: Requests that it serves at the same time.
        cold: The first answer after it was unloaded; its wait is the load and the first token.
        short: Answers of `SHORT_TOKENS`.
        long: Answers of `LONG_TOKENS`.
        prefill: One token each, after a long prompt.
        together_per_s: Tokens per second in all, with `at_once` requests.
        memory_bytes: What its host held at the end.
        error: Why there is no more.
    """

    profile: str
    engine: str
    model: str
    at_once: int = 1
    cold: Sample | None = None
    short: list[Sample] = field(default_factory=list)
    long: list[Sample] = field(default_factory=list)
    prefill: list[Sample] = field(default_factory=list)
    together_per_s: list[float] = field(default_factory=list)
    memory_bytes: int = 0
    error: str | None = None

    @property
    def base(self) -> str:
        """The model's name without publisher, format and quantization."""
        return base_name(self.model)

    @property
    def decode_per_s(self) -> Spread | None:
        """Of the long answers, else of the short ones."""
        return Spread.of(sample.decode_per_s for sample in self.long or self.short)

    @property
    def source(self) -> str | None:
        """How its tokens are known."""
        samples = [*self.long, *self.short, *([self.cold] if self.cold else [])]
        return samples[0].source if samples else None


class Metric(NamedTuple):
    """A line of the table. Two of them compare when they are of the same *amount*."""

    name: str
    unit: Literal["s", "/s", "bytes"]
    spread: Spread | None
    amount: float = 0
    """Tokens of a completion, requests at once."""


def metrics(result: Result) -> list[Metric]:
    """The lines of *result*; each result has the same."""
    cold = None if result.cold is None else result.cold.wait_s
    together = Spread.of(result.together_per_s)
    return [
        Metric("first token, cold", "s", Spread.of([cold])),
        Metric("first token, warm", "s", Spread.of(sample.wait_s for sample in result.short)),
        _completion("short completion", result.short),
        _completion("long completion", result.long),
        Metric("prefill", "/s", Spread.of(sample.prefill_per_s for sample in result.prefill)),
        Metric("decode, 1 at once", "/s", result.decode_per_s),
        Metric("decode, N at once", "/s", together, result.at_once),
        Metric("memory", "bytes", Spread.of([float(result.memory_bytes) or None])),
    ]


def _completion(name: str, samples: Sequence[Sample]) -> Metric:
    tokens = Spread.of(sample.tokens for sample in samples)
    spread = Spread.of(sample.total_s for sample in samples)
    return Metric(name, "s", spread, tokens.median if tokens else 0)


class Group(NamedTuple):
    """Results that belong beside each other; MLX before GGUF, which can then be compared."""

    results: tuple[Result, ...]
    compared: tuple[Result, Result] | None
    """The fastest MLX and the fastest GGUF profile of one model."""

    def speed_ups(self) -> list[float | None]:
        """For each metric, how many times better MLX is; None where that makes no sense."""
        if self.compared is None:
            return []
        ups: list[float | None] = []
        for mlx, gguf in zip(*(metrics(result) for result in self.compared), strict=True):
            unlike = mlx.unit == "bytes" or mlx.amount != gguf.amount
            if unlike or not mlx.spread or not gguf.spread:
                ups.append(None)
                continue
            better, worse = mlx.spread.median, gguf.spread.median
            if mlx.unit == "s":
                better, worse = worse, better
            ups.append(better / worse if worse > 0 else None)
        return ups


def base_name(model: str) -> str:
    """What two formats of one model have in common: `qwen3-32b` of `…/Qwen3-32B-Q4_K_M.gguf`."""
    name = model.rstrip("/").rpartition("/")[2].lower()
    while (shorter := _VARIANT.sub("", name)) != name and shorter:
        name = shorter
    return name


def groups(results: Sequence[Result]) -> list[Group]:
    """MLX and GGUF of one model side by side, then all the others together."""
    bases = dict.fromkeys(result.base for result in results)
    found: list[Group] = []
    others = list(results)
    for base in bases:
        mlx = [r for r in results if r.base == base and r.engine == "mlx"]
        gguf = [r for r in results if r.base == base and r.engine == "llama.cpp"]
        if mlx and gguf:
            found.append(Group((*mlx, *gguf), (_fastest(mlx), _fastest(gguf))))
            others = [result for result in others if result not in (*mlx, *gguf)]
    return [*found, Group(tuple(others), None)] if others else found


def _fastest(results: Sequence[Result]) -> Result:
    return max(results, key=lambda result: result.decode_per_s or Spread(0.0, 0.0, 0.0))
