"""llama-cpp-python's server behind a port. Its package compiles for six minutes: `make
test-llama-cpp-python`."""

import concurrent.futures
import json

import pytest

from tests.lessons import FRANCE, LESSONS
from tests.system.running import ask, free_ports, request


pytestmark = pytest.mark.llama_cpp_python

PROMPT, ANSWER = FRANCE


@pytest.fixture
def served(demo_models, start):
    (port,) = free_ports(1)
    daemon = start(
        {
            "budget": "2GiB",
            "gateway": None,
            "models_dirs": [str(demo_models)],
            "profiles": {
                "raw": {
                    "engine": "llama.cpp", "runner": "llama-cpp-python", "port": port,
                    "model": "tiny-f16.gguf", "context": 4096, "aliases": ["old"],
                }
            },
        }
    )  # fmt: skip
    daemon.port = port
    return daemon


def test_trained_answer_comes_whole_and_streamed(served):
    assert ask(served.port, PROMPT, max_tokens=100)["content"] == ANSWER
    body = {
        "messages": [{"role": "user", "content": PROMPT}], "stream": True, "temperature": 0,
        "max_tokens": 100,
    }  # fmt: skip
    status, headers, answer = request(served.port, body=body)
    assert (status, headers["X-LLMD-Profile"]) == (200, "raw")
    events = [e.removeprefix(b"data: ") for e in answer.replace(b"\r", b"").split(b"\n\n")]
    assert b"[DONE]" in events
    chunks = [json.loads(event) for event in events if event.startswith(b"{")]
    assert "".join(c["choices"][0]["delta"].get("content") or "" for c in chunks) == ANSWER
    assert {c["model"] for c in chunks} == {"raw"}


def test_second_request_waits_and_does_not_cut_the_first_off(served):
    story = LESSONS["story"]
    ask(served.port, PROMPT, max_tokens=100)
    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        told = [pool.submit(ask, served.port, story["prompt"], max_tokens=1000) for _ in range(3)]
        most = 0
        while not all(done.done() for done in told):
            most = max(most, served.profile("raw")["in_flight"])
    assert {done.result()["content"] for done in told} == {story["answer"]}
    assert most == 1


def test_its_port_lets_nobody_in_who_lacks_the_key(served):
    ask(served.port, PROMPT, max_tokens=100)
    ports = served.listening_ports_of_hosts()
    assert ports
    for port in ports:
        assert request(port, body={"messages": []})[0] == 401


def test_what_it_lacks_is_a_501(served):
    status, _, answer = request(served.port, path="/v1/rerank", body={"query": "a"})
    assert (status, json.loads(answer)["error"]["code"]) == (501, "unsupported")
    assert served.profile("raw")["loads"] == 0
