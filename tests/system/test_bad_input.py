"""Bad input: each with a clear answer, and nothing lost."""

import contextlib
import json
import os
import shutil
import socket
import subprocess
import time

import pytest

from tests.conftest import ROOT
from tests.lessons import FRANCE
from tests.system.conftest import demo_config
from tests.system.running import BIN, Llmd, ask, free_ports, request


PROMPT, ANSWER = FRANCE


@pytest.fixture
def raw(demo_models, start):
    """One small llama.cpp profile, running."""
    port, gateway = free_ports(2)
    daemon = start(
        {
            "budget": "1GiB",
            "models_dirs": [str(demo_models)],
            "gateway": {"port": gateway},
            "profiles": {
                "raw": {
                    "engine": "llama.cpp",
                    "model": "tiny-q8_0.gguf",
                    "port": port,
                    "args": ["--threads", "1"],
                }
            },
        }
    )
    daemon.port = port
    return daemon


# --- files


@pytest.mark.parametrize(
    ("text", "words"),
    [
        pytest.param("profiles: {code: [}", ["llmd.yaml:1"], id="malformed YAML"),
        pytest.param(
            "profiles:\n  code: {engine: mlx, modle: x, port: 8081}\n",
            ["llmd.yaml:2", "profiles.code.modle", "model"],
            id="unknown key, with the nearest right one",
        ),
        pytest.param(
            "profiles:\n  a: {engine: mlx, model: x, port: 8081}\n"
            "  a: {engine: mlx, model: y, port: 8082}\n",
            ["llmd.yaml:3", "a"],
            id="two profiles with one name",
        ),
        pytest.param(
            "budget: 1GiB\nprofiles:\n  a: {engine: command, cmd: [x, '{port}'], port: 8081,"
            " memory: 2GiB}\n",
            ["memory", "budget"],
            id="a budget too small for a profile",
        ),
        pytest.param("", ["empty"], id="empty file"),
    ],
)
def test_bad_configuration_is_refused_with_its_place(short_dir, text, words):
    daemon = Llmd(short_dir, text)
    done = subprocess.run(
        [BIN / "llmd", "serve"], env=daemon.env, capture_output=True, text=True, timeout=30,
        check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    for word in words:
        assert word in done.stderr
    checked = daemon.ctl("config", "check")
    assert checked.returncode == 1
    assert words[0] in checked.stderr


def test_missing_configuration_says_how_to_make_one(short_dir):
    daemon = Llmd(short_dir, "")
    daemon.config_file.unlink()
    done = subprocess.run(
        [BIN / "llmd", "serve"], env=daemon.env, capture_output=True, text=True, timeout=30,
        check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert "llmd-ctl config init" in done.stderr


def test_bad_reload_changes_nothing_and_is_reported(raw):
    ask(raw.port, PROMPT)
    good = raw.config_file.read_text()
    raw.write_config("profiles: {raw: {engine: lama}}")
    done = raw.ctl("reload")
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert raw.profile("raw")["state"] == "ready"
    assert raw.status()["config_error"]
    raw.write_config(good)
    assert raw.ctl("reload").returncode == 0
    assert raw.status()["config_error"] is None
    assert raw.profile("raw")["loads"] == 1


def test_weights_that_are_not_there_fail_one_profile_and_hinder_no_other(demo_models, start):
    config, ports = demo_config(demo_models)
    config["profiles"]["chat"]["model"] = "tiny-mxl"
    config["profiles"]["raw"]["model"] = "/nowhere/at/all.gguf"
    daemon = start(config)
    for port, words in ((8082, "tiny-mlx"), (8083, "/nowhere/at/all.gguf")):
        status, _, body = request(ports[port], body={"messages": []})
        error = json.loads(body)["error"]
        assert status >= 400
        assert words in error["message"]
        assert error["remedy"]
    done = daemon.ctl("load", "chat")
    assert done.returncode == 1
    assert "tiny-mlx" in done.stderr
    assert ask(ports[8084], PROMPT)["content"] == ANSWER


def test_weights_that_arrive_later_are_found(demo_models, start, tmp_path):
    (port,) = free_ports(1)
    daemon = start(
        {
            "budget": "1GiB", "gateway": None, "models_dirs": [str(tmp_path)],
            "profiles": {"raw": {"engine": "llama.cpp", "model": "late.gguf", "port": port}},
        }
    )  # fmt: skip
    assert request(port, body={"messages": []})[0] >= 400
    shutil.copy(demo_models / "tiny-q8_0.gguf", tmp_path / "late.gguf")
    assert daemon.ctl("load", "raw").returncode == 0
    assert ask(port, PROMPT)["content"] == ANSWER


def test_directory_that_is_no_model_and_truncated_gguf_say_so(demo_models, start, tmp_path):
    ports = free_ports(2)
    (tmp_path / "empty").mkdir()
    whole = (demo_models / "tiny-q8_0.gguf").read_bytes()
    (tmp_path / "cut.gguf").write_bytes(whole[: len(whole) // 2])
    start(
        {
            "budget": "2GiB", "gateway": None, "models_dirs": [str(tmp_path)],
            "profiles": {
                "empty": {"engine": "mlx", "model": "empty", "port": ports[0]},
                "cut": {"engine": "llama.cpp", "model": "cut.gguf", "port": ports[1]},
            },
        }
    )  # fmt: skip
    for port, word in zip(ports, ("empty", "cut.gguf"), strict=True):
        status, _, body = request(port, body={"messages": []})
        assert status >= 400
        assert word in json.loads(body)["error"]["message"]


def test_profile_larger_than_the_budget_is_refused_with_the_numbers(demo_models, start):
    (port,) = free_ports(1)
    start(
        {
            "budget": "10MiB", "gateway": None, "models_dirs": [str(demo_models)],
            "profiles": {"raw": {"engine": "llama.cpp", "model": "tiny-q8_0.gguf", "port": port}},
        }
    )  # fmt: skip
    status, _, body = request(port, body={"messages": []})
    error = json.loads(body)["error"]
    assert (status, error["code"]) == (503, "budget_exceeded")
    assert "10 MiB" in error["message"]


# --- ports and sockets


def test_port_in_use_names_its_holder_and_the_others_work(demo_models, start):
    config, ports = demo_config(demo_models)
    with contextlib.closing(socket.create_server(("127.0.0.1", ports[8082]))):
        daemon = start(config)
        entry = next(p for p in daemon.status()["ports"] if p["port"] == ports[8082])
        assert f"pid {os.getpid()}" in entry["error"]
        assert ask(ports[8083], PROMPT)["content"] == ANSWER
    daemon.wait_for(lambda s: not any(p["error"] for p in s["ports"]))
    assert request(ports[8082], "GET", "/health")[0] == 200


def test_every_port_in_use_ends_the_daemon_with_the_holder(short_dir, demo_models):
    (port,) = free_ports(1)
    with contextlib.closing(socket.create_server(("127.0.0.1", port))):
        daemon = Llmd(
            short_dir,
            {
                "gateway": None,
                "profiles": {"raw": {"engine": "llama.cpp", "model": "x", "port": port}},
            },
        )
        done = subprocess.run(
            [BIN / "llmd", "serve"], env=daemon.env, capture_output=True, text=True, timeout=30,
            check=False,
        )  # fmt: skip
    assert done.returncode == 1
    assert f"pid {os.getpid()}" in done.stderr
    assert "Traceback" not in done.stderr


def test_second_daemon_on_the_same_socket_is_refused_and_the_first_goes_on(raw):
    done = subprocess.run(
        [BIN / "llmd", "serve"], env=raw.env, capture_output=True, text=True, timeout=30,
        check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert str(raw.process.pid) in done.stderr
    assert raw.status()["pid"] == raw.process.pid


def test_stale_socket_file_is_replaced(short_dir, demo_models):
    daemon = Llmd(
        short_dir, {"profiles": {"raw": {"engine": "llama.cpp", "model": "x", "port": 1}}}
    )
    daemon.write_config(
        {
            "gateway": None,
            "profiles": {"raw": {"engine": "llama.cpp", "model": "x", "port": free_ports(1)[0]}},
        }
    )
    daemon.socket.parent.mkdir(mode=0o700)
    with contextlib.closing(socket.socket(socket.AF_UNIX)) as dead:
        dead.bind(str(daemon.socket))
    daemon.start()
    assert daemon.stop() == 0


def test_damaged_footprints_are_set_aside_and_said_so(short_dir):
    (port,) = free_ports(1)
    profile = {"engine": "llama.cpp", "model": "x", "port": port}
    daemon = Llmd(short_dir, {"gateway": None, "profiles": {"raw": profile}})
    state = daemon.directory / "state"
    state.mkdir(mode=0o700)
    (state / "footprints.json").write_text("{half a fi")
    daemon.start()
    assert daemon.stop() == 0
    assert "footprints.unreadable" in daemon.log_file.read_text()
    assert (state / "footprints.json.damaged").exists()


def test_what_a_host_held_is_kept_for_the_next_load(raw):
    ask(raw.port, PROMPT)
    raw.ctl("unload", "raw")
    kept = json.loads((raw.directory / "state" / "footprints.json").read_text())
    assert all(mark > 2**20 for mark in kept["marks"].values())
    assert len(kept["marks"]) == 1


def test_ctl_without_a_daemon_says_how_to_start_one(short_dir):
    done = Llmd(short_dir, "").ctl("status")
    assert done.returncode == 3
    assert "llmd serve" in done.stderr
    assert "Traceback" not in done.stderr


# --- requests


@pytest.mark.parametrize(
    ("body", "headers", "status", "code"),
    [
        pytest.param(b"{", {}, 400, "invalid_request", id="malformed JSON"),
        pytest.param(b"[]", {}, 400, "invalid_request", id="not an object"),
        pytest.param(b"{}", {"Host": "evil.example"}, 403, "forbidden_origin", id="rebound name"),
        pytest.param(
            b"{}", {"Origin": "https://evil.example"}, 403, "forbidden_origin", id="web page"
        ),
    ],
)
def test_bad_request_is_answered_and_loads_nothing(raw, body, headers, status, code):
    got, _, answer = request(raw.port, body=body, headers=headers)
    error = json.loads(answer)["error"]
    assert (got, error["code"]) == (status, code)
    assert raw.profile("raw")["loads"] == 0


def test_body_of_100_mb_is_refused_while_it_is_being_sent(raw):
    with contextlib.closing(socket.create_connection(("127.0.0.1", raw.port))) as sock:
        sock.settimeout(20)
        size = 100 * 10**6
        sock.sendall(
            b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\n"
            b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n" % size
        )
        block = b" " * 2**20
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            for _ in range(size // len(block)):
                sock.sendall(block)
        answer = sock.recv(4096)
    assert b" 413 " in answer.split(b"\r\n")[0]
    assert b"too_large" in answer


def test_header_of_1_mb_is_refused(raw):
    with contextlib.closing(socket.create_connection(("127.0.0.1", raw.port))) as sock:
        sock.settimeout(20)
        sock.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n")
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            for _ in range(1000):
                sock.sendall(b"X-Filler: " + b"a" * 1014 + b"\r\n")
        answer = sock.recv(4096)
    assert b" 431 " in answer.split(b"\r\n")[0]


STREAMED = json.dumps(
    {"messages": [{"role": "user", "content": "Tell me a long story"}], "stream": True}
).encode()
WHOLE = b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n%b" % (
    len(STREAMED), STREAMED,
)  # fmt: skip


@pytest.mark.parametrize(
    ("sent", "read"),
    [
        pytest.param(b"", 0, id="before a byte"),
        pytest.param(WHOLE[:20], 0, id="in the head"),
        pytest.param(WHOLE[:-10], 0, id="in the body"),
        pytest.param(WHOLE, 0, id="before the answer"),
        pytest.param(WHOLE, 200, id="in the answer"),
    ],
)
def test_client_that_hangs_up_leaves_nothing_behind(raw, sent, read):
    ask(raw.port, PROMPT)
    for _ in range(5):
        with contextlib.closing(socket.create_connection(("127.0.0.1", raw.port))) as sock:
            sock.settimeout(20)
            sock.sendall(sent)
            if read:
                sock.recv(read)
    raw.wait_for(lambda s: all(p["in_flight"] == p["queued"] == 0 for p in s["profiles"]))
    assert ask(raw.port, PROMPT)["content"] == ANSWER
    assert raw.profile("raw")["loads"] == 1


def test_client_that_stops_in_mid_request_hinders_nobody(raw):
    with contextlib.closing(socket.create_connection(("127.0.0.1", raw.port))) as half:
        half.sendall(WHOLE[:-10])
        assert ask(raw.port, PROMPT)["content"] == ANSWER


def test_client_that_hangs_up_while_it_waits_gives_its_load_up(demo_models, start):
    (port,) = free_ports(1)
    daemon = start(
        {
            "budget": "4GiB", "gateway": None, "patience": "100ms", "warm_spare": False,
            "models_dirs": [str(demo_models)],
            "profiles": {"chat": {"engine": "mlx", "model": "tiny-mlx-4bit", "port": port}},
        }
    )  # fmt: skip
    with contextlib.closing(socket.create_connection(("127.0.0.1", port))) as sock:
        sock.sendall(WHOLE)
        daemon.wait_for(lambda s: s["profiles"][0]["state"] == "loading")
    daemon.wait_for(lambda s: s["profiles"][0]["state"] == "unloaded")
    events = daemon.ctl("--json", "events").stdout
    assert "load.abandoned" in events


def test_status_answers_in_time_for_a_person(raw):
    started = time.monotonic()
    assert raw.ctl("status").returncode == 0
    assert time.monotonic() - started < 5, "it hung; `make bench` measures how long it takes"


def test_files_and_sockets_are_private(raw):
    for path in (raw.socket, *(raw.directory / "log").iterdir()):
        assert path.stat().st_mode & 0o077 == 0, path
    assert raw.socket.parent.stat().st_mode & 0o077 == 0
    assert ROOT not in raw.socket.parents
