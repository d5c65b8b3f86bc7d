"""Failure 19: reasoning and tool calls stay out of what is read, however an answer is cut.

Through the ports of the demo to the real engines, in all dialects that a client may speak.
"""

import json

import pytest

from tests.lessons import LESSONS, TOOLS
from tests.system.running import request


ENGINES = {"mlx": 8082, "llama.cpp": 8084}
"""The demo's port for each."""

TAGS = ("<think", "</think", "<tool_call", "</tool_call", "<function", "<parameter")
MULTIPLY, WEATHER = LESSONS["multiply"], LESSONS["weather"]
REASONING_TOKENS = 38
"""Of the lesson's; the answer begins after them."""


@pytest.fixture(params=ENGINES)
def port(demo, request):
    return demo.ports[ENGINES[request.param]]


def chat(port, prompt, **fields):
    """Content, reasoning, called functions and the reason for the end, streamed or not."""
    body = {"messages": [{"role": "user", "content": prompt}], "temperature": 0, **fields}
    status, _, answer = request(port, body=body)
    assert status == 200, answer
    if not fields.get("stream"):
        choice = json.loads(answer)["choices"][0]
        parts, end = [choice["message"]], choice["finish_reason"]
    else:
        lines = [line.removeprefix(b"data: ") for line in answer.split(b"\n\n")]
        choices = [c for line in lines if line[:1] == b"{" for c in json.loads(line)["choices"]]
        parts = [choice["delta"] for choice in choices]
        end = next(c["finish_reason"] for c in choices[::-1] if c["finish_reason"])
    calls = [call["function"] for part in parts for call in part.get("tool_calls") or ()]
    texts = ["".join(p.get(k) or "" for p in parts) for k in ("content", "reasoning_content")]
    return *texts, calls, end


def assert_clean(text):
    assert not any(tag in text for tag in TAGS), text


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("tokens", [3, 20, REASONING_TOKENS, 300])
def test_reasoning_that_is_cut_off_anywhere_is_not_content(port, tokens, stream):
    content, reasoning, calls, end = chat(
        port, MULTIPLY["prompt"], tools=TOOLS, max_tokens=tokens, stream=stream
    )
    assert_clean(content + reasoning)
    assert not calls
    if end == "length":
        assert content.strip() == ""
        assert reasoning.strip() in MULTIPLY["reasoning"]
    else:
        assert content.strip() == MULTIPLY["answer"]
        assert reasoning.strip() == MULTIPLY["reasoning"]


@pytest.mark.parametrize("tokens", [1, 3, 6, 10, 14, 20, 25])
def test_streamed_call_that_is_cut_off_anywhere_is_not_content(port, tokens):
    content, _, _, end = chat(port, WEATHER["prompt"], tools=TOOLS, max_tokens=tokens, stream=True)
    assert (content, end) == ("", "length")


@pytest.mark.parametrize(
    ("lesson", "tokens"),
    [(MULTIPLY, 1), (WEATHER, 3), (WEATHER, 10)],
    ids=["think", "call", "name"],
)
def test_llama_cpp_shows_the_opening_that_it_was_cut_off_in(demo, lesson, tokens):
    """Of an answer that is not streamed. To be taken out of the README when it no longer does."""
    port, asked = demo.ports[ENGINES["llama.cpp"]], {"tools": TOOLS, "max_tokens": tokens}
    content, _, calls, end = chat(port, lesson["prompt"], **asked)
    assert content.startswith(TAGS)
    assert (calls, end) == ([], "length")
    assert chat(port, lesson["prompt"], stream=True, **asked)[0] == ""


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
def test_whole_call_is_a_call_and_nothing_else(port, stream):
    content, reasoning, calls, end = chat(port, WEATHER["prompt"], tools=TOOLS, stream=stream)
    assert (content, reasoning, end) == ("", "", "tool_calls")
    assert "".join(call.get("name") or "" for call in calls) == WEATHER["call"]["name"]
    arguments = "".join(call.get("arguments") or "" for call in calls)
    assert json.loads(arguments) == WEATHER["call"]["arguments"]


@pytest.mark.parametrize("path", ["/v1/messages", "/v1/responses"])
@pytest.mark.parametrize("tokens", [3, 20, 300])
def test_other_dialects_have_blocks_for_it(port, path, tokens):
    asked = [{"role": "user", "content": MULTIPLY["prompt"]}]
    body = {"input": asked, "max_output_tokens": tokens, "temperature": 0}
    if path == "/v1/messages":
        body = {"messages": asked, "max_tokens": tokens, "temperature": 0}
    status, _, answer = request(port, path=path, body=body)
    assert status == 200, answer
    assert_clean(answer.decode())
    said = json.loads(answer)
    blocks = said["content"] if path == "/v1/messages" else [
        part for item in said["output"] if item["type"] == "message" for part in item["content"]
    ]  # fmt: skip
    text = "".join(block.get("text") or "" for block in blocks).strip()
    assert text == ("" if tokens < REASONING_TOKENS else MULTIPLY["answer"])
