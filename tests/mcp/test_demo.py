"""The tools and resources on the demo models, through both transports."""

import json

import pytest
from mcp import MCPError

from tests.lessons import FRANCE, LESSONS
from tests.mcp.talking import Told, chat, in_process, over_http, over_stdio, text_of


QUESTION, ANSWER = FRANCE
BOTH = pytest.mark.parametrize("transport", [over_stdio, over_http], ids=["stdio", "http"])


@BOTH
@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_first_chat_loads_and_tells_progress(demo, transport, mode):
    demo.admin("POST", "/v1/profiles/code/unload")
    told = Told()
    async with transport(demo.env, mode=mode) as client:
        answered = await client.call_tool(
            "llama_cpp_chat",
            chat(QUESTION, temperature=0, max_tokens=50),
            progress_callback=told,
        )
    assert text_of(answered) == ANSWER
    assert not answered.is_error
    assert any("loading" in message or "waiting" in message for message in told.messages)
    assert "is writing" in told.messages[-1]
    assert told.numbers == sorted(set(told.numbers))
    assert demo.profile("code")["state"] == "ready"


async def test_reasoning_is_kept_out_of_the_answer(demo):
    lesson = LESSONS["multiply"]
    async with in_process(demo.env) as client:
        answered = await client.call_tool(
            "local_llm_chat", chat(lesson["prompt"], "reason", temperature=0, max_tokens=None)
        )
    assert text_of(answered) == lesson["answer"]
    assert answered.structured_content["reasoning"].strip() == lesson["reasoning"]
    assert answered.structured_content["finish_reason"] == "stop"
    assert answered.structured_content["usage"]["completion_tokens"] > 0


async def test_answer_that_never_began_is_an_error_that_says_why(demo):
    async with in_process(demo.env) as client:
        answered = await client.call_tool(
            "llama_cpp_chat",
            chat(LESSONS["multiply"]["prompt"], "reason", temperature=0, max_tokens=6),
        )
    assert answered.is_error
    assert "while it was still thinking\nWhat to do: give more `max_tokens`" in text_of(answered)


async def test_tools_are_listed_with_what_they_change(demo):
    async with in_process(demo.env) as client:
        tools = {tool.name: tool for tool in (await client.list_tools()).tools}
    assert set(tools) == {
        "llama_cpp_chat", "local_llm_chat", "llmd_status", "llmd_profiles", "llmd_plan",
        "llmd_load", "llmd_unload",
    }  # fmt: skip
    for name, tool in tools.items():
        hints = tool.annotations
        assert hints.read_only_hint == (name in {"llmd_status", "llmd_profiles", "llmd_plan"}), name
        assert bool(hints.destructive_hint) == (name in {"llmd_load", "llmd_unload"}), name
        assert hints.open_world_hint is False
        assert "$ref" not in json.dumps(tool.input_schema)
    schema = tools["llama_cpp_chat"].input_schema
    assert schema["required"] == ["profile", "messages"]
    assert schema["properties"]["max_tokens"]["type"] == "integer"
    assert schema == tools["local_llm_chat"].input_schema


async def test_load_plan_and_unload_do_what_they_say(demo):
    demo.admin("POST", "/v1/profiles/raw/unload")
    told = Told()
    async with over_http(demo.env) as client:
        planned = await client.call_tool("llmd_plan", {"profile": "raw"})
        assert text_of(planned).startswith("raw fits: needs ")
        assert demo.profile("raw")["state"] == "unloaded"
        loaded = await client.call_tool("llmd_load", {"profile": "raw"}, progress_callback=told)
        assert loaded.structured_content["changed"] is True
        assert told.messages[0].startswith("raw: ")
        seen = await client.call_tool("llmd_profiles")
        states = {p["name"]: p["state"] for p in seen.structured_content["profiles"]}
        assert states["raw"] == "ready"
        assert "raw: ready, llama.cpp on port" in text_of(seen)
        status = await client.call_tool("llmd_status")
        assert status.structured_content["budget"]["total_bytes"] == 1750 * 2**20
        unloaded = await client.call_tool("llmd_unload", {"profile": "raw"})
        assert text_of(unloaded).startswith("unloaded raw, ")
    assert demo.profile("raw")["state"] == "unloaded"


@pytest.mark.parametrize(
    ("tool", "arguments", "said"),
    [
        pytest.param("llmd_load", {"profile": "rew"}, "did you mean raw?", id="a name mistyped"),
        pytest.param("llama_cpp_chat", chat("Hi", "cod"), "did you mean code?", id="in a chat"),
        pytest.param(
            "llama_cpp_chat", {"profile": "raw"}, "field `messages`", id="a field left out"
        ),
        pytest.param("llama_cpp_chat", chat("Hi", max=3), "field `max`", id="a field unknown"),
        pytest.param("llama_cpp_chat", {"profile": "raw", "messages": []}, ">= 1", id="no message"),
        pytest.param(
            "llama_cpp_chat",
            {"profile": "raw", "messages": [{"role": "boss", "content": "Hi"}]},
            "`$.messages[0].role`",
            id="a role unknown",
        ),
        pytest.param("llmd_status", {"all": True}, "the tool takes no arguments", id="too much"),
        pytest.param("llmd_stop", {}, "there are llama_cpp_chat", id="a tool unknown"),
    ],
)
async def test_bad_call_is_a_tool_error_with_a_remedy(demo, tool, arguments, said):
    async with in_process(demo.env) as client:
        answered = await client.call_tool(tool, arguments)
    assert answered.is_error
    assert said in text_of(answered)
    assert "What to do: " in text_of(answered)
    assert answered.structured_content["error"]["code"] in {"invalid_request", "model_not_found"}


@BOTH
async def test_profiles_are_resources(demo, transport):
    async with transport(demo.env) as client:
        listed = [str(r.uri) for r in (await client.list_resources()).resources]
        assert listed[0] == "llmd://profiles"
        assert "llmd://profiles/code" in listed
        templates = (await client.list_resource_templates()).resource_templates
        assert [t.uri_template for t in templates] == ["llmd://profiles/{name}"]
        read = (await client.read_resource("llmd://profiles/raw")).contents[0]
        assert read.mime_type == "application/json"
        raw = json.loads(read.text)
        assert raw["engine"] == "llama.cpp"
        assert raw["base_url"] == f"http://127.0.0.1:{demo.ports[8083]}/v1"
        assert {"port", "context", "state", "footprint_bytes"} <= set(raw)
        everything = (await client.read_resource("llmd://profiles")).contents[0].text
        assert {p["name"] for p in json.loads(everything)} >= {"code", "raw", "reason"}
        with pytest.raises(MCPError, match="did you mean raw"):
            await client.read_resource("llmd://profiles/rew")
        with pytest.raises(MCPError, match="there is llmd://profiles"):
            await client.read_resource("file:///etc/passwd")
