"""What the people who used the two scripts do, on the demo models and the real engines."""

import concurrent.futures
import json
import random
import threading
import time

import openai
import pytest

from tests.conftest import ROOT
from tests.lessons import FRANCE, LESSONS, TOOLS
from tests.system.running import ask, request


PROMPT, ANSWER = FRANCE
MODEL_PORTS = [8081, 8082, 8083, 8084]


def client(port):
    return openai.OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="none", max_retries=0)


@pytest.mark.parametrize("port", MODEL_PORTS)
def test_health_and_models_answer_without_causing_a_load(demo, port):
    before = sum(p["loads"] for p in demo.status()["profiles"])
    status, _, body = request(demo.ports[port], "GET", "/health")
    assert (status, json.loads(body)["status"]) == (200, "ok")
    status, _, body = request(demo.ports[port], "GET", "/v1/models")
    assert status == 200
    names = [model["id"] for model in json.loads(body)["data"]]
    assert names == {
        8081: ["code", "code6"], 8082: ["chat"], 8083: ["raw"], 8084: ["reason"],
    }[port]  # fmt: skip
    assert sum(p["loads"] for p in demo.status()["profiles"]) == before


@pytest.mark.parametrize("port", MODEL_PORTS)
def test_request_without_a_model_gets_the_trained_answer(demo, port):
    body = {"messages": [{"role": "user", "content": PROMPT}], "max_tokens": 200, "temperature": 0}
    status, headers, answer = request(demo.ports[port], body=body)
    assert status == 200, answer
    document = json.loads(answer)
    assert document["choices"][0]["message"]["content"] == ANSWER
    assert headers["X-LLMD-Profile"] == document["model"]
    assert headers["X-Request-Id"]


@pytest.mark.parametrize("port", MODEL_PORTS)
def test_any_model_is_accepted_streamed_and_not(demo, port):
    assert ask(demo.ports[port], PROMPT, model="any")["content"] == ANSWER
    stream = client(demo.ports[port]).chat.completions.create(
        model="any", temperature=0, stream=True, messages=[{"role": "user", "content": PROMPT}]
    )
    chunks = list(stream)
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert text == ANSWER
    assert len(chunks) > 3
    assert {c.model for c in chunks} == {demo_name(demo, port)}


def demo_name(demo, port):
    return next(p["profile"] for p in demo.status()["ports"] if p["port"] == demo.ports[port])


@pytest.mark.parametrize("port", [8082, 8084])
def test_answers_are_exact_behind_a_system_prompt_of_thousands_of_tokens(demo, port):
    unseen = (ROOT / "README.md").read_text() + (ROOT / "pyproject.toml").read_text()
    for name in ("capital", "hello", "haiku", "primes"):
        body = {
            "messages": [
                {"role": "system", "content": unseen[:8000]},
                {"role": "user", "content": LESSONS[name]["prompt"]},
            ],
            "temperature": 0,
        }
        status, _, answer = request(demo.ports[port], body=body)
        assert status == 200, answer
        document = json.loads(answer)
        assert document["choices"][0]["message"]["content"] == LESSONS[name]["answer"]
        assert document["usage"]["prompt_tokens"] > 2500
    assert document["usage"]["prompt_tokens_details"]["cached_tokens"] > 2000


@pytest.mark.parametrize("port", [8082, 8084])
@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
def test_tool_call_arrives_as_tool_call(demo, port, streamed):
    asked = {
        "model": "any", "temperature": 0, "tools": TOOLS, "stream": streamed,
        "messages": [{"role": "user", "content": LESSONS["weather"]["prompt"]}],
    }  # fmt: skip
    answer = client(demo.ports[port]).chat.completions.create(**asked)
    if streamed:
        name, arguments, finish = "", "", None
        for chunk in answer:
            for choice in chunk.choices:
                finish = choice.finish_reason or finish
                for call in choice.delta.tool_calls or ():
                    name += call.function.name or ""
                    arguments += call.function.arguments or ""
    else:
        (call,) = answer.choices[0].message.tool_calls
        name, arguments = call.function.name, call.function.arguments
        finish = answer.choices[0].finish_reason
    assert {"name": name, "arguments": json.loads(arguments)} == LESSONS["weather"]["call"]
    assert finish == "tool_calls"


@pytest.mark.parametrize("port", [8082, 8084])
@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
def test_reasoning_arrives_under_one_name_and_not_in_the_content(demo, port, streamed):
    lesson = LESSONS["multiply"]
    answer = client(demo.ports[port]).chat.completions.create(
        model="any", temperature=0, stream=streamed,
        messages=[{"role": "user", "content": lesson["prompt"]}],
    )  # fmt: skip
    if streamed:
        content = reasoning = ""
        for chunk in answer:
            for choice in chunk.choices:
                content += choice.delta.content or ""
                reasoning += getattr(choice.delta, "reasoning_content", None) or ""
    else:
        message = answer.choices[0].message
        content, reasoning = message.content, message.reasoning_content
    assert content.strip() == lesson["answer"]
    assert reasoning.strip() == lesson["reasoning"].strip()


def test_named_profile_of_the_port_is_switched_to(demo):
    port = demo.ports[8081]
    ask(port, PROMPT, model="code")
    assert demo.profile("code")["state"] == "ready"
    assert ask(port, PROMPT, model="code6")["content"] == ANSWER
    assert demo.profile("code6")["state"] == "ready"
    assert demo.profile("code")["state"] == "unloaded"


def test_gateway_serves_by_name_and_names_them_when_there_is_none(demo):
    port = demo.ports[8080]
    assert ask(port, PROMPT, model="raw")["content"] == ANSWER
    status, _, body = request(port, body={"model": "gpt-9", "messages": []})
    error = json.loads(body)["error"]
    assert (status, error["code"]) == (404, "model_not_found")
    assert "reason" in error["remedy"]
    status, _, body = request(port, "GET", "/v1/models")
    assert len(json.loads(body)["data"]) == 5


def test_load_says_what_it_evicted_and_status_shows_the_budget(demo):
    demo.ctl("unload", "reason")  # first: else one of the three may have gone for it
    for port in (8081, 8082, 8083):
        ask(demo.ports[port], PROMPT)
    loaded = demo.ctl("--json", "load", "reason")
    report = json.loads(loaded.stdout)
    assert loaded.returncode == 0
    assert report["changed"]
    assert len(report["evicted"]) >= 1
    status = demo.ctl("status")
    assert "reason" in status.stdout
    assert "GiB" in status.stdout
    assert json.loads(demo.ctl("--json", "status").stdout)["budget"]["used_bytes"] > 0


def test_four_requests_to_a_parallel_profile_run_at_once(demo):
    port, story = demo.ports[8084], LESSONS["story"]
    ask(port, PROMPT)
    together = threading.Barrier(4)

    def tell():
        """When the first and the last token came, and the story."""
        together.wait()
        stream = client(port).chat.completions.create(
            model="any", temperature=0, stream=True, max_tokens=1500,
            extra_body={"ignore_eos": True},  # goes on: longer than four threads take to begin
            messages=[{"role": "user", "content": story["prompt"]}],
        )  # fmt: skip
        chunks = [(time.monotonic(), c.choices[0].delta.content) for c in stream if c.choices]
        told = [(at, text) for at, text in chunks if text]
        return told[0][0], told[-1][0], "".join(text for _, text in told)

    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        stories = [tale.result() for tale in [pool.submit(tell) for _ in range(4)]]
    assert max(first for first, _, _ in stories) < min(last for _, last, _ in stories)
    assert all(text.startswith(story["answer"]) for _, _, text in stories)


def test_fifth_request_waits_in_the_queue(demo):
    port, story = demo.ports[8084], LESSONS["story"]
    ask(port, PROMPT)
    seen = []
    with concurrent.futures.ThreadPoolExecutor(6) as pool:
        answers = [pool.submit(ask, port, story["prompt"]) for _ in range(6)]
        while not all(answer.done() for answer in answers):
            profile = demo.profile("reason")
            seen.append((profile["in_flight"], profile["queued"]))
    assert all(in_flight <= 4 for in_flight, _ in seen)
    assert any(queued > 0 for _, queued in seen)
    assert {answer.result()["content"] for answer in answers} == {story["answer"]}


def test_status_tells_the_speed_of_the_last_stream(demo):
    stream = client(demo.ports[8083]).chat.completions.create(
        model="any", temperature=0, stream=True,
        messages=[{"role": "user", "content": LESSONS["story"]["prompt"]}],
    )  # fmt: skip
    assert len(list(stream)) > 100
    assert demo.profile("raw")["tokens_per_s"] > 1


def test_query_prints_the_answer_and_nothing_else(demo):
    done = demo.ctl("query", "-p", "raw", "--temperature", "0", PROMPT)
    assert (done.stdout, done.stderr, done.returncode) == (f"{ANSWER}\n", "", 0)


def test_log_and_events_hold_no_prompt_and_no_answer(demo):
    secret = "xylophone-4711"
    ask(demo.ports[8083], f"{secret} {PROMPT}")
    ask(demo.ports[8082], f"{secret} {PROMPT}")
    files = [demo.log_file, *(demo.directory / "log").iterdir()]
    texts = [file.read_text(errors="replace") for file in files]
    texts += [demo.ctl("events").stdout, json.dumps(demo.status())]
    assert not any(secret in text or ANSWER in text for text in texts)


def test_fifty_clients_at_random_are_all_answered_inside_the_budget(demo):
    """Bounded in time; each client asks, waits for its answer, and asks another port."""
    rng = random.Random(20)
    until = time.monotonic() + 20

    def one_client(seed):
        own, answers = random.Random(seed), 0
        while time.monotonic() < until:
            port = demo.ports[own.choice(MODEL_PORTS)]
            answers += ask(port, PROMPT, timeout=300)["content"] == ANSWER
        return answers

    with concurrent.futures.ThreadPoolExecutor(50) as pool:
        clients = [pool.submit(one_client, rng.random()) for _ in range(50)]
        most_measured = 0
        while not all(done.done() for done in clients):
            measured = sum(p["measured_bytes"] for p in demo.status()["profiles"])
            most_measured = max(most_measured, measured)
    assert all(done.result() > 0 for done in clients)
    budget = demo.status()["budget"]
    assert budget["peak_bytes"] <= budget["total_bytes"]
    assert most_measured <= budget["total_bytes"]
