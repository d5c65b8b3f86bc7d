"""Loading into an MLX host: what works, and how it fails."""

import json
import os
import shutil

import pytest

from llmd.hosts.protocol import Launch
from llmd.platform.spawn import Exit
from llmd.runtime.host_process import HostFailedError
from tests.hosts.conftest import mlx
from tests.hosts.talk import connected
from tests.lessons import FRANCE


async def test_prepared_host_loads_whichever_profile_it_is_given(hosts, demo_models):
    host = await hosts.start("mlx")
    await host.prepare()
    assert (await host.status())["state"] == "prepared"
    heard = []
    options = mlx(demo_models, model=str(demo_models / "tiny-mlx-4bit"))
    await host.load(Launch("small", "mlx", options), "f1", heard.append)
    with connected(host.upstream) as connection:
        answer = connection.chat(FRANCE[0])
    assert answer["model"] == "small"
    assert answer["choices"][0]["message"]["content"] == FRANCE[1]
    memory = (await host.status())["memory"]
    assert memory["active_bytes"] >= memory["weights_bytes"] > 0
    assert await host.stop(grace_s=5) == Exit(code=0)


async def test_draft_model_gives_the_same_answers(hosts, demo_models):
    options = mlx(demo_models, draft_model=str(demo_models / "tiny-mlx-4bit"))
    host = await hosts.load("mlx", options=options)
    with connected(host.upstream) as connection:
        assert connection.chat(FRANCE[0])["choices"][0]["message"]["content"] == FRANCE[1]


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        pytest.param({"model": "/nowhere"}, "is not a directory", id="no directory"),
        pytest.param({"model": "/tmp"}, "no config.json", id="not a model"),
        pytest.param({"args": ["--host", "0.0.0.0"]}, "args: unrecognized", id="odd flag"),
        pytest.param({"args": ["--temp", "hot"]}, "args: argument --temp", id="bad value"),
        pytest.param({"args": ["--embeddings"]}, "add `--pooling, last`", id="no guess at pooling"),
    ],
)
async def test_launch_that_cannot_work_says_why_at_once(hosts, demo_models, changes, told):
    host = await hosts.start("mlx")
    with pytest.raises(HostFailedError, match=told):
        await host.load(Launch("demo", "mlx", mlx(demo_models, **changes)), "f1")
    assert host.state == "failed"


def without_weights(copy):
    (copy / "model.safetensors").unlink()


def with_half_the_weights(copy):
    data = (copy / "model.safetensors").read_bytes()
    (copy / "model.safetensors").write_bytes(data[: len(data) // 2])


def of_another_architecture(copy):
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps({**config, "model_type": "martian"}))


async def test_damaged_model_is_a_load_failure_with_mlx_lms_words(hosts, demo_models, short_dir):
    cases = [
        (without_weights, "no .safetensors files"),
        (with_half_the_weights, "mlx_lm cannot load copy"),
        (of_another_architecture, "martian"),
    ]
    for damage, told in cases:
        copy = shutil.copytree(demo_models / "tiny-mlx", short_dir / "copy")
        damage(copy)
        host = await hosts.start("mlx")
        with pytest.raises(HostFailedError) as caught:
            await host.load(Launch("demo", "mlx", mlx(demo_models, model=os.fspath(copy))), "f1")
        assert told in caught.value.failure.message, damage
        assert await host.stop(grace_s=5) == Exit(code=0)
        shutil.rmtree(copy)
