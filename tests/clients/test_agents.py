"""Coding agents and MCP's inspector, set up with what `llmd-ctl connect` prints, on a cold port.

Their own instructions and tools are 20 to 50 kB, 10,000 to 22,000 tokens for the demo model. On two
cores llama.cpp reads 1,000 of them in a second and MLX 200: so the agents are tested on llama.cpp,
and what they send on both (see test_shapes.py). The demo model calls `get_weather` and no other
tool. Cline and opencode can be given a tool of that name; Claude Code and Codex put a prefix before
those they are given.
"""

import json
import shlex
import sys
from pathlib import Path

import pytest

from tests.clients.running import NODE, need
from tests.conftest import ROOT
from tests.lessons import FRANCE, LESSONS


pytestmark = pytest.mark.clients

HERE = ROOT / "tests" / "clients" / "node"
WEATHER, SUNNY = LESSONS["weather"]["prompt"], LESSONS["weather_result"]["answer"]
PATIENCE_S = 150
"""They take 10 to 20 s on a machine that does nothing else."""


def settings(demo, program, kind, profile="reason"):
    """What `llmd-ctl connect` prints for *program*, in the format *kind*."""
    ran = demo.ctl("--json", "connect", program, "-p", profile)
    assert ran.returncode == 0, ran
    pieces = json.loads(ran.stdout)["settings"]
    return next(piece["text"] for piece in pieces if piece["format"] == kind)


def bin_of(name):
    return need(NODE / ".bin" / name, f"{name} for Node")


def test_cline_does_a_task_with_a_tool_call(demo, cold, surroundings):
    cline = bin_of("cline")
    cold("reason")
    quiet = surroundings.home / "settings.json"
    quiet.write_text('{"telemetryOptOut": true, "autoUpdateEnabled": false}')
    plugin = surroundings.home / "plugin"
    plugin.mkdir()
    (plugin / "index.js").write_text((HERE / "cline_plugin.mjs").read_text())
    (plugin / "package.json").write_text(
        '{"name": "weather", "version": "1.0.0", "type": "module", "main": "index.js"}'
    )

    def run(*words, timeout_s=60):
        env = {"CLINE_GLOBAL_SETTINGS_PATH": str(quiet)}
        return surroundings.run([cline, *words], timeout_s=timeout_s, env=env)

    run("plugin", "install", plugin)
    run(*shlex.split(settings(demo, "cline", "sh"))[1:])
    ran = run("--json", "-t", str(PATIENCE_S), WEATHER, timeout_s=PATIENCE_S + 10)

    tools = [e["event"] for e in ran.lines if e["type"] == "agent_event"
             and e["event"].get("contentType") == "tool"]  # fmt: skip
    assert [(e["toolName"], e.get("input")) for e in tools][:1] == [
        ("get_weather", {"city": "Paris"})
    ]
    assert tools[-1]["output"] == {"city": "Paris", "sky": "sunny", "celsius": 21}
    result = ran.lines[-1]
    assert (result["finishReason"], result["iterations"]) == ("completed", 2)
    assert result["text"] == SUNNY
    assert result["usage"]["cacheReadTokens"] > 5000, "the second turn reads the prompt again"


def test_opencode_does_a_task_with_a_tool_call(demo, cold, surroundings):
    opencode = bin_of("opencode")
    cold("reason")
    (surroundings.work / "opencode.json").write_text(settings(demo, "opencode", "json"))
    tools = surroundings.work / ".opencode" / "tool"
    tools.mkdir(parents=True)
    source = (HERE / "opencode_tool.js").read_text().replace("NODE_MODULES", str(NODE))
    (tools / "get_weather.js").write_text(source)

    ran = surroundings.run([opencode, "run", "--format", "json", WEATHER], timeout_s=PATIENCE_S)

    parts = [line["part"] for line in ran.lines if "part" in line]
    assert [(p["tool"], p["state"]["input"]) for p in parts if p["type"] == "tool"] == [
        ("get_weather", {"city": "Paris"})
    ]
    assert [p["text"] for p in parts if p["type"] == "text"] == [SUNNY]


def test_codex_answers(demo, cold, surroundings):
    codex = bin_of("codex")
    cold("reason")
    config = surroundings.home / ".codex" / "config.toml"
    config.parent.mkdir()
    config.write_text(settings(demo, "codex", "toml") + "\n[analytics]\nenabled = false\n")

    ran = surroundings.run(
        [codex, "exec", "--skip-git-repo-check", "--json", FRANCE[0]], timeout_s=PATIENCE_S
    )

    items = [line["item"] for line in ran.lines if line["type"] == "item.completed"]
    assert [i["text"] for i in items if i["type"] == "agent_message"] == [FRANCE[1]]
    assert ran.lines[-1]["type"] == "turn.completed"
    assert ran.lines[-1]["usage"]["output_tokens"] > 5


@pytest.mark.parametrize(
    "profile", [pytest.param("chat", id="mlx"), pytest.param("reason", id="llama.cpp")]
)
def test_claude_code_answers(demo, cold, surroundings, profile):
    claude = bin_of("claude")
    cold(profile)
    env = json.loads(settings(demo, "claude-code", "json", profile))["env"]
    # In its minimal mode it takes its key from one variable alone.
    env["ANTHROPIC_API_KEY"] = env["ANTHROPIC_AUTH_TOKEN"]

    ran = surroundings.run(
        [claude, "--bare", "-p", FRANCE[0], "--output-format", "json", "--tools", "Read",
         "--system-prompt", "Be brief."],
        timeout_s=PATIENCE_S, env=env,
    )  # fmt: skip

    result = ran.json
    assert (result["result"], result["is_error"], result["num_turns"]) == (FRANCE[1], False, 1)


def test_claude_code_answers_with_all_its_tools(demo, cold, surroundings):
    claude = bin_of("claude")
    cold("reason")
    env = json.loads(settings(demo, "claude-code", "json"))["env"]
    file = surroundings.home / ".claude" / "settings.json"
    file.parent.mkdir()
    file.write_text(json.dumps({"env": env}))

    ran = surroundings.run(
        [claude, "-p", FRANCE[0], "--output-format", "json"], timeout_s=PATIENCE_S
    )

    # It puts the surroundings after the question, and of those the demo model knows nothing.
    assert (ran.json["is_error"], ran.json["num_turns"]) == (False, 1)
    assert ran.json["usage"]["input_tokens"] > 5000
    assert ran.json["result"]


def test_the_inspector_calls_the_tools_of_llmd_mcp(demo, cold, surroundings):
    inspector = bin_of("mcp-inspector")
    cold("reason")
    server = [Path(sys.executable).parent / "llmd-mcp", "--socket", demo.socket]
    messages = [{"role": "user", "content": FRANCE[0]}]

    def run(*words):
        return surroundings.run([inspector, "--cli", *server, *words], timeout_s=60).json

    names = {tool["name"] for tool in run("--method", "tools/list")["tools"]}
    assert {"llama_cpp_chat", "local_llm_chat"} <= names
    answer = run(
        *("--method", "tools/call", "--tool-name", "llama_cpp_chat"),
        *("--tool-arg", "profile=reason", "--tool-arg", f"messages={json.dumps(messages)}"),
    )
    assert answer["content"] == [{"type": "text", "text": FRANCE[1]}]
    assert not answer["isError"]
