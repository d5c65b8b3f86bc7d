"""What Claude Code and Codex send besides the words, by hand, on both engines.

Seen in requests of the versions that package.json names. The programs themselves are tested on
llama.cpp alone (see test_agents.py): MLX on a CPU takes a minute for their instructions.
"""

import json

import pytest

from tests.lessons import LESSONS, TOOLS
from tests.system.running import request


pytestmark = pytest.mark.clients

WEATHER = TOOLS[0]["function"]
ENGINES = [pytest.param("chat", id="mlx"), pytest.param("reason", id="llama.cpp")]


def events(port, path, body):
    """The events of a streamed answer, decoded."""
    status, headers, answer = request(port, path=path, body=body)
    assert status == 200, answer
    assert headers["Content-Type"].startswith("text/event-stream")
    lines = [line for line in answer.decode().splitlines() if line.startswith("data: {")]
    return [json.loads(line.removeprefix("data: ")) for line in lines]


def codex(items):
    """A turn of Codex: instructions as messages of the developer, tools of three kinds."""
    words = [{"type": "input_text", "text": "You are a coding agent."}]
    instructions = {"type": "message", "role": "developer", "content": words}
    function = {"type": "function", "strict": False, **WEATHER}
    group = {"type": "namespace", "name": "agents", "description": "Tools of agents.",
             "tools": [{**function, "name": "close_agent"}]}  # fmt: skip
    return {
        "model": "any",
        "input": [instructions, *items],
        "tools": [function, group, {"type": "web_search", "external_web_access": False}],
        "tool_choice": "auto",
        "parallel_tool_calls": True,
        "reasoning": {"summary": "auto"},
        "store": False,
        "stream": True,
        "include": ["reasoning.encrypted_content"],
        "prompt_cache_key": "01a20dbe-a327-74d0-93c3-710b47a63ac5",
        "client_metadata": {"thread_id": "01a20dbe-a327-74d0-93c3-710b47a63ac5"},
    }


@pytest.mark.parametrize("profile", ENGINES)
def test_two_turns_of_codex(cold, profile):
    port = cold(profile)
    asked = {"type": "message", "role": "user",
             "content": [{"type": "input_text", "text": LESSONS["weather"]["prompt"]}]}  # fmt: skip

    first = events(port, "/v1/responses", codex([asked]))
    assert first[-1]["type"] == "response.completed"
    calls = [i for i in first[-1]["response"]["output"] if i["type"] == "function_call"]
    assert [(c["name"], json.loads(c["arguments"])) for c in calls] == [
        ("get_weather", {"city": "Paris"})
    ]
    result = {"type": "function_call_output", "call_id": calls[0]["call_id"],
              "output": LESSONS["weather_result"]["tool"]}  # fmt: skip
    second = events(port, "/v1/responses", codex([asked, calls[0], result]))

    text = "".join(e["delta"] for e in second if e["type"] == "response.output_text.delta")
    assert text.strip() == LESSONS["weather_result"]["answer"]
    assert second[-1]["response"]["usage"]["output_tokens"] > 3


def claude(messages):
    """A turn of Claude Code: cached instructions, thinking left to the model, betas."""
    cached = {"type": "ephemeral"}
    tool = {"name": WEATHER["name"], "description": WEATHER["description"],
            "input_schema": WEATHER["parameters"]}  # fmt: skip
    placeholder = {"name": "DeferredToolPlaceholder", "description": "Never call this.",
                   "input_schema": {"type": "object", "properties": {}},
                   "defer_loading": True}  # fmt: skip
    return {
        "model": "any",
        "messages": messages,
        "system": [
            {"type": "text", "text": "x-anthropic-billing-header: cc_version=2.1"},
            {"type": "text", "text": "You are an agent.", "cache_control": cached},
        ],
        "tools": [placeholder, tool],
        "metadata": {"user_id": "{}"},
        "max_tokens": 500,
        "thinking": {"type": "adaptive", "display": "omitted"},
        "context_management": {"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]},
        "output_config": {"effort": "high"},
        "stream": True,
    }


@pytest.mark.parametrize("profile", ENGINES)
def test_two_turns_of_claude_code(cold, profile):
    port = cold(profile)
    path = "/v1/messages?beta=true"
    asked = {"role": "user", "content": [
        {"type": "text", "text": LESSONS["weather"]["prompt"],
         "cache_control": {"type": "ephemeral"}},
    ]}  # fmt: skip

    first = events(port, path, claude([asked]))
    blocks = [e["content_block"] for e in first if e["type"] == "content_block_start"]
    [call] = [block for block in blocks if block["type"] == "tool_use"]
    pieces = [e["delta"] for e in first if e["type"] == "content_block_delta"]
    given = "".join(p["partial_json"] for p in pieces if p["type"] == "input_json_delta")
    assert (call["name"], json.loads(given)) == ("get_weather", {"city": "Paris"})
    assert next(e["delta"] for e in first if e["type"] == "message_delta")["stop_reason"] == (
        "tool_use"
    )
    called = {"role": "assistant", "content": [{**call, "input": json.loads(given)}]}
    result = {"role": "user", "content": [
        {"type": "tool_result", "tool_use_id": call["id"],
         "content": [{"type": "text", "text": LESSONS["weather_result"]["tool"]}]},
    ]}  # fmt: skip
    second = events(port, path, claude([asked, called, result]))

    texts = [e["delta"] for e in second if e["type"] == "content_block_delta"]
    assert "".join(t.get("text", "") for t in texts).strip() == LESSONS["weather_result"]["answer"]
    assert second[-1]["type"] == "message_stop"


@pytest.mark.parametrize("profile", ENGINES)
def test_surroundings_after_the_question_are_no_error(cold, profile):
    messages = [
        {"role": "user", "content": [{"type": "text", "text": "Hello"}]},
        {"role": "system", "content": [{"type": "text", "text": "# Environment: a terminal"}]},
    ]
    answer = events(cold(profile), "/v1/messages?beta=true", claude(messages))
    assert answer[-1]["type"] == "message_stop"
