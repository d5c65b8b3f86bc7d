"""What clients are told that a profile can do."""

from types import SimpleNamespace

import pytest
from msgspec.structs import replace

from llmd.config.models import LlamaProfile, MlxProfile, RemoteProfile
from llmd.core.facts import Residency
from llmd.runtime.cards import capabilities_of, card_of
from llmd.runtime.catalogue import Entry


ALL = ("tools", "reasoning")


def entry(kind, abilities=ALL, **fields):
    profile = kind(name="p", port=8081, **fields)
    shape = None
    if abilities is not None:
        shape = SimpleNamespace(
            abilities=abilities, format="gguf", architecture="qwen3", quantization="Q4_K_M",
            parameters=8_000_000_000, weights_bytes=5,
        )  # fmt: skip
    return Entry(profile, Residency("p", 8081, 0), shape=shape, context=4096)


def llama(*args, abilities=ALL):
    return entry(LlamaProfile, abilities, engine="llama.cpp", model="m", args=args)


@pytest.mark.parametrize(
    ("given", "capabilities"),
    [
        (llama(), ("chat", "completions", "tools", "reasoning")),
        (llama(abilities=()), ("chat", "completions")),
        (llama("--embeddings"), ("embeddings",)),
        (llama("--reranking"), ("rerank",)),
        (llama("--mmproj=/m.gguf"), ("chat", "completions", "tools", "reasoning", "vision")),
        (
            entry(MlxProfile, engine="mlx", model="m"),
            ("chat", "completions", "tools", "reasoning"),
        ),
        (
            entry(RemoteProfile, None, engine="remote", url="http://h/v1"),
            ("chat", "completions"),
        ),
    ],
)
def test_capabilities_are_those_that_are_known(given, capabilities):
    assert capabilities_of(given) == capabilities


def test_card_of_a_profile_that_is_not_loaded_tells_what_its_weights_say():
    card = card_of(llama(), None, since_s=7)
    assert (card.state, card.context, card.held_bytes) == ("unloaded", 4096, 0)
    assert (card.family, card.quantization, card.format) == ("qwen3", "Q4_K_M", "gguf")


def test_card_of_a_resident_tells_its_bytes_and_when_it_goes():
    view = SimpleNamespace(state="ready", charged_bytes=9, idle_ttl_s=60.0, idle_s=20.0, size=0)
    card = card_of(llama(), view, since_s=7)
    assert (card.state, card.held_bytes, card.idle_out_s) == ("ready", 9, 40.0)


def test_card_of_a_profile_that_is_started_smaller_tells_the_context_it_has():
    given = llama()
    given = replace(given, smaller=(replace(given, context=2048),))
    view = SimpleNamespace(state="ready", charged_bytes=9, idle_ttl_s=60.0, idle_s=20.0, size=1)
    assert card_of(given, view, since_s=7).context == 2048
