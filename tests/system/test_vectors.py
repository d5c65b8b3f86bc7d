"""Vectors through the ports of the whole program: the official client, both engines, one answer."""

import contextlib
import json

import numpy as np
import openai
import pytest

from tests.system.conftest import running
from tests.system.running import free_ports, request


TEXTS = ["The capital of France", "What is the capital of France?", "def add(a, b): return a + b"]


@pytest.fixture(scope="module")
def llmd(demo_models):
    """A daemon with the demo model on both engines, giving vectors."""
    gateway, *ports = free_ports(3)
    shared = {"context": 256, "args": ["--embeddings", "--pooling", "mean"]}
    config = {
        "budget": "4GiB",
        "models_dirs": [str(demo_models)],
        "gateway": {"port": gateway},
        "profiles": {
            "mlx": {"engine": "mlx", "model": "tiny-mlx", "port": ports[0], **shared},
            "gguf": {"engine": "llama.cpp", "model": "tiny-f16.gguf", "port": ports[1], **shared},
        },
    }
    with running(config) as daemon:
        daemon.gateway = gateway
        yield daemon


def test_both_engines_give_the_official_client_the_same_vectors(llmd):
    base = f"http://127.0.0.1:{llmd.gateway}/v1"
    with contextlib.closing(openai.OpenAI(base_url=base, api_key="none")) as client:
        ours, theirs = (
            client.embeddings.create(model=name, input=TEXTS) for name in ("mlx", "gguf")
        )
    assert ours.model == "mlx"
    assert ours.usage.prompt_tokens == theirs.usage.prompt_tokens
    for our, their in zip(ours.data, theirs.data, strict=True):
        assert np.dot(our.embedding, their.embedding) > 0.999


def test_cards_and_refusals_say_what_such_a_profile_is_for(llmd):
    cards = json.loads(request(llmd.gateway, "GET", "/v1/models")[2])["data"]
    assert [card["capabilities"] for card in cards] == [["embeddings"]] * 2
    body = {"model": "mlx", "messages": [{"role": "user", "content": "Hello"}]}
    status, _, answer = request(llmd.gateway, body=body)
    assert status == 501
    assert "gives vectors" in json.loads(answer)["error"]["message"]
