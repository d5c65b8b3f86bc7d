"""Pictures, through a port to a real engine that has been given eyes."""

import base64
import json
import shutil

import pytest

from tests.conftest import ROOT
from tests.projector import PICTURE_TOKENS, png, write_projector
from tests.system.conftest import running
from tests.system.running import free_ports, request


QUESTION = "What is it?"
URL = "data:image/png;base64," + base64.b64encode(png()).decode()


@pytest.fixture(scope="module")
def llmd(demo_models, tmp_path_factory):
    """A daemon with the demo model twice: `eye` has a projector beside its weights."""
    models = tmp_path_factory.mktemp("models")
    shutil.copy(demo_models / "tiny-q8_0.gguf", models / "tiny.gguf")
    width = json.loads((ROOT / "etc" / "demo" / "model" / "config.json").read_text())["hidden_size"]
    write_projector(models / "mmproj-tiny.gguf", width)
    eye, blind, gateway = free_ports(3)
    weights = {"engine": "llama.cpp", "model": "tiny.gguf", "context": 1024, "parallel": 1}
    config = {
        "budget": "4GiB",
        "models_dirs": [str(models)],
        "gateway": {"port": gateway},
        "warm_spare": False,
        "profiles": {
            "eye": {**weights, "port": eye, "projector": "mmproj-tiny.gguf"},
            "blind": {**weights, "port": blind},
            "lost": {**weights, "port": blind, "projector": "mmproj-other.gguf"},
        },
    }
    with running(config) as daemon:
        daemon.eye, daemon.blind, daemon.gateway = eye, blind, gateway
        yield daemon


def chat(*parts):
    return {"messages": [{"role": "user", "content": list(parts)}], "max_tokens": 4}


TEXT = {"type": "text", "text": QUESTION}
PICTURE = {"type": "image_url", "image_url": {"url": URL}}


@pytest.mark.parametrize(
    ("path", "field", "plain", "seeing"),
    [
        pytest.param(
            "/v1/chat/completions", "prompt_tokens", chat(TEXT), chat(TEXT, PICTURE), id="chat"
        ),
        pytest.param(
            "/v1/messages",
            "input_tokens",
            chat(TEXT),
            chat(
                TEXT,
                {
                    "type": "image",
                    "source": {
                        "type": "base64",
                        "media_type": "image/png",
                        "data": URL.partition(",")[2],
                    },
                },
            ),
            id="messages",
        ),
    ],
)
def test_picture_becomes_part_of_the_prompt(llmd, path, field, plain, seeing):
    before, after = (
        json.loads(request(llmd.eye, path=path, body={"model": "eye", **body})[2])["usage"]
        for body in (plain, seeing)
    )
    used = [
        sum(usage.get(n, 0) for n in (field, "cache_read_input_tokens"))
        for usage in (before, after)
    ]
    assert used[1] - used[0] >= PICTURE_TOKENS


def test_query_shows_a_picture_to_a_model_that_sees(llmd, tmp_path):
    (tmp_path / "a.png").write_bytes(png())
    done = llmd.ctl("--json", "query", "-p", "eye", "--image", str(tmp_path / "a.png"), QUESTION)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["usage"]["prompt_tokens"] > PICTURE_TOKENS


def test_model_without_eyes_says_what_to_do(llmd, tmp_path):
    (tmp_path / "a.png").write_bytes(png())
    done = llmd.ctl("query", "-p", "blind", "--image", str(tmp_path / "a.png"), QUESTION)
    assert done.returncode == 1
    assert "blind did not take the picture" in done.stderr
    assert "`projector`" in done.stderr


def test_models_list_tells_who_sees(llmd):
    cards = json.loads(request(llmd.gateway, "GET", "/v1/models")[2])["data"]
    sees = {card["id"]: "vision" in card["capabilities"] for card in cards}
    assert sees["eye"]
    assert not sees["blind"]


def test_projector_that_is_not_there_names_the_one_that_is(llmd):
    done = llmd.ctl("load", "lost")
    assert done.returncode == 1
    assert "no projector 'mmproj-other.gguf'" in done.stderr
    assert "write `projector: mmproj-tiny.gguf`" in done.stderr
