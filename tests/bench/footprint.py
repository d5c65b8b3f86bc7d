"""What llmd expects a model to hold, beside what its host was seen to hold at most.

    python -m tests.bench.footprint [WORD...]

runs the cases of `footprint_cases.py` whose names have every WORD in them (with `held-out` among
them, those that the estimate was made without), each through a port of a daemon of its own: loaded;
asked one short question; then every sequence filled to the end of its context, with other text in
each round, so that the prompt cache fills, too. What is learned of that is beside what the same use
takes after another load, where a case says `again`. Half an hour on one
core. Each model is made in a temporary directory and removed.

In MiB: expected before the first load; the high-water mark after full and after light use; what is
charged from then on, as learned; the mark of the same use after another load. "Off" is expected
against full, and "<" says that it is off by more than 10 % and 64 MiB, or 5 % too low.
"""

import concurrent.futures
import json
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

from llmd.runtime.memory import tree_peak_bytes
from tests.bench.footprint_cases import CASES, HELD_OUT, Case
from tests.bench.generated import generate
from tests.bench.report import save, say
from tests.system.running import Llmd, free_ports, request


MIB = 2**20
ANSWER_TOKENS = 12
MARGIN_TOKENS = 8
OVER, OVER_BYTES, UNDER = 0.10, 64 * MIB, 0.05


@dataclass(frozen=True)
class Result:
    """Of one case, in bytes: the estimate by cause, and the high-water marks.

    Attributes:
        learned_bytes: What is charged after that use.
        again_bytes: The mark of the same use after another load.
    """

    case: Case
    parts: dict[str, int]
    estimated_bytes: int
    loaded_bytes: int
    light_bytes: int
    full_bytes: int
    learned_bytes: int
    again_bytes: int = 0

    @property
    def over(self):
        """By how much of the mark the estimate lies above it."""
        return self.estimated_bytes / self.full_bytes - 1

    @property
    def within(self):
        over_bytes = self.estimated_bytes - self.full_bytes
        return self.over >= -UNDER and (self.over <= OVER or over_bytes <= OVER_BYTES)


def verdict(result):
    """What the JSON says of a result besides its figures."""
    learned = result.learned_bytes / result.again_bytes - 1 if result.again_bytes else None
    return {
        "name": str(result.case),
        "over": result.over,
        "within": result.within,
        "learned_over": learned,
    }


def digits(count, seed):
    """Text of exactly *count* tokens: every digit is one by itself."""
    return "".join(str((n * n * (seed + 3) + n // 7 + seed) % 10) for n in range(count))


def fill(daemon, port, case):
    """Every sequence to the end of its context, all at once, round by round."""

    def one(seed):
        prompt = digits(case.context - ANSWER_TOKENS - MARGIN_TOKENS, seed)
        return complete(port, prompt, ANSWER_TOKENS)

    with concurrent.futures.ThreadPoolExecutor(case.sequences) as threads:
        for turn in range(case.rounds):
            seeds = [turn * case.sequences + n for n in range(case.sequences)]
            for used in threads.map(one, seeds):
                assert used > case.context - 64, f"{used} tokens in use of {case.context}"
    (pid,) = {p["host_pid"] for p in daemon.status()["profiles"]}
    return tree_peak_bytes(pid)


def complete(port, prompt, max_tokens):
    """Ask; how many tokens the engine says that it processed."""
    body = {"prompt": prompt, "max_tokens": max_tokens, "temperature": 0, "ignore_eos": True}
    status, _, answer = request(port, path="/v1/completions", body=body, timeout=1800)
    assert status == 200, answer
    return json.loads(answer)["usage"]["prompt_tokens"]


def measure(case, directory, *, again):
    (port,) = free_ports(1)
    model = generate(case.engine, case.config, case.weights, directory)
    profile = {
        "engine": case.engine, "model": str(model), "port": port,
        "context": case.context, "parallel": case.sequences, "args": list(case.args),
    }  # fmt: skip
    if case.engine == "llama.cpp":
        profile["args"] += ["--threads", "1"]  # two that wait for each other on a busy machine
    config = {"budget": "8GiB", "gateway": None, "warm_spare": False, "profiles": {"it": profile}}
    daemon = Llmd(directory, config).start()
    try:
        fit = json.loads(daemon.ctl("--json", "fit", "it").stdout)
        assert daemon.admin("POST", "/v1/profiles/it/load", timeout=300)[0] == 200, daemon.log()
        pid = daemon.profile("it")["host_pid"]
        loaded = tree_peak_bytes(pid)
        complete(port, digits(16, 0), 4)
        light = tree_peak_bytes(pid)
        full = fill(daemon, port, case)
        daemon.admin("POST", "/v1/profiles/it/unload")
        learned = daemon.admin("GET", "/v1/profiles/it/plan")[1]["need_bytes"]
        second = 0
        if again:
            daemon.admin("POST", "/v1/profiles/it/load", timeout=300)
            second = fill(daemon, port, case)
        parts = fit["footprint"]
        return Result(case, parts, sum(parts.values()), loaded, light, full, learned, second)
    finally:
        daemon.stop()


def line(result):
    figures = (result.estimated_bytes, result.full_bytes, result.light_bytes, result.learned_bytes)
    mark = "" if result.within else " <"
    return (
        f"{str(result.case)[:58]:58}{''.join(f'{f / MIB:8.0f}' for f in figures)}"
        f"{result.again_bytes / MIB or 0:8.0f}{100 * result.over:+7.1f} %{mark}"
    )


def main():
    words = [word for word in sys.argv[1:] if word != "held-out"]
    cases = CASES if words == sys.argv[1:] else HELD_OUT
    chosen = [case for case in cases if all(word in f"{case.engine} {case}" for word in words)]
    heads = ("expected", "full", "light", "learned", "again", "off")
    say(f"{'MiB':58}{''.join(f'{head:>8}' for head in heads)}")
    results = []
    try:
        for case in chosen:
            with tempfile.TemporaryDirectory(prefix="llmd-", dir="/tmp") as directory:
                results.append(measure(case, Path(directory), again=case.again))
            say(line(results[-1]))
    finally:  # half an hour: what there is of it is kept
        save("footprint", [asdict(result) | verdict(result) for result in results])


if __name__ == "__main__":
    main()
