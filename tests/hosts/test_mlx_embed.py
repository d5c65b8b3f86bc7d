"""Vectors from MLX weights, held against llama.cpp's of the same weights."""

import base64
import json
import shutil
import tempfile
from pathlib import Path

import numpy as np
import pytest
import pytest_asyncio

from llmd.hosts.engine import LoadError
from llmd.hosts.mlx_embed import pooling_of
from tests.hosts.conftest import Hosts, gguf, mlx
from tests.hosts.talk import chat, connected


pytestmark = pytest.mark.asyncio(loop_scope="module")

CONTEXT = 256
TEXTS = [
    "The capital of France",
    "What is the capital of France?",
    "def add(a, b): return a + b",
    "x " * 100,  # several steps of the prompt
]


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=["last", "mean"])
async def pair(demo_models, request):
    """The demo model on both engines, pooled in the same way."""
    flags = ["--embeddings", "--pooling", request.param]
    with tempfile.TemporaryDirectory(prefix="llmd-", dir="/tmp") as path:
        running = Hosts(Path(path))
        options = mlx(demo_models, context=CONTEXT, args=["--prefill-step-size", "64", *flags])
        mlx_host = await running.load("mlx", options=options)
        options = gguf(demo_models, args=["--threads", "1", *flags])
        llama_host = await running.load("llama", options=options)
        with connected(mlx_host.upstream) as one, connected(llama_host.upstream) as other:
            yield one, other
        await running.end()


def vectors(connection, body):
    status, answer = connection.post("/v1/embeddings", body)
    assert status == 200, answer
    return [np.array(row["embedding"]) for row in answer["data"]]


async def test_vectors_are_those_of_llama_cpp(pair):
    ours, theirs = (vectors(connection, {"input": TEXTS}) for connection in pair)
    for our, their in zip(ours, theirs, strict=True):
        assert np.linalg.norm(our) == pytest.approx(1, abs=1e-5)
        assert our @ their > 0.999


async def test_tokens_are_counted_and_text_comes_alone_or_in_a_list(pair):
    ours, theirs = (
        connection.post("/v1/embeddings", {"input": TEXTS[0]})[1]["usage"] for connection in pair
    )
    assert ours == theirs
    alone = vectors(pair[0], {"input": TEXTS[1]})[0]
    assert alone @ vectors(pair[0], {"input": TEXTS})[1] == pytest.approx(1, abs=1e-5)


async def test_other_forms_carry_the_same_numbers(pair):
    [whole] = vectors(pair[0], {"input": TEXTS[0]})
    [cut] = vectors(pair[0], {"input": TEXTS[0], "dimensions": 8})
    assert cut == pytest.approx(whole[:8] / np.linalg.norm(whole[:8]), abs=1e-5)
    body = {"input": TEXTS[0], "encoding_format": "base64"}
    raw = pair[0].post("/v1/embeddings", body)[1]["data"][0]["embedding"]
    assert np.frombuffer(base64.b64decode(raw), "<f4") == pytest.approx(whole, abs=1e-6)


@pytest.mark.parametrize(
    ("body", "status", "code", "param"),
    [
        ({"input": "x " * 400}, 400, "context_length_exceeded", "input"),
        ({"input": [10**9]}, 400, "invalid_request", "input"),
        ({"input": [-1]}, 400, "invalid_request", "input"),
        ({"input": "a", "dimensions": 10**6}, 400, "invalid_request", "dimensions"),
        ({"input": 5}, 400, "invalid_request", "input"),
    ],
)
async def test_what_cannot_be_served_names_the_field(pair, body, status, code, param):
    got, answer = pair[0].post("/v1/embeddings", body)
    error = answer["error"]
    assert (got, error["code"], error["param"]) == (status, code, param)
    assert vectors(pair[0], {"input": "still there"})


async def test_profile_that_gives_vectors_does_not_chat(pair):
    status, answer = pair[0].post("/v1/chat/completions", chat("Hello"))
    assert status == 501
    assert "this profile gives vectors" in answer["error"]["message"]


def told(directory, **modes):
    (directory / "1_Pooling").mkdir(exist_ok=True)
    (directory / "1_Pooling" / "config.json").write_text(json.dumps(modes))


async def test_pooling_is_read_from_beside_the_weights_and_the_profile_has_the_last_word(tmp_path):
    told(tmp_path, word_embedding_dimension=8, pooling_mode_lasttoken=True)
    assert pooling_of(tmp_path, None) == "last"
    assert pooling_of(tmp_path, "mean") == "mean"
    told(tmp_path, pooling_mode_cls_token=True)
    with pytest.raises(LoadError, match="asks for pooling_mode_cls_token; llmd has last and mean"):
        pooling_of(tmp_path, None)
    shutil.rmtree(tmp_path / "1_Pooling")
    (tmp_path / "1_Pooling").mkdir()
    (tmp_path / "1_Pooling" / "config.json").write_text("[")
    with pytest.raises(LoadError, match="cannot be read"):
        pooling_of(tmp_path, None)
