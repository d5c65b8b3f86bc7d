"""A long prompt asked again: while its model is resident, and after it was evicted and loaded.

The demo models, one sequence, digits for text: a token each. Each round takes a prompt that was not
seen before. "Asked first" is the full prefill, on a model that is warm; "loaded again" is asked
after another profile has taken the model's room and given it back, without the time of the load.
The tokens beside them are those that the engine says it did not have to process again.
"""

import json
import statistics
import tempfile
import time

from tests.bench.footprint import digits
from tests.bench.report import ROOT, save, say, table
from tests.system.running import Llmd, free_ports, request


TOKENS = 2000
ROUNDS = 3
MODELS = {"mlx": "tiny-mlx", "llama.cpp": "tiny-f16.gguf"}


def ask(port, prompt):
    """Seconds until the first token, and how many tokens of the prompt were kept from before."""
    body = {"prompt": prompt, "max_tokens": 1, "temperature": 0}
    began = time.perf_counter()
    status, _, answer = request(port, path="/v1/completions", body=body, timeout=600)
    taken_s = time.perf_counter() - began
    assert status == 200, answer
    return taken_s, json.loads(answer)["usage"]["prompt_tokens_details"]["cached_tokens"]


def load(daemon, profile):
    status, report = daemon.admin("POST", f"/v1/profiles/{profile}/load", timeout=120)
    assert status == 200, report


def measure(engine, directory):
    """Rows of one engine: seconds to the first token, and tokens that were kept."""
    port, elsewhere = free_ports(2)
    one = {"engine": engine, "model": MODELS[engine], "parallel": 1, "memory": "3GiB"}
    config = {
        "budget": "4GiB",  # room for one of the two
        "gateway": None,
        "models_dirs": [str(ROOT / "build" / "demo")],
        "profiles": {"asked": {**one, "port": port}, "other": {**one, "port": elsewhere}},
    }
    daemon = Llmd(directory, config).start()
    names = ("asked first", "asked again", "loaded again")
    found = {name: [] for name in names}
    try:
        for turn in range(ROUNDS):
            say(f"{engine}, {turn + 1} of {ROUNDS}", progress=True)
            prompt = digits(TOKENS, turn)
            load(daemon, "asked")
            ask(port, digits(16, turn + 5))
            found["asked first"].append(ask(port, prompt))
            found["asked again"].append(ask(port, prompt))
            load(daemon, "other")
            assert not daemon.profile("asked")["host_pid"], "it was to be evicted"
            load(daemon, "asked")
            ask(port, digits(16, turn + 5))
            found["loaded again"].append(ask(port, prompt))
    finally:
        daemon.stop()
    full_s = statistics.median(taken_s for taken_s, _ in found["asked first"])
    rows = {}
    for name in names:
        middle_s = statistics.median(taken_s for taken_s, _ in found[name])
        rows[f"{engine}, {name}"] = {
            "median, s": middle_s,
            "times faster": full_s / middle_s,
            "tokens kept": statistics.median(kept for _, kept in found[name]),
        }
    return rows


def main():
    rows = {}
    for engine in MODELS:
        with tempfile.TemporaryDirectory(prefix="llmd-", dir="/tmp") as directory:
            rows |= measure(engine, directory)
    table(rows, ["median, s", "times faster", "tokens kept"], head=f"a prompt of {TOKENS:,} tokens")
    save("prompt", rows)


if __name__ == "__main__":
    main()
