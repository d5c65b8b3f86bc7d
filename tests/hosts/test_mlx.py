"""The MLX host's HTTP face, with the real mlx_lm and the demo model."""

import asyncio
import concurrent.futures
import json
import os
import stat

import psutil
import pytest

from tests.conftest import ROOT
from tests.hosts.talk import Connection, chat, connected
from tests.lessons import FRANCE, LESSONS, TOOLS


pytestmark = pytest.mark.asyncio(loop_scope="module")

CONTEXT = 1024
ENDS = json.loads((ROOT / "etc/demo/model/generation_config.json").read_text())["eos_token_id"]
ENDLESS = {"logit_bias": {str(token): -100 for token in ENDS}, "temperature": 0}
"""Without the tokens that end an answer, it goes on to the end of the context."""


@pytest.fixture
def connection(mlx_host):
    with connected(mlx_host.upstream) as opened:
        yield opened


def content(answer):
    return answer["choices"][0]["message"]["content"]


async def until(condition):
    """Wait for *condition*, an async callable, looking as often as the host can answer."""
    async with asyncio.timeout(20):
        while not await condition():
            pass


# --- HTTP ---------------------------------------------------------------------------------------


async def test_connection_carries_many_requests_each_with_its_length(connection):
    for path, method, body in [
        ("/health", "GET", None),
        ("/v1/chat/completions", "POST", chat(FRANCE[0])),
        ("/nowhere", "GET", None),
        ("/v1/chat/completions", "POST", {"messages": []}),
        ("/v1/models", "GET", None),
    ]:
        response = connection.ask(method, path, body)
        assert response.version == 11
        assert len(response.read()) == int(response.headers["Content-Length"])
        assert not response.will_close


async def test_stream_comes_in_chunks_and_the_connection_lives_on(connection):
    streamed = connection.stream(FRANCE[0])
    assert streamed.headers["Transfer-Encoding"] == "chunked"
    assert "Content-Length" not in streamed.headers
    assert connection.get("/health") == (200, {"status": "ok"})


async def test_body_may_come_in_chunks(connection):
    data = json.dumps(chat(FRANCE[0])).encode()
    connection.request("POST", "/v1/chat/completions", iter([data[:7], data[7:]]))
    assert content(json.loads(connection.getresponse().read())) == FRANCE[1]


async def test_body_with_broken_framing_is_refused_and_the_connection_closed(connection):
    headers = {"Transfer-Encoding": "chunked"}
    connection.request("POST", "/v1/chat/completions", b"zz\r\n", headers, encode_chunked=False)
    response = connection.getresponse()
    assert response.status == 400
    assert response.will_close


async def test_client_that_closes_after_each_request_is_served(connection):
    response = connection.ask(
        "POST", "/v1/completions", {"prompt": "a", "max_tokens": 1}, Connection="close"
    )
    assert response.status == 200
    assert json.loads(response.read())["object"] == "text_completion"


async def test_socket_is_private(mlx_host):
    assert stat.S_IMODE(os.stat(mlx_host.upstream.path).st_mode) == 0o600  # noqa: PTH116


async def test_models_are_the_one_profile(connection):
    status, answer = connection.get("/v1/models")
    assert status == 200
    assert [model["id"] for model in answer["data"]] == ["demo"]
    assert connection.get("/v1/models/demo")[1]["context_length"] == CONTEXT


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "code", "param"),
    [
        ("POST", "/v1/embeddings", {"input": "x"}, 501, "unsupported", None),
        ("POST", "/v1/rerank", {}, 501, "unsupported", None),
        ("POST", "/v1/responses", {}, 400, "invalid_request", "input"),
        ("POST", "/v1/messages", {}, 400, "invalid_request", "messages"),
        ("POST", "/v2/other", {}, 404, "not_found", None),
        ("GET", "/other", None, 404, "not_found", None),
        ("GET", "/v1/models/other", None, 404, "not_found", None),
        ("DELETE", "/v1/models", None, 501, "invalid_request", None),
        ("OPTIONS", "/v1/models", None, 405, "invalid_request", None),
        ("POST", "/v1/chat/completions", b"{broken", 400, "invalid_request", None),
        ("POST", "/v1/chat/completions", b"\xff\xfe", 400, "invalid_request", None),
        ("POST", "/v1/chat/completions", b"", 400, "invalid_request", None),
        ("POST", "/v1/chat/completions", [], 400, "invalid_request", None),
        ("POST", "/v1/chat/completions", {}, 400, "invalid_request", "messages"),
        ("POST", "/v1/completions", {}, 400, "invalid_request", "prompt"),
        *(
            ("POST", "/v1/chat/completions", chat("x", **{name: bad}), 400, "invalid_request", name)
            for name, bad in {
                "temperature": "hot",
                "top_p": 2,
                "max_tokens": 0,
                "stream": "yes",
                "top_logprobs": 99,
                "n": 3,
                "logit_bias": {"99999999": 1},
                "xtc_threshold": 0.9,
                "chat_template_kwargs": {"chat_template": "{{ 1 }}"},
            }.items()
        ),
    ],
)
async def test_error_is_openais_object_with_the_right_status(
    connection, method, path, body, status, code, param
):
    response = connection.ask(method, path, body)
    error = json.loads(response.read())["error"]
    assert (response.status, error["code"], error["param"]) == (status, code, param)
    assert error["message"]


# --- answers ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fields",
    [
        pytest.param({"model": "any"}, id="model any"),
        pytest.param({"model": "mlx-community/other"}, id="a repository"),
        pytest.param({"draft_model": "/etc"}, id="a draft model"),
        pytest.param({"adapters": "/etc"}, id="adapters"),
        pytest.param({"temperature": None, "stop": None, "max_tokens": None}, id="nulls"),
    ],
)
async def test_answer_is_the_models_and_names_the_profile(connection, fields):
    answer = connection.chat(**{"prompt": FRANCE[0], **fields})
    assert answer["model"] == "demo"
    assert content(answer) == FRANCE[1]
    assert answer["choices"][0]["finish_reason"] == "stop"


async def test_stream_says_the_same_ends_properly_and_counts_when_asked(connection):
    streamed = connection.stream(FRANCE[0], stream_options={"include_usage": True})
    assert streamed.text() == FRANCE[1]
    assert streamed.done
    assert {part["object"] for part in streamed.objects} == {"chat.completion.chunk"}
    assert {part["model"] for part in streamed.objects} == {"demo"}
    usage = streamed.objects[-1]["usage"]
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
    assert "usage" not in connection.stream(FRANCE[0]).objects[-1]


async def test_reasoning_has_the_one_name(connection):
    lesson = LESSONS["multiply"]
    message = connection.chat(lesson["prompt"])["choices"][0]["message"]
    assert message["reasoning_content"].strip() == lesson["reasoning"]
    assert message["content"].strip() == lesson["answer"]
    assert "reasoning" not in message
    streamed = connection.stream(lesson["prompt"])
    assert streamed.text("reasoning_content").strip() == lesson["reasoning"]


async def test_tool_calls_are_objects(connection):
    lesson = LESSONS["weather"]
    choice = connection.chat(lesson["prompt"], tools=TOOLS)["choices"][0]
    assert choice["finish_reason"] == "tool_calls"
    call = choice["message"]["tool_calls"][0]["function"]
    assert {**call, "arguments": json.loads(call["arguments"])} == lesson["call"]


async def test_long_prefill_of_a_stream_is_kept_alive_with_comments(connection):
    streamed = connection.stream("word " * 200, max_tokens=1)
    assert len(streamed.comments) > 3
    assert streamed.done


async def test_answer_without_a_limit_may_fill_the_context(connection):
    def tokens(words):
        return connection.chat("word " * words, max_tokens=1)["usage"]["prompt_tokens"]

    ten = tokens(20) - tokens(10)
    words = (CONTEXT - 40 - tokens(10)) * 10 // ten
    answer = connection.chat("word " * words, **ENDLESS)
    assert answer["usage"]["total_tokens"] == CONTEXT
    assert answer["choices"][0]["finish_reason"] == "length"


@pytest.mark.parametrize("stream", [False, True])
async def test_prompt_longer_than_the_context_is_refused_with_the_numbers(connection, stream):
    status, answer = connection.post("/v1/chat/completions", chat("word " * 1500, stream=stream))
    assert status == 400
    assert (answer["error"]["code"], answer["error"]["param"]) == (
        "context_length_exceeded",
        "messages",
    )
    assert str(CONTEXT) in answer["error"]["message"]


async def test_more_candidates_than_tokens_are_all_of_them(connection):
    # mlx_lm notices in the middle of a batch, and its generation thread dies of it.
    assert content(connection.chat(FRANCE[0], top_k=100_000, temperature=1, max_tokens=2))


async def test_requests_at_the_same_time_do_not_mix(mlx_host):
    lessons = [LESSONS["multiply"], LESSONS["capital"], LESSONS["parse_json"]]

    def ask(lesson):
        with connected(mlx_host.upstream) as own:
            return content(own.chat(lesson["prompt"])).strip()

    with concurrent.futures.ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(ask, lessons * 2))
    assert answers == [lesson["answer"] for lesson in lessons * 2]


async def test_seed_repeats_an_answer_also_beside_others(mlx_host):
    def ask(seed):
        fields = {"temperature": 50.0, "max_tokens": 12, **({"seed": seed} if seed else {})}
        with connected(mlx_host.upstream) as own:
            return content(own.chat("word", **fields))

    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        first, _, second, other = pool.map(ask, [7, None, 7, 8])
    assert first == second
    assert first != other


async def test_prompt_that_was_seen_to_its_last_token_is_answered(connection):
    # mlx_lm's own generation thread dies of this.
    body = {"prompt": "The capital of", "max_tokens": 4, "temperature": 0}
    first = connection.post("/v1/completions", body)[1]["choices"][0]["text"]
    status, again = connection.post("/v1/completions", {**body, "prompt": body["prompt"] + first})
    assert status == 200, again
    assert connection.post("/v1/completions", body)[1]["choices"][0]["text"] == first


async def test_earlier_prompt_is_remembered_until_it_is_trimmed(mlx_host, connection):
    prompt = "remember " * 50
    connection.chat(prompt, max_tokens=1)
    again = connection.chat(prompt, max_tokens=1)["usage"]
    assert again["prompt_tokens_details"]["cached_tokens"] > again["prompt_tokens"] - 5
    assert (await mlx_host.status())["memory"]["prompt_cache_bytes"] > 0
    assert await mlx_host.trim() > 0
    assert (await mlx_host.status())["memory"]["prompt_cache_bytes"] == 0
    fresh = connection.chat(prompt, max_tokens=1)["usage"]
    assert fresh["prompt_tokens_details"]["cached_tokens"] == 0


async def test_prompt_cache_stays_within_its_bytes(mlx_host, connection):
    for n in range(5):
        connection.chat(f"{n} " * 300, max_tokens=1)
        held = (await mlx_host.status())["memory"]["prompt_cache_bytes"]
        assert held <= 2**20


# --- clients that leave -------------------------------------------------------------------------


async def generated(mlx_host):
    return (await mlx_host.status())["generated_tokens"]


async def generates_for_nobody(mlx_host):
    """Whether tokens come that no request of ours accounts for."""
    before = await generated(mlx_host)
    with connected(mlx_host.upstream) as own:
        counted = own.chat(FRANCE[0])["usage"]["completion_tokens"]
    return await generated(mlx_host) - before != counted


@pytest.mark.parametrize(
    "fields",
    [
        pytest.param({"stream": True}, id="streamed"),
        pytest.param({"stream": False}, id="not streamed"),
        pytest.param({"stream": False, "seed": 1}, id="not streamed, outside of a batch"),
    ],
)
async def test_client_that_hangs_up_ends_the_work(mlx_host, fields):
    before = await generated(mlx_host)
    leaving = Connection(mlx_host.upstream)
    leaving.request("POST", "/v1/chat/completions", json.dumps(chat("x", **ENDLESS, **fields)))

    async def generating():
        return await generated(mlx_host) > before

    async def idle():
        return (await mlx_host.status())["in_flight"] == 0

    await until(generating)
    leaving.close()
    await until(idle)
    await generates_for_nobody(mlx_host)  # a step that had begun may still end
    assert not await generates_for_nobody(mlx_host)
    assert await generated(mlx_host) - before < CONTEXT - 100


async def test_clients_that_hang_up_in_the_queue_or_a_prefill_get_no_token(mlx_host):
    before = await generated(mlx_host)
    leaving = [Connection(mlx_host.upstream) for _ in range(3)]
    for n, each in enumerate(leaving):  # a seed takes each out of the batch, one after the other
        body = chat(f"{n} word " * 150, seed=n, **ENDLESS)
        each.request("POST", "/v1/chat/completions", json.dumps(body))

    async def arrived():
        return (await mlx_host.status())["in_flight"] == 3

    async def idle():
        return (await mlx_host.status())["in_flight"] == 0

    await until(arrived)
    for each in reversed(leaving):
        each.close()
    await until(idle)
    await generates_for_nobody(mlx_host)
    assert not await generates_for_nobody(mlx_host)
    assert await generated(mlx_host) - before < CONTEXT


# --- at rest ------------------------------------------------------------------------------------


def switches(pid):
    return sum(
        psutil.Process(thread.id).num_ctx_switches().voluntary
        for thread in psutil.Process(pid).threads()
    )


@pytest.mark.skipif(not psutil.LINUX, reason="counts threads by /proc")
async def test_idle_host_sleeps(mlx_host, connection):
    connection.chat(FRANCE[0])
    woken = []
    while len(woken) < 10 and (not woken or woken[-1] > 3):  # what ends an answer may take a moment
        before = switches(mlx_host.pid)
        await asyncio.sleep(1)  # a measurement, not a wait
        woken.append(switches(mlx_host.pid) - before)
    assert woken[-1] <= 3, f"{woken} in a second each; mlx_lm alone polls ten times"


async def test_arguments_of_the_process_tell_nothing_of_prompts(mlx_host):
    assert "--kind mlx" in " ".join(psutil.Process(mlx_host.pid).cmdline())
