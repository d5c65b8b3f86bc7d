"""What people ask and are answered stays between them and the engine: nothing else keeps a word.

Each place of a request holds a marker of its own, so that a failure names the place it came from.
"""

import contextlib
import http.client
import itertools
import json
import os
import signal
import socket
import tempfile
from pathlib import Path

import pytest

from tests.lessons import FRANCE
from tests.system.running import Llmd, free_ports, lay_out, request, unruly


KEY = "zqkeyzq"
ENGINES = ("mlx", "raw")
PATHS = (
    "/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/messages",
    "/v1/messages/count_tokens", "/v1/embeddings", "/v1/rerank", "/tokenize", "/infill",
    "/apply-template", "/completion", "/v1/zqpathzq?q=zqqueryzq",
)  # fmt: skip
OLLAMA = ("/api/chat", "/api/generate", "/api/embed", "/api/show", "/api/zqapizq")
SCHEMA = {"type": "object", "description": "zqschemazq", "properties": {"zqfieldzq": {"enum": [1]}}}
TOOL = {
    "name": "zqtoolzq", "description": "zqdescriptionzq", "parameters": SCHEMA,
    "input_schema": SCHEMA, "function": {"name": "zqtoolzq", "parameters": SCHEMA},
    "type": "function",
}  # fmt: skip
CALL = {"id": "c", "type": "function", "function": {"name": "f", "arguments": '{"a": "zqargszq"}'}}
IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,zqimagezq"}}

ORDINARY = {
    "model": "raw", "max_tokens": 4, "system": "zqsystemzq", "prompt": "zqpromptzq",
    "input": "zqinputzq", "query": "zqqueryzq", "documents": ["zqdocumentzq"],
    "content": "zqcontentzq", "input_prefix": "zqprefixzq", "input_suffix": "zqsuffixzq",
    "messages": [
        {"role": "user", "content": "zqpromptzq"}, {"role": "assistant", "tool_calls": [CALL]},
        {"role": "tool", "tool_call_id": "c", "content": "zqresultzq"},
        {"role": "user", "content": FRANCE[0]},
    ],
}  # fmt: skip
WRONG_SCHEMA = {"type": "string", "pattern": "^(zqpatternzq[$", "$ref": "#/zqrefzq"}
USELESS = {
    "type": "object",
    "additionalProperties": {"type": "string", "pattern": "zqpatternzq"},
    "properties": {"a": {"type": "string", "pattern": "^zqpatternzq(?=b)$"}},
}
BODIES = {
    name: body if isinstance(body, bytes | str) else json.dumps(body)
    for name, body in {
        "ordinary": ORDINARY,
        "answered": {**ORDINARY, "max_tokens": 40, "messages": [ORDINARY["messages"][-1]]},
        "streamed": {**ORDINARY, "stream": True},
        "tools": {**ORDINARY, "tools": [TOOL]},
        "image": {"max_tokens": 4, "messages": [{"role": "user", "content": [IMAGE]}]},
        "cut off": json.dumps(ORDINARY)[:-20] + "zqtornzq",
        "no JSON": "zqtornzq" * 3,
        "wrong types": {
            key: {"zqtypezq": [key]}
            for key in (*ORDINARY, "temperature", "stop", "tools", "logprobs", "stream")
        },
        "wrong roles": {"messages": [{"role": "zqrolezq", "content": "zqpromptzq"}]},
        "wrong values": {
            **ORDINARY, "temperature": "zqnumberzq", "response_format": {"type": "zqformatzq"},
            "grammar": "root ::= zqgrammarzq", "chat_template": "{{ zqtemplatezq }} {% if",
        },
        "wrong schema": {
            **ORDINARY,
            "response_format": {"type": "json_schema", "json_schema": {"schema": WRONG_SCHEMA}},
        },
        "broken grammar": {**ORDINARY, "grammar": "root ::= zqgrammarzq"},
        "useless pattern": {
            **ORDINARY, "tools": [{**TOOL, "function": {"parameters": USELESS}}],
            "response_format": {"type": "json_schema", "json_schema": {"schema": USELESS}},
        },
        "schema of a completion": {**ORDINARY, "json_schema": {"not": {"const": "zqschemazq"}}},
        "schema in disguise": json.dumps({**ORDINARY, "json_schema": USELESS}).replace(
            "json_schema", "json_schem\\u0061"
        ),
        "wrong tool": {**ORDINARY, "tools": [{**TOOL, "function": {"parameters": WRONG_SCHEMA}}]},
        "too long": {"prompt": "zqlongzq " * 9000, "input": "zqlongzq " * 9000},
        "not text": b'{"prompt": "zqbytezq\xff\xfe"}',
    }.items()
}  # fmt: skip
HEADERS = {
    "Authorization": f"Bearer {KEY}", "Cookie": "zqcookiezq", "User-Agent": "zqagentzq",
    "X-Request-Id": "zqidzq", "X-Anything": "zqheaderzq", "Referer": "http://localhost/zqrefererzq",
}  # fmt: skip
WRONG_HEADERS = (
    {"Host": "zqhostzq.example"}, {"Origin": "http://zqoriginzq.example"},
    {"Authorization": "Bearer zqwrongkeyzq"}, {"Content-Type": "zqtypezq/x"},
    {"Expect": "zqexpectzq"}, {"Content-Length": "zqlengthzq"},
)  # fmt: skip


@pytest.fixture(scope="module")
def daemon(demo_models):
    """At log level debug and umask 000, with two real engines and one that dies."""
    ports = dict(zip((*ENGINES, "dying", "gateway"), free_ports(4), strict=True))
    config = lay_out(
        {
            "mlx": {"engine": "mlx", "model": "tiny-mlx", "port": ports["mlx"]},
            "raw": {
                "engine": "llama.cpp", "model": "tiny-q8_0.gguf", "port": ports["raw"],
                "args": ["--threads", "1"],
            },
            "dying": unruly(ports["dying"], "--crash-after", "2"),
        },
        budget="3GiB", gateway={"port": ports["gateway"]}, models_dirs=[str(demo_models)],
        api_keys=[KEY],
    )  # fmt: skip
    with tempfile.TemporaryDirectory(prefix="llmd-", dir="/tmp") as path:
        started = Llmd(path, config)
        started.config_file.chmod(0o600)
        started.flags = ("--log-level", "debug")
        started.env |= {
            "HOME": f"{path}/home",
            "XDG_CACHE_HOME": f"{path}/cache",
            "LLMD_LOG_DIR": f"{path}/state/log",
        }
        started.ports = ports
        before = os.umask(0)
        try:
            started.start()
        finally:
            os.umask(before)
        try:
            yield started
        finally:
            assert started.stop() == 0


def send(port, path, body, headers):
    """The status; 0 when the connection was closed without an answer."""
    try:
        return request(port, path=path, body=body, headers={**HEADERS, **headers})[0]
    except (OSError, http.client.HTTPException):
        return 0


def kill_in_mid_answer(daemon, profile, number):
    """Ask for a long answer, and end its host at the first words of it."""
    body = json.dumps({**ORDINARY, "stream": True, "max_tokens": 2000, "ignore_eos": True}).encode()
    with contextlib.closing(socket.create_connection(("127.0.0.1", daemon.ports[profile]))) as sock:
        sock.settimeout(60)
        sock.sendall(
            b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
            b"Authorization: Bearer %b\r\n"
            b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n%b"
            % (KEY.encode(), len(body), body)
        )
        got = b""
        while b"data:" not in got:
            got += (more := sock.recv(4096))
            assert more, got
        os.kill(daemon.profile(profile)["host_pid"], number)
        with contextlib.suppress(OSError):
            while sock.recv(65536):
                pass


def kept(daemon):
    """Whatever could be read of the daemon afterwards, by where it is."""
    for file in daemon.directory.rglob("*"):
        # The configuration, and the copy of it that last worked, may hold keys.
        if file.is_file() and file.read_bytes() != daemon.config_file.read_bytes():
            yield str(file.relative_to(daemon.directory)), file.read_bytes()
    for pid in (daemon.process.pid, *daemon.host_pids()):
        for what in ("cmdline", "environ", "comm"):
            with contextlib.suppress(OSError):
                yield f"{what} of {pid}", Path(f"/proc/{pid}/{what}").read_bytes()
    for path in ("/v1/status", "/v1/profiles", "/metrics"):
        yield path, raw_admin(daemon, path)
    for words in (
        *(("logs", name, "-n", "5000") for name in (*ENGINES, "dying")),
        ("logs", "-n", "5000"), ("events", "-n", "5000"), ("status",), ("--json", "status"),
    ):  # fmt: skip
        ran = daemon.ctl(*words)
        assert ran.returncode == 0, ran.stderr
        yield " ".join(words), ran.stdout.encode()


def raw_admin(daemon, path):
    connection = http.client.HTTPConnection("localhost")
    connection.sock = socket.socket(socket.AF_UNIX)
    with contextlib.closing(connection):
        connection.sock.connect(str(daemon.socket))
        connection.request("GET", path)
        return connection.getresponse().read()


def leaks(daemon):
    """Every place that holds a marker or an answer, with what is around it."""
    found = set()
    for place, content in kept(daemon):
        # Its name is random, and may hold the letters of a marker.
        content = content.replace(daemon.directory.name.encode(), b"")  # noqa: PLW2901
        for words in (b"zq", FRANCE[1].encode()):
            at = content.find(words)
            if at >= 0:
                found.add((place, content[max(at - 60, 0) : at + 60].decode(errors="replace")))
    return sorted(found)


def test_nothing_of_requests_and_answers_is_kept_whatever_becomes_of_them(daemon):
    statuses = [
        (send(daemon.ports[port], path, BODIES[body], headers), port)
        for port, path, body, headers in (
            *itertools.product(ENGINES, PATHS, BODIES, [{}]),
            *itertools.product(["gateway"], OLLAMA, BODIES, [{}]),
            *itertools.product((*ENGINES, "gateway"), PATHS[:1], ["ordinary"], WRONG_HEADERS),
            *itertools.product(["dying"], PATHS[:1], ["ordinary", "streamed"], [{}]),
        )
    ]
    served = [port for status, port in statuses if status == 200]
    assert all(served.count(port) >= 10 for port in (*ENGINES, "gateway")), statuses
    assert leaks(daemon) == []


@pytest.mark.parametrize("number", [signal.SIGABRT, signal.SIGSEGV, signal.SIGKILL])
@pytest.mark.parametrize("profile", ENGINES)
def test_engine_that_dies_in_mid_answer_leaves_no_word_of_it(daemon, profile, number):
    kill_in_mid_answer(daemon, profile, number)
    daemon.wait_for(lambda s: any(p["last_error"] for p in s["profiles"] if p["name"] == profile))
    assert leaks(daemon) == []


def test_whatever_is_kept_is_private_whatever_the_umask(daemon):
    made = [
        path
        for path in daemon.directory.rglob("*")
        if path not in (daemon.log_file, daemon.config_file)
    ]
    assert daemon.directory / "state" / "log" / "raw.log" in made
    assert [path for path in made if path.lstat().st_mode & 0o077] == []
