"""Caches of earlier prompts on the real engines: bounded, and used where a prompt begins alike."""

import json
import random

import pytest

from llmd.runtime.memory import tree_bytes, tree_peak_bytes
from tests.lessons import FRANCE
from tests.system.conftest import running
from tests.system.running import free_ports, lay_out, request


MIB = 2**20
CACHE_BYTES = 6 * MIB
PROMPT_TOKENS = 400
TOLERATED_BYTES = 6 * MIB
"""What the allocators of both keep in pieces; seen: up to 3 MiB."""


ENGINES = {"mlx": ("tiny-mlx", (), 4096), "llama.cpp": ("tiny-f16.gguf", ("--threads", "1"), 2048)}
"""A model for each, its flags, and bytes that it keeps of a token: 4 layers of 256 numbers."""


@pytest.fixture(scope="module")
def caching(demo_models):
    """A daemon whose profiles have small caches for earlier prompts."""
    profiles = {
        engine: {
            "engine": engine, "model": model, "port": port, "args": list(flags), "context": 2048,
            "parallel": 1, "prompt_cache": CACHE_BYTES,
        }
        for (engine, (model, flags, _)), port in zip(ENGINES.items(), free_ports(2), strict=True)
    }  # fmt: skip
    config = lay_out(profiles, models_dirs=[str(demo_models)], warm_spare=False)
    with running({**config, "budget": "1GiB"}) as daemon:
        daemon.ports = {engine: profile["port"] for engine, profile in profiles.items()}
        yield daemon


@pytest.fixture(params=ENGINES)
def engine(request):
    return request.param


def digits(seed, count=PROMPT_TOKENS):
    """Text like no other's, a token for each character."""
    return "".join(random.Random(seed).choices("0123456789", k=count))


def chat(daemon, engine, *, system="", question=FRANCE[0], max_tokens=1):
    """The answer's text, and its usage."""
    messages = [{"role": "system", "content": system}, {"role": "user", "content": question}]
    body = {"messages": messages, "temperature": 0, "max_tokens": max_tokens}
    status, _, answer = request(daemon.ports[engine], body=body)
    assert status == 200, answer
    told = json.loads(answer)
    return told["choices"][0]["message"].get("content"), told["usage"]


def test_many_long_prompts_do_not_make_a_host_larger_than_its_cache(caching, engine):
    """Failure 14."""

    def ask(seeds):
        """One after the other; what the host holds then."""
        for seed in seeds:
            _, usage = chat(caching, engine, question=digits(seed))
            assert usage["prompt_tokens"] > PROMPT_TOKENS
        return tree_bytes(caching.profile(engine)["host_pid"])

    kept_bytes = PROMPT_TOKENS * ENGINES[engine][2]
    filling = 2 + CACHE_BYTES // kept_bytes
    full_bytes = ask(range(filling))
    more = 3 * TOLERATED_BYTES // kept_bytes  # without bounds, three times what is tolerated
    assert ask(range(filling, filling + more)) < full_bytes + TOLERATED_BYTES
    peak_bytes = tree_peak_bytes(caching.profile(engine)["host_pid"])
    assert peak_bytes < 1.05 * caching.profile(engine)["estimated_bytes"]


def reused(daemon, engine, *, head, tail):
    """Tokens of a long system prompt and a question that were not processed again, and all."""
    system = f"{head}\n{digits('rules')}\n{tail}"
    answer, usage = chat(daemon, engine, system=system, max_tokens=20)
    assert answer == FRANCE[1]
    return usage["prompt_tokens_details"]["cached_tokens"], usage["prompt_tokens"]


def test_prompt_is_processed_from_where_it_differs(caching, engine):
    """Failure 19: no engine knows a text again that another one came before."""
    reused(caching, engine, head="Monday", tail="Be kind.")
    again, all_tokens = reused(caching, engine, head="Monday", tail="Be kind.")
    assert again == all_tokens - 1
    other_end, all_tokens = reused(caching, engine, head="Monday", tail="Be brief.")
    assert PROMPT_TOKENS < other_end < all_tokens - 10
    other_head, _ = reused(caching, engine, head="Tuesday", tail="Be kind.")
    assert other_head < 20


def test_two_heads_that_take_turns_are_both_remembered(caching, engine):
    """Failure 19: what was begun alike some prompts ago is in the cache, not in the sequence."""
    for head in ("Wednesday", "Thursday"):
        reused(caching, engine, head=head, tail="Be kind.")
    for head in ("Wednesday", "Thursday"):
        cached, all_tokens = reused(caching, engine, head=head, tail="Be kind.")
        assert cached == all_tokens - 1
