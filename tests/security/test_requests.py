"""What a request may choose: nothing but its own answer. Tried on real engines, through ports."""

import contextlib
import http.client
import itertools
import json
import select
import socket

import pytest

from tests.security.surface import (
    CHOOSERS,
    FIELDS,
    MODELS,
    OTHERS,
    OWN,
    PARTS,
    PLACES,
)
from tests.system.conftest import running
from tests.system.engine import engine_of, straight
from tests.system.running import free_ports, lay_out, request


ENGINES = ("mlx", "raw")
SECRET = "zqcanaryzq"
REFUSED_OR_IGNORED = {"invalid_request", "engine_error", 200}
CHAT = {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 2}


@pytest.fixture(scope="module")
def daemon(demo_models, tmp_path_factory):
    """Both engines, loaded; and what a request might be after: a file, and somebody to ask."""
    directory = tmp_path_factory.mktemp("private")
    (directory / "canary.gguf").write_text(SECRET)
    ports = dict(zip(ENGINES, free_ports(2), strict=True))
    config = lay_out(
        {
            "mlx": {"engine": "mlx", "model": "tiny-mlx", "port": ports["mlx"]},
            "raw": {
                "engine": "llama.cpp", "model": "tiny-q8_0.gguf", "port": ports["raw"],
                "args": ["--threads", "1"],
            },
        },
        budget="3GiB", models_dirs=[str(demo_models)], warm_spare=False,
    )  # fmt: skip
    with socket.create_server(("127.0.0.1", 0)) as trap, running(config) as started:
        started.ports, started.trap = ports, trap
        started.canary = str(directory / "canary.gguf")
        started.url = f"http://127.0.0.1:{trap.getsockname()[1]}"
        started.models = str(demo_models)
        for name in ENGINES:
            assert started.ctl("load", name).returncode == 0
        yield started


@pytest.fixture(autouse=True)
def _nothing_was_chosen(daemon):
    """Neither was the trap asked, nor another model loaded, nor did an engine end."""
    before = [(p["host_pid"], p["loads"], p["state"]) for p in daemon.status()["profiles"]]
    yield
    after = [(p["host_pid"], p["loads"], p["state"]) for p in daemon.status()["profiles"]]
    assert after == before
    assert select.select([daemon.trap], [], [], 0)[0] == []
    for file in (daemon.directory / "log").iterdir():
        assert SECRET not in file.read_text(errors="replace"), file


def filled(daemon, value, place=""):
    """*value* with its placeholders replaced."""
    text = json.dumps(value).replace("{place}", place)
    for name, what in (("{path}", daemon.canary), ("{url}", daemon.url)):
        text = text.replace(name, what)
    return json.loads(text)


def send(daemon, engine, method, path, body=None, headers=None):
    """The status of an answer, or its error's code; no answer tells of files."""
    status, _, answer = request(daemon.ports[engine], method, path, body, headers, timeout=30)
    assert SECRET.encode() not in answer
    assert daemon.models.encode() not in answer, answer
    return status if status < 400 else json.loads(answer)["error"]["code"]


@pytest.mark.parametrize("row", CHOOSERS, ids=lambda row: row.what)
@pytest.mark.parametrize("engine", ENGINES)
def test_no_field_chooses_a_file_a_model_or_an_address(daemon, engine, row):
    for place in PLACES:
        body = {**CHAT, row.what: filled(daemon, place)}
        answered = send(daemon, engine, "POST", "/v1/chat/completions", body)
        assert answered == getattr(row, engine), (place, row.why)


@pytest.mark.parametrize("engine", ENGINES)
def test_no_part_of_a_message_is_fetched(daemon, engine):
    for part, place in itertools.product(PARTS, PLACES):
        message = {"role": "user", "content": [filled(daemon, part, filled(daemon, place))]}
        for path, field in (
            ("/v1/chat/completions", "messages"),
            ("/v1/messages", "messages"),
            ("/v1/responses", "input"),
        ):
            body = {"max_tokens": 2, field: [message]}
            assert send(daemon, engine, "POST", path, body) in REFUSED_OR_IGNORED


@pytest.mark.parametrize("row", FIELDS, ids=lambda row: json.dumps(row.what)[:60])
@pytest.mark.parametrize("engine", ENGINES)
def test_field_has_no_effect_beyond_its_own_answer(daemon, engine, row):
    body = {**CHAT, **filled(daemon, row.what)}
    assert send(daemon, engine, "POST", "/v1/chat/completions", body) == getattr(row, engine)


@pytest.mark.parametrize(("method", "path"), OTHERS)
@pytest.mark.parametrize("engine", ENGINES)
def test_state_of_others_is_neither_shown_nor_changed(daemon, engine, method, path):
    target = path.replace("{path}", daemon.canary).replace("{url}", daemon.url)
    answered = send(daemon, engine, method, target, {} if method == "POST" else None)
    assert answered == ("invalid_request" if "/." in path else "not_found")


def test_request_that_names_a_conversation_ends_with_its_client_and_cannot_be_read(daemon):
    body = {**CHAT, "stream": True, "ignore_eos": True, "max_tokens": 20_000}
    headers = {"Content-Type": "application/json", "X-Conversation-Id": "mine"}
    with contextlib.closing(
        http.client.HTTPConnection("127.0.0.1", daemon.ports["raw"], timeout=30)
    ) as client:
        client.request("POST", "/v1/chat/completions", json.dumps(body), headers)
        assert b"data" in client.getresponse().read(40)
        lookup = {"conversation_ids": ["mine"]}
        assert straight(engine_of(daemon), lookup, "/v1/streams/lookup") == (200, b"[]")
    daemon.wait_for(lambda status: not any(p["in_flight"] for p in status["profiles"]))


@pytest.mark.parametrize(("method", "path"), MODELS)
def test_models_are_loaded_by_administrators(daemon, method, path):
    assert send(daemon, "raw", method, path, {"model": "mlx"}) == "method_not_allowed"


@pytest.mark.parametrize("row", OWN, ids=lambda row: json.dumps(row.what)[:60])
@pytest.mark.parametrize("engine", ENGINES)
def test_paths_of_an_engine_that_compute_an_answer_are_passed_on(daemon, engine, row):
    path, body = filled(daemon, row.what)
    assert send(daemon, engine, "POST", path, body) == getattr(row, engine), row.why
