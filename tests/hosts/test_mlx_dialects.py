"""Messages and Responses of the MLX host, with the real mlx_lm and the demo model."""

import json

import anthropic
import pytest
from pydantic import TypeAdapter

from tests.hosts.talk import Connection, chat, connected
from tests.hosts.test_mlx import ENDLESS, until
from tests.lessons import LESSONS, TOOLS


pytestmark = pytest.mark.asyncio(loop_scope="module")

EVENTS = TypeAdapter(anthropic.types.RawMessageStreamEvent)
HELLO = {"messages": [{"role": "user", "content": "Hello"}]}
PATHS = {
    "/v1/messages": {"max_tokens": 900, **HELLO},
    "/v1/responses": {"input": "Hello"},
}


@pytest.fixture
def connection(mlx_host):
    with connected(mlx_host.upstream) as opened:
        yield opened


def events(connection, path, body):
    """The events of a stream, and its comments; the connection is usable afterwards."""
    response = connection.ask("POST", path, {**body, "stream": True})
    assert (response.status, response.headers["Content-Type"]) == (200, "text/event-stream")
    lines = response.read().decode().splitlines()
    assert connection.get("/health")[0] == 200
    found = [json.loads(line[6:]) for line in lines if line.startswith("data: ")]
    return found, [line for line in lines if line.startswith(":")]


async def test_long_prefill_is_kept_alive_with_comments_between_events(connection):
    body = {"max_tokens": 1, "messages": [{"role": "user", "content": "word " * 200}]}
    found, comments = events(connection, "/v1/messages", body)
    assert len(comments) > 3
    for each in found:
        EVENTS.validate_python(each)
    usage = found[0]["message"]["usage"]
    assert usage["input_tokens"] + usage["cache_read_input_tokens"] > 200


@pytest.mark.parametrize(
    "extra",
    [
        {},
        {"system": "Be kind."},
        {
            "tools": [
                {
                    "name": "get_weather",
                    "description": TOOLS[0]["function"]["description"],
                    "input_schema": TOOLS[0]["function"]["parameters"],
                }
            ]
        },
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "a b c " * 99}]}]},
    ],
    ids=["plain", "system", "tools", "long"],
)
async def test_tokens_are_counted_exactly(connection, extra):
    body = {**HELLO, **extra}
    status, counted = connection.post("/v1/messages/count_tokens", body)
    assert status == 200, counted
    usage = connection.post("/v1/messages", {**body, "max_tokens": 1})[1]["usage"]
    assert counted == {"input_tokens": usage["input_tokens"] + usage["cache_read_input_tokens"]}


async def test_tokens_of_a_prompt_that_does_not_fit_are_counted_and_not_served(connection):
    body = {"messages": [{"role": "user", "content": "word " * 3000}]}
    assert connection.post("/v1/messages/count_tokens", body)[1]["input_tokens"] > 3000
    for streamed in (False, True):
        status, answer = connection.post(
            "/v1/messages", {**body, "max_tokens": 9, "stream": streamed}
        )
        assert (status, answer["error"]["code"]) == (400, "context_length_exceeded")


@pytest.mark.parametrize(
    ("stop", "said"), [(["How"], "Hello! "), (["zzz", "can I"], "Hello! How "), ("lo", "Hel")]
)
@pytest.mark.parametrize("streamed", [False, True])
async def test_stop_word_ends_the_answer_however_it_is_cut_into_tokens(
    connection, stop, said, streamed
):
    # mlx_lm takes such a word out of the text and goes on behind it.
    if streamed:
        assert connection.stream("Hello", stop=stop).text() == said
    else:
        choice = connection.chat("Hello", stop=stop)["choices"][0]
        assert (choice["message"]["content"], choice["finish_reason"]) == (said, "stop")


async def test_message_says_which_stop_sequence_ended_it(connection):
    body = {**PATHS["/v1/messages"], "temperature": 0, "stop_sequences": ["zzz", "How"]}
    answer = connection.post("/v1/messages", body)[1]
    assert (answer["stop_reason"], answer["stop_sequence"]) == ("stop_sequence", "How")
    found, _ = events(connection, "/v1/messages", body)
    assert found[-2]["delta"] == {"stop_reason": "stop_sequence", "stop_sequence": "How"}


async def test_seeded_request_outside_of_a_batch_is_translated_as_well(connection):
    lesson = LESSONS["multiply"]
    body = {"input": lesson["prompt"], "temperature": 0, "seed": 1}
    found, _ = events(connection, "/v1/responses", body)
    items = found[-1]["response"]["output"]
    assert items[0]["content"][0]["text"].strip() == lesson["reasoning"]
    assert items[1]["content"][0]["text"] == lesson["answer"]


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    "wrong",
    [
        b"{broken",
        b"",
        [],
        {"temperature": "hot"},
        {"top_p": 2},
        {"chat_template_kwargs": {"chat_template": "{{ 1 }}"}},
        {"chat_template_kwargs": 7},
        {"stop": 7},
        {"tools": 7},
    ],
)
async def test_bad_request_is_a_400_and_the_connection_lives_on(connection, path, wrong):
    body = {**PATHS[path], **wrong} if isinstance(wrong, dict) else wrong
    status, answer = connection.post(path, body)
    assert (status, answer["error"]["type"]) == (400, "invalid_request_error")
    assert "Traceback" not in answer["error"]["message"]
    assert connection.get("/health")[0] == 200


async def test_nothing_of_the_request_chooses_the_model(connection):
    body = {**PATHS["/v1/messages"], "model": "/etc", "draft_model": "/etc", "adapters": "/etc"}
    assert connection.post("/v1/messages", body)[1]["model"] == "demo"


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("streamed", [False, True])
async def test_client_that_hangs_up_ends_the_work(mlx_host, path, streamed):
    async def generated():
        return (await mlx_host.status())["generated_tokens"]

    async def generating():
        return await generated() > before

    async def idle():
        return (await mlx_host.status())["in_flight"] == 0

    before = await generated()
    leaving = Connection(mlx_host.upstream)
    body = {**PATHS[path], **ENDLESS, "stream": streamed}
    leaving.request("POST", path, json.dumps(body))
    await until(generating)
    leaving.close()
    await until(idle)
    with connected(mlx_host.upstream) as own:  # a step that had begun may still end
        own.post("/v1/chat/completions", chat("Hello", max_tokens=1))
    assert await generated() - before < 800
