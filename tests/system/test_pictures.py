"""Pictures, through a port to a real engine that has been given eyes."""

import base64
import contextlib
import gzip
import http.client
import json
import shutil
import socket

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


def at(url):
    return {"type": "image_url", "image_url": {"url": url}}


@pytest.mark.parametrize(
    ("path", "body"),
    [
        pytest.param("/v1/chat/completions", chat(TEXT, at("http://{}/x")), id="chat"),
        pytest.param("/chat/completions", chat(TEXT, at("http://{}/x")), id="another path"),
        pytest.param("/v1/chat/completions", chat(at("HTTP://{}/x")), id="capitals"),
        pytest.param("/v1/chat/completions", chat(at("file:///etc/passwd")), id="a file"),
        pytest.param("/v1/chat/completions", chat(at("//{}/x")), id="no scheme"),
        pytest.param(
            "/v1/messages",
            chat({"type": "image", "source": {"type": "url", "url": "http://{}/x"}}),
            id="messages",
        ),
        pytest.param(
            "/v1/messages",
            chat(
                {
                    "type": "tool_result",
                    "tool_use_id": "t",
                    "content": [{"type": "image", "source": {"type": "url", "url": "http://{}/x"}}],
                }
            ),
            id="a tool's result",
        ),
        pytest.param(
            "/v1/responses",
            {
                "input": [
                    {
                        "role": "user",
                        "content": [{"type": "input_image", "image_url": "http://{}/x"}],
                    }
                ]
            },
            id="responses",
        ),
        pytest.param(
            "/v1/chat/completions",
            chat({"type": "input_audio", "input_audio": {"url": "http://{}/x"}}),
            id="sound",
        ),
    ],
)
def test_no_picture_is_fetched_for_a_request(llmd, path, body):
    with socket.create_server(("127.0.0.1", 0)) as trap:
        trap.settimeout(0)
        place = f"127.0.0.1:{trap.getsockname()[1]}"
        text = json.dumps({"model": "eye", **body}).replace("{}", place)
        status, _, answer = request(llmd.eye, path=path, body=json.loads(text))
        assert status == 400
        assert "none is fetched" in json.loads(answer)["error"]["message"]
        with pytest.raises(BlockingIOError):
            trap.accept()


@pytest.mark.parametrize("kind", ["video_url", "input_video", "video"])
def test_film_is_refused_though_it_is_in_the_request(llmd, kind):
    film = {"url": "data:video/mp4;base64,AAAA", "data": "AAAA"}
    status, _, answer = request(llmd.eye, body=chat(TEXT, {"type": kind, kind: film}))
    assert (status, b"films are not taken" in answer) == (400, True)


@pytest.mark.parametrize("data", ["http://{}/x", "file:///etc/passwd"])
def test_bytes_of_a_picture_in_a_plain_completion_are_no_address(llmd, data):
    with socket.create_server(("127.0.0.1", 0)) as trap:
        trap.settimeout(0)
        place = f"127.0.0.1:{trap.getsockname()[1]}"
        prompt = {"prompt_string": "<__media__>", "multimodal_data": [data.replace("{}", place)]}
        status, _, answer = request(llmd.eye, path="/completion", body={"prompt": prompt})
        assert status in (400, 500)
        assert b"root:" not in answer
        with pytest.raises(BlockingIOError):
            trap.accept()


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/chat/completions", "/apply-template"])
@pytest.mark.parametrize("disguise", ["deep", "huge", "gzip"])
def test_body_that_hides_an_address_from_the_reader_is_refused(llmd, path, disguise):
    assert llmd.ctl("load", "eye").returncode == 0
    text = json.dumps(chat(TEXT, at("http://127.0.0.1:9/x"))).encode()
    more = {"deep": b"[" * 3000 + b"]" * 3000, "huge": b"9" * 5000}
    headers = {"Content-Type": "application/json"}
    if disguise == "gzip":
        text, headers["Content-Encoding"] = gzip.compress(text), "gzip"
    else:
        text = b'{"more": ' + more[disguise] + b", " + text[1:]
    with contextlib.closing(
        http.client.HTTPConnection("127.0.0.1", llmd.eye, timeout=30)
    ) as client:
        client.request("POST", path, text, headers)
        response = client.getresponse()
        assert response.status == 400
        assert json.loads(response.read())["error"]["code"] == "invalid_request"


def test_form_passes_to_the_engine(llmd):
    assert llmd.ctl("load", "eye").returncode == 0
    form = b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\nhttp://b/\r\n--x--\r\n'
    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    with contextlib.closing(
        http.client.HTTPConnection("127.0.0.1", llmd.eye, timeout=30)
    ) as client:
        client.request("POST", "/v1/audio/transcriptions", form, headers)
        assert b"does not support audio" in client.getresponse().read()


def test_tool_may_be_called_with_an_address(llmd):
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": '{"url": 1}'}}
    body = {
        "model": "eye",
        "messages": [
            {"role": "user", "content": "See http://example.com/x"},
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "c", "content": "http://example.com"},
        ],
        "max_tokens": 4,
    }
    assert request(llmd.eye, body=body)[0] == 200
