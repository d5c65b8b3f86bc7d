"""Settings for other programs: each is what it claims to be, and carries the profile's values."""

import ast
import json
import shlex
import shutil
import subprocess
import threading
import tomllib
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import msgspec
import pytest
import yaml

from llmd.cli.connect import fill, programs


PORT = 8081
BASE = f"http://127.0.0.1:{PORT}/v1"
CONTEXT, MOST = 65_536, 8192
PROGRAMS = [
    "cline", "continue", "claude-code", "codex", "opencode", "open-webui", "langchain", "openai",
    "anthropic", "mcp", "litellm", "llm",
]  # fmt: skip


def env_of(text):
    return dict(line.split("=", 1) for line in text.splitlines())


def javascript(text):
    """*text*, which node accepts where there is one."""
    if node := shutil.which("node"):
        check = [node, "--input-type=module", "--check", "-"]
        subprocess.run(check, input=text, text=True, check=True, capture_output=True, timeout=20)
    return text


PARSE = {
    "json": json.loads,
    "yaml": yaml.safe_load,
    "toml": tomllib.loads,
    "python": ast.parse,
    "sh": lambda text: shlex.split(text, comments=True),
    "env": env_of,
    "javascript": javascript,
    "text": str,
}


def settings(done):
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    return document, [PARSE[piece["format"]](piece["text"]) for piece in document["settings"]]


@pytest.fixture
def code(ctl, daemon):
    """The settings of a program for the profile `code`, parsed."""
    return lambda program: settings(ctl("--json", "connect", program, "-p", "coder"))[1]


def test_without_a_program_they_are_listed(ctl):
    done = ctl("connect")
    assert [line.split()[0] for line in done.stdout.splitlines()] == PROGRAMS
    listed = json.loads(ctl("connect", "--json").stdout)["programs"]
    assert [program["name"] for program in listed] == PROGRAMS


@pytest.mark.usefixtures("daemon")
@pytest.mark.parametrize("program", PROGRAMS)
def test_every_piece_is_what_it_claims_to_be_and_names_the_profile(ctl, program):
    document, pieces = settings(ctl("--json", "connect", program, "-p", "coder"))
    assert len(pieces) >= 1
    assert (document["name"], document["port"]) == ("code", PORT)
    assert (document["context"], document["max_tokens"]) == (CONTEXT, MOST)
    assert (document["base_url"], document["key"]) == (BASE, "none")
    text = "\n".join(piece["text"] for piece in document["settings"])
    assert "?key" not in text
    if program != "mcp":
        assert f"127.0.0.1:{PORT}" in text
    if program not in {"mcp", "open-webui"}:  # the latter asks the port for its models
        assert "code" in text


def test_cline(code):
    by_hand, command = code("cline")
    assert f"Base URL: {BASE}\n" in by_hand
    assert f"Context Window Size: {CONTEXT}" in by_hand
    assert command == shlex.split(f"cline auth -p openai-compatible -k none -m code -b {BASE}")


def test_continue(code):
    (config,) = code("continue")
    assert {"name", "version", "schema"} <= set(config)
    (model,) = config["models"]
    assert model["provider"] == "openai"
    assert (model["model"], model["apiBase"]) == ("code", BASE)
    assert model["defaultCompletionOptions"] == {"contextLength": CONTEXT, "maxTokens": MOST}


def test_claude_code(code):
    file, command = code("claude-code")
    assert file["env"]["ANTHROPIC_BASE_URL"] == f"http://127.0.0.1:{PORT}"
    assert file["env"]["ANTHROPIC_AUTH_TOKEN"] == "none"
    assert file["env"]["ANTHROPIC_DEFAULT_HAIKU_MODEL"] == "code"
    assert file["env"]["CLAUDE_CODE_MAX_OUTPUT_TOKENS"] == str(MOST)
    assert "ANTHROPIC_MODEL=code" in command


def test_codex(code):
    (config,) = code("codex")
    assert (config["model"], config["model_context_window"]) == ("code", CONTEXT)
    provider = config["model_providers"][config["model_provider"]]
    assert (provider["base_url"], provider["wire_api"]) == (BASE, "responses")
    assert "env_key" not in provider


def test_opencode(code):
    (config,) = code("opencode")
    provider, _, model = config["model"].partition("/")
    chosen = config["provider"][provider]
    assert config["$schema"].startswith("https://")
    assert (chosen["npm"], chosen["options"]["baseURL"]) == ("@ai-sdk/openai-compatible", BASE)
    assert chosen["models"][model]["limit"] == {"context": CONTEXT, "output": MOST}


def test_open_webui_litellm_and_llm(code):
    assert code("open-webui")[0]["OPENAI_API_BASE_URL"] == BASE
    (model,) = code("litellm")[0]["model_list"]
    assert model["litellm_params"]["model"] == "openai/code"
    assert model["litellm_params"]["api_base"] == BASE
    (entry,), command = code("llm")
    assert (entry["model_id"], entry["model_name"], entry["api_base"]) == ("code", "code", BASE)
    assert command[:3] == ["llm", "-m", "code"]


def test_mcp_names_the_program_by_its_path_and_the_daemons_socket(ctl, daemon):
    document, pieces = settings(ctl("--json", "connect", "mcp"))
    generic, cline, claude, codex = pieces
    server = generic["mcpServers"]["llmd"]
    assert Path(server["command"]).is_absolute()
    assert Path(server["command"]).name == "llmd-mcp"
    assert server["args"] == ["--socket", str(daemon.path)]
    assert "env" not in server
    assert cline["mcpServers"]["llmd"]["timeout"] >= 600
    assert not set(cline["mcpServers"]["llmd"]["autoApprove"]) & {"llmd_load", "llmd_unload"}
    assert claude[-3:] == [server["command"], *server["args"]]
    assert codex["mcp_servers"]["llmd"]["args"] == server["args"]
    done = subprocess.run(
        [server["command"], *server["args"], "--version"],
        capture_output=True, text=True, timeout=20, check=True,
    )  # fmt: skip
    assert done.stdout.startswith("llmd-mcp ")
    assert document["notes"] == []


def test_settings_go_to_stdout_and_the_rest_to_stderr(ctl, daemon):
    done = ctl("connect", "codex", "-p", "code")
    assert tomllib.loads(done.stdout)["model"] == "code"
    assert done.stderr.startswith("# ~/.codex/config.toml")
    assert "http://127.0.0.1:8080/v1, the gateway, serves every profile" in done.stderr


def test_the_one_that_is_ready_is_taken_else_the_first(ctl, daemon):
    chosen = ctl("--json", "connect", "openai")
    assert json.loads(chosen.stdout)["name"] == "code"  # two are ready
    assert "-p chooses another: code6, chat, raw" in chosen.stdout
    profiles = daemon.operator.by_name
    profiles["code"] = msgspec.structs.replace(profiles["code"], state="unloaded")
    assert json.loads(ctl("--json", "connect", "openai").stdout)["name"] == "chat"


def test_what_is_lacking_is_said(ctl, daemon):
    profiles = daemon.operator.by_name
    profiles["code"] = msgspec.structs.replace(profiles["code"], engine="remote", context=None)
    profiles["raw"] = msgspec.structs.replace(profiles["raw"], context=4096)
    told = ctl("connect", "claude-code", "-p", "code").stderr
    assert "code is a remote profile: its own server must have /v1/messages" in told
    assert "the context of code is not known; 32768 is assumed" in told
    assert "/v1/messages" not in ctl("connect", "anthropic", "-p", "chat").stderr
    small, _ = settings(ctl("--json", "connect", "codex", "-p", "raw"))
    assert small["max_tokens"] == 1024
    assert any("4096 tokens is little" in line for line in small["notes"])


class Locked(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(401)
        self.end_headers()

    def log_message(self, *_):
        pass


@pytest.fixture
def locked_port():
    """A port that asks for a key, as the daemon's do with `api_keys`."""
    with HTTPServer(("127.0.0.1", 0), Locked) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_address[1]
        server.shutdown()
        thread.join()


def test_port_that_wants_a_key_gets_a_placeholder_everywhere(ctl, daemon, locked_port):
    profiles = daemon.operator.by_name
    profiles["code"] = msgspec.structs.replace(profiles["code"], port=locked_port)
    for program in PROGRAMS:
        document, pieces = settings(ctl("--json", "connect", program, "-p", "code"))
        text = "\n".join(piece["text"] for piece in document["settings"])
        assert ("LLMD_API_KEY" if program == "codex" else "YOUR-KEY") in text
        assert "none" not in text
        assert any("in place of YOUR-KEY" in line for line in document["notes"])
        if program == "mcp":
            assert pieces[0]["mcpServers"]["llmd"]["env"] == {"LLMD_API_KEY": "YOUR-KEY"}
            assert pieces[3]["mcp_servers"]["llmd"]["env"] == {"LLMD_API_KEY": "YOUR-KEY"}


FILE = """
listen: [0.0.0.0]
api_keys: [sesame-1]
gateway: {port: 8090}
profiles:
  one: {engine: command, cmd: [serve, "{port}"], memory: 1GiB, port: 8091}
  two: {engine: mlx, model: some/thing, port: 8092, context: 65536, aliases: [second]}
"""


def test_without_a_daemon_the_file_is_read_and_it_is_said(ctl, short_dir):
    (short_dir / "llmd.yaml").write_text(FILE)
    document, (config,) = settings(ctl("--json", "connect", "continue", "-p", "second"))
    assert config["models"][0]["apiBase"] == "http://127.0.0.1:8092/v1"
    assert document["key"] == "YOUR-KEY"
    assert document["source"] == str(short_dir / "llmd.yaml")
    assert "sesame" not in json.dumps(document)
    notes = "\n".join(document["notes"])
    assert "no daemon answers; this is from " in notes
    assert "http://127.0.0.1:8090/v1, the gateway" in notes


def test_ipv6_addresses_are_bracketed(ctl, short_dir):
    (short_dir / "llmd.yaml").write_text(FILE.replace("[0.0.0.0]", "['::1']"))
    document, _ = settings(ctl("--json", "connect", "continue", "-p", "two"))
    assert document["base_url"] == "http://[::1]:8092/v1"
    assert "http://[::1]:8090/v1, the gateway" in "\n".join(document["notes"])


def test_mistakes_are_said(ctl, daemon, short_dir):
    unknown = ctl("connect", "clien")
    assert unknown.returncode == 2
    assert "did you mean 'cline'?" in unknown.stderr
    nobody = ctl("connect", "cline", "-p", "cod")
    assert nobody.returncode == 1
    assert "did you mean code?" in nobody.stderr
    nothing = ctl("--socket", str(short_dir / "none"), "connect", "cline")
    assert nothing.returncode == 1
    assert "no daemon answers, and there is no configuration" in nothing.stderr
    assert "llmd-ctl config init" in nothing.stderr


def test_lines_for_a_key_come_and_go():
    text = 'a = "$name"\n  ?key k = "$key"\n$$x'
    values = {"name": "n", "key": "s"}
    assert fill(text, values, with_key=False) == 'a = "n"\n$x'
    assert fill(text, values, with_key=True) == 'a = "n"\n  k = "s"\n$x'


def test_every_entry_is_complete():
    for program in programs().values():
        assert {"title", "settings"} <= set(program) <= {"title", "asks", "agent", "settings"}
        for piece in program["settings"]:
            assert set(piece) == {"where", "format", "text"}
            assert piece["format"] in PARSE
