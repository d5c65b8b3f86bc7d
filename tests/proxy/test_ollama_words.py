"""Ollama's requests as chat completions, and streams of those as lines. No socket."""

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmd.errors import InvalidRequestError, ModelNotFoundError
from llmd.proxy.gate import ModelCard
from llmd.proxy.head import Head
from llmd.proxy.ollama import read
from llmd.proxy.ollama.lines import MAX_EVENT_BYTES, Lines
from llmd.proxy.request import Request
from tests.lessons import TOOLS


CARDS = [ModelCard("code", "ready", 4096, ("coder", "a:latest")), ModelCard("chat", "unloaded")]
HELLO = [{"role": "user", "content": "Hello"}]


def question(path="/api/chat", *, sent=None, **fields):
    """The question in a request to *path*."""
    head = Head(b"POST", path.encode())
    head.forward = [b"Content-Type: application/x-www-form-urlencoded", b"X-Mine: 1"]
    body = {"model": "code", **({} if path == "/api/generate" else {"messages": HELLO}), **fields}
    body = json.dumps(body).encode() if sent is None else sent
    return read(Request(head, len(body), body), CARDS)


def chat_of(path="/api/chat", **fields):
    return json.loads(question(path, **fields).request.body)


# --- requests -----------------------------------------------------------------------------------


def test_chat_is_a_streamed_completion_that_counts():
    assert chat_of() == {
        "model": "code",
        "messages": HELLO,
        "stream": True,
        "stream_options": {"include_usage": True},
    }


def test_request_for_the_engine_is_json_whatever_the_client_called_it():
    head = question().request.head
    assert (head.path, head.target) == ("/v1/chat/completions", b"/v1/chat/completions")
    assert head.forward == [b"X-Mine: 1", b"Content-Type: application/json"]


@pytest.mark.parametrize("name", ["code", "code:latest", "coder", "coder:latest", "a:latest", "a"])
def test_profile_is_found_by_name_or_alias_with_or_without_latest(name):
    if name == "a":
        with pytest.raises(ModelNotFoundError, match="not found"):
            question(model=name)
        return
    found = question(model=name)
    assert json.loads(found.request.body)["model"] == "code"
    assert found.model == name


def test_model_that_is_not_there_is_a_404_that_names_those_that_are():
    with pytest.raises(ModelNotFoundError) as caught:
        question(model="nobody")
    assert caught.value.status == 404
    assert "chat" in caught.value.remedy


def test_options_have_their_names_in_either_engine():
    options = {
        "temperature": 0, "top_k": 3, "seed": 7, "num_predict": 9, "stop": ["END"],
        "repeat_penalty": 1.1, "num_ctx": 99999, "num_gpu": 3, "mirostat": 1,
    }  # fmt: skip
    chat = chat_of(options=options)
    del chat["model"], chat["messages"], chat["stream"], chat["stream_options"]
    assert chat == {
        "temperature": 0, "top_k": 3, "seed": 7, "max_tokens": 9, "stop": ["END"],
        "repeat_penalty": 1.1, "repetition_penalty": 1.1,
    }  # fmt: skip
    assert "max_tokens" not in chat_of(options={"num_predict": -1})


def test_format_and_think_have_their_names():
    assert chat_of(format="json")["response_format"] == {"type": "json_object"}
    schema = {"type": "object"}
    assert chat_of(format=schema)["response_format"]["json_schema"]["schema"] == schema
    assert "response_format" not in chat_of(format="")
    assert chat_of(think=False)["chat_template_kwargs"] == {"enable_thinking": False}
    assert chat_of(think="low")["chat_template_kwargs"]["reasoning_effort"] == "low"


def test_results_of_tools_answer_the_calls_that_have_no_ids():
    calls = [{"function": {"name": name, "arguments": {"at": name}}} for name in ("look", "wait")]
    messages = [
        *HELLO,
        {"role": "assistant", "content": "", "thinking": "Hm.", "tool_calls": calls},
        {"role": "tool", "tool_name": "wait", "content": "2"},
        {"role": "tool", "content": "1"},
        {"role": "tool", "content": "3"},
    ]
    chat = chat_of(messages=messages, tools=TOOLS)
    _, said, *results = chat["messages"]
    assert said["reasoning_content"] == "Hm."
    assert [call["function"]["arguments"] for call in said["tool_calls"]] == [
        '{"at": "look"}', '{"at": "wait"}',
    ]  # fmt: skip
    look, wait = (call["id"] for call in said["tool_calls"])
    assert [result["tool_call_id"] for result in results] == [wait, look, "call_unknown"]
    assert chat["tools"] == TOOLS


def test_prompt_of_generate_is_a_conversation():
    chat = chat_of("/api/generate", prompt="Hello", system="Be kind.")
    assert chat["messages"] == [{"role": "system", "content": "Be kind."}, *HELLO]


def test_picture_is_a_data_url_of_its_kind():
    for data, kind in (("iVBORw0KGgo=", "png"), ("/9j/4AAQ", "jpeg"), ("R0lGODlh", "gif")):
        chat = chat_of(messages=[{**HELLO[0], "images": [data]}])
        text, picture = chat["messages"][0]["content"]
        assert text == {"type": "text", "text": "Hello"}
        assert picture["image_url"]["url"] == f"data:image/{kind};base64,{data}"


@pytest.mark.parametrize(
    "address",
    ["http://127.0.0.1/", "https://x/a.png", "file:///etc/passwd", "data:image/png;base64,AA", "~",
     "../a.png", "", 7, None, {"url": "http://x"}],
)  # fmt: skip
@pytest.mark.parametrize("path", ["/api/chat", "/api/generate"])
def test_nothing_but_base64_is_a_picture(path, address):
    fields = {"messages": [{**HELLO[0], "images": [address]}]}
    if path == "/api/generate":
        fields = {"prompt": "x", "images": [address]}
    with pytest.raises(InvalidRequestError, match="base64"):
        question(path, **fields)


@pytest.mark.parametrize(
    ("fields", "purpose"),
    [
        ({}, "load"),
        ({"keep_alive": "5m"}, "load"),
        ({"keep_alive": -1}, "load"),
        ({"keep_alive": False}, "load"),
        ({"keep_alive": 0}, "unload"),
        ({"keep_alive": "0s"}, "unload"),
        ({"keep_alive": "0"}, "unload"),
        ({"keep_alive": 0, "prompt": "x"}, ""),
    ],
)
def test_request_without_a_message_loads_or_says_that_it_unloads(fields, purpose):
    found = question("/api/generate", **fields)
    assert found.purpose == purpose
    if purpose:
        assert json.loads(found.request.body)["max_tokens"] == 1
    if "prompt" not in fields:
        assert question(messages=[], **fields).purpose == purpose


@pytest.mark.parametrize(
    ("path", "fields", "param"),
    [
        ("/api/chat", {"model": None}, "model"),
        ("/api/chat", {"model": 7}, "model"),
        ("/api/chat", {"messages": {}}, "messages"),
        ("/api/chat", {"messages": ["x"]}, "messages[0]"),
        ("/api/chat", {"messages": [{"role": "robot"}]}, "messages[0]"),
        ("/api/chat", {"messages": [{"role": "user", "content": 7}]}, "messages[0].content"),
        ("/api/chat", {"messages": [{"role": "user", "images": 7}]}, "messages[0].images"),
        (
            "/api/chat",
            {"messages": [{"role": "assistant", "tool_calls": [{"function": 7}]}]},
            "messages[0].tool_calls[0]",
        ),
        ("/api/chat", {"stream": "no"}, "stream"),
        ("/api/chat", {"options": 7}, "options"),
        ("/api/chat", {"options": {"temperature": "hot"}}, "options.temperature"),
        ("/api/chat", {"options": {"num_predict": "all"}}, "options.num_predict"),
        ("/api/chat", {"format": 7}, "format"),
        ("/api/chat", {"think": "a lot"}, "think"),
        ("/api/chat", {"tools": 7}, "tools"),
        ("/api/generate", {"prompt": 7}, "prompt"),
        ("/api/generate", {"prompt": "x", "raw": True}, "raw"),
        ("/api/generate", {"prompt": "x", "suffix": "y"}, "suffix"),
        ("/api/generate", {"prompt": "x", "template": "y"}, "template"),
        ("/api/generate", {"prompt": "x", "context": [1]}, "context"),
    ],
)
def test_what_is_wrong_is_refused_by_the_name_of_its_field(path, fields, param):
    with pytest.raises(InvalidRequestError) as caught:
        question(path, **fields)
    assert caught.value.param == param


@pytest.mark.parametrize("raw", [b"", b"{", b"[]", b"7", b"\xff", b"[" * 100_000])
def test_body_that_is_no_object_is_refused(raw):
    with pytest.raises(InvalidRequestError):
        question(sent=raw)


def test_half_an_emoji_is_no_reason_to_refuse():
    raw = b'{"model": "code", "messages": [{"role": "user", "content": "a\\ud83d"}]}'
    assert json.loads(question(sent=raw).request.body)["messages"][0]["content"] == "a?"


# --- answers ------------------------------------------------------------------------------------


class Times:
    """A clock that goes on by a second each time it is read."""

    def __init__(self):
        self.now_s = 0.0

    def __call__(self):
        self.now_s += 1
        return self.now_s


def event(**fields):
    return b"data: " + json.dumps(fields).encode() + b"\n\n"


def delta(finish=None, **fields):
    return event(choices=[{"index": 0, "delta": fields, "finish_reason": finish}])


STREAM = (
    b": waiting\n\n"
    + delta(role="assistant", content=None)
    + delta(reasoning_content="Hm.")
    + delta(content="It is ")
    + delta(content="so.")
    + delta(tool_calls=[{"index": 0, "id": "c", "function": {"name": "look", "arguments": '{"a'}}])
    + delta(tool_calls=[{"index": 0, "function": {"arguments": '": 1}'}}])
    + delta(finish="tool_calls")
    + event(choices=[], usage={"prompt_tokens": 30, "completion_tokens": 7})
    + b"data: [DONE]\n\n"
)


def lines_of(stream=STREAM, path="/api/chat", *, step=None, **fields):
    """The lines that *stream* becomes, when it comes in pieces of *step* bytes."""
    lines = Lines(question(path, **fields), Times())
    lines.begin()
    step = step or len(stream)
    out = b"".join(lines.feed(stream[at : at + step]) for at in range(0, len(stream), step))
    out += b"" if lines.failure else lines.end()
    return [json.loads(line) for line in out.splitlines()]


def whole_of(stream=STREAM, path="/api/chat", **fields):
    lines = Lines(question(path, stream=False, **fields), Times())
    lines.begin()
    assert lines.feed(stream) == b""
    return json.loads(lines.whole())


@pytest.mark.parametrize("step", [None, 1, 7, 64])
def test_stream_becomes_lines_however_it_is_cut(step):
    *said, last = lines_of(step=step)
    assert "".join(line["message"]["content"] for line in said) == "It is so."
    assert [line["message"].get("thinking") for line in said] == ["Hm.", None, None, None]
    assert said[-1]["message"]["tool_calls"] == [
        {"function": {"name": "look", "arguments": {"a": 1}}}
    ]
    assert {line["done"] for line in said} == {False}
    assert (last["done"], last["done_reason"], last["message"]["content"]) == (True, "stop", "")
    assert (last["prompt_eval_count"], last["eval_count"]) == (30, 7)
    assert last["total_duration"] >= last["eval_duration"] > 0
    assert last["total_duration"] == (
        last["load_duration"] + last["prompt_eval_duration"] + last["eval_duration"]
    )
    assert {line["model"] for line in said} == {"code"}


def test_one_document_says_the_same():
    whole = whole_of()
    message = whole["message"]
    assert (message["content"], message["thinking"]) == ("It is so.", "Hm.")
    assert message["tool_calls"][0]["function"]["name"] == "look"
    assert (whole["done"], whole["done_reason"], whole["eval_count"]) == (True, "stop", 7)


def test_generate_has_a_response_instead_of_a_message():
    *said, last = lines_of(path="/api/generate", prompt="x")
    assert "".join(line["response"] for line in said) == "It is so."
    assert last["response"] == ""
    assert whole_of(path="/api/generate", prompt="x")["response"] == "It is so."


def test_thinking_is_kept_from_who_does_not_want_it():
    assert not any("thinking" in line["message"] for line in lines_of(think=False))


def test_times_that_the_engine_measured_itself_are_believed():
    timed = event(choices=[], timings={"prompt_ms": 12.5, "predicted_ms": 250})
    last = lines_of(STREAM + timed)[-1]
    assert (last["prompt_eval_duration"], last["eval_duration"]) == (12_500_000, 250_000_000)


def test_answer_that_ran_out_of_tokens_says_so_and_has_no_half_call():
    cut = (
        delta(tool_calls=[{"index": 0, "function": {"name": "look", "arguments": '{"a'}}])
        + delta(finish="length")
        + b"data: [DONE]\n\n"
    )
    (last,) = lines_of(cut)
    assert last["done_reason"] == "length"


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (event(error={"message": "it broke", "code": 500}), "it broke"),
        (event(error="it broke"), "it broke"),
        (event(error=7), "the engine failed"),
        (b"data: {broken\n\n", "cannot be read"),
        (event(choices=[{"delta": {"content": 7}}]), "cannot be read"),
    ],
)
def test_stream_that_breaks_ends_with_an_error_and_nothing_after_it(broken, message):
    *said, last = lines_of(delta(content="It is ") + broken + delta(content="more"))
    assert [line["message"]["content"] for line in said] == ["It is "]
    assert list(last) == ["error"]
    assert message in last["error"]


def test_event_without_an_end_is_not_gathered_for_ever():
    endless = b"data: " + b"x" * (MAX_EVENT_BYTES + 1)
    (last,) = lines_of(endless, step=2**21)
    assert "more than" in last["error"]


def test_load_says_only_that_it_loaded():
    (last,) = lines_of(messages=[])
    assert (last["done"], last["done_reason"]) == (True, "load")
    assert last["message"] == {"role": "assistant", "content": ""}


# --- anything -----------------------------------------------------------------------------------

WORDS = sorted(
    {
        "role", "content", "user", "assistant", "tool", "messages", "images", "tool_calls",
        "function", "name", "arguments", "thinking", "options", "format", "json", "think", "tools",
        "temperature", "num_predict", "stream", "prompt", "system", "keep_alive", "0s",
    }
)  # fmt: skip
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.sampled_from(WORDS) | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(WORDS), inner, max_size=4)
    ),
    max_leaves=20,
)


@given(JSON, JSON, st.sampled_from(["/api/chat", "/api/generate"]))
def test_whatever_comes_is_a_question_or_a_refusal(body, message, path):
    if isinstance(body, dict):
        body.setdefault("messages", [message])
    with contextlib.suppress(InvalidRequestError, ModelNotFoundError):
        asked = question(path, **body) if isinstance(body, dict) else question(path, sent=b"7")
        assert json.loads(asked.request.body)["stream"] is True


@given(st.lists(JSON, max_size=4), st.integers(1, 40))
def test_whatever_an_engine_streams_is_lines(chunks, step):
    stream = b"".join(b"data: " + json.dumps(chunk).encode() + b"\n\n" for chunk in chunks)
    for line in lines_of(stream or b"\n", step=step):
        assert line.keys() >= {"model", "done"} or list(line) == ["error"]
