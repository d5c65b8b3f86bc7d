"""`llmd-ctl restart`: the same process starts anew, and nobody notices."""

import concurrent.futures
import http.client
import json
import signal
import socket
import threading

import psutil
import pytest

from tests.lessons import FRANCE
from tests.system.running import GOOD, alive, ask, free_ports, lay_out, request, unruly


PROMPT, ANSWER = FRANCE


@pytest.fixture
def one(start):
    """A daemon with one engine in use, and its port."""
    (port,) = free_ports(1)
    daemon = start(lay_out({"a": unruly(port)}))
    assert request(port, body=GOOD)[0] == 200
    return daemon, port


def restart(daemon):
    done = daemon.ctl("--json", "restart")
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout)


def chat(connection, **fields):
    """One request on a connection that is kept; its status."""
    connection.request("POST", "/v1/chat/completions", json.dumps({**GOOD, **fields}))
    response = connection.getresponse()
    response.read()
    return response.status


def test_process_and_models_stay(one):
    daemon, _ = one
    before = daemon.profile("a")
    report = restart(daemon)
    assert (report["pid"], report["restarts"]) == (daemon.process.pid, 1)
    after = daemon.profile("a")
    kept = ("host_pid", "loads", "state", "requests")
    assert {key: after[key] for key in kept} == {key: before[key] for key in kept}
    assert daemon.status()["restarts"] == 1


def test_message_says_what_stayed(one):
    daemon, _ = one
    done = daemon.ctl("restart")
    assert done.stdout == f"llmd 0.1.0 (pid {daemon.process.pid}) has restarted; a stayed loaded\n"


def test_kept_connections_outlive_any_number_of_restarts(one):
    daemon, port = one
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    silent = socket.create_connection(("127.0.0.1", port))
    half = socket.create_connection(("127.0.0.1", port))
    half.sendall(b"GET /health HT")
    assert chat(connection) == 200
    address = connection.sock.getsockname()
    for _ in range(3):
        restart(daemon)
        assert chat(connection) == 200
    assert connection.sock.getsockname() == address
    half.sendall(b"TP/1.1\r\nHost: localhost\r\n\r\n")
    silent.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
    for sock in (half, silent):
        sock.settimeout(10)
        assert sock.recv(65536).startswith(b"HTTP/1.1 200")
        sock.close()
    connection.close()


def test_connections_made_meanwhile_wait(one):
    daemon, port = one
    over = threading.Event()
    refused = []

    def client():
        asked = 0
        while not over.is_set():
            try:
                assert request(port, body=GOOD)[0] == 200
            except OSError as error:
                refused.append(error)
            asked += 1
        return asked

    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        clients = [pool.submit(client) for _ in range(4)]
        for _ in range(2):
            restart(daemon)
        over.set()
        assert min(done.result() for done in clients) > 2
    assert not refused
    assert daemon.profile("a")["loads"] == 1


def test_stream_in_flight_is_finished_first(one):
    daemon, port = one
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    body = {**GOOD, "stream": True, "unruly": {"chunks": 40, "chunk_delay": 0.05}}
    connection.request("POST", "/v1/chat/completions", json.dumps(body))
    response = connection.getresponse()
    first = response.read(20)
    restart(daemon)
    text = first + response.read()
    assert text.rstrip().endswith(b"data: [DONE]")
    assert text.count(b"data: ") > 40
    connection.close()


def test_stream_that_takes_too_long_ends_with_an_error_event(start):
    (port,) = free_ports(1)
    daemon = start(lay_out({"a": unruly(port)}, drain_timeout="1s"))
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    body = {**GOOD, "stream": True, "unruly": {"chunks": 1000, "chunk_delay": 0.05}}
    connection.request("POST", "/v1/chat/completions", json.dumps(body))
    response = connection.getresponse()
    restart(daemon)
    text = response.read()
    assert b"shutting_down" in text
    assert b"[DONE]" not in text
    assert request(port, body=GOOD)[0] == 200
    connection.close()


def test_configuration_that_became_bad_refuses_the_restart_and_breaks_nothing(one):
    daemon, port = one
    good = daemon.config_file.read_text()
    daemon.write_config("profiles: {a: {engine: mxl}}\nwatch_config: false\n")
    done = daemon.ctl("restart")
    assert done.returncode == 1
    assert "would not start again" in done.stderr
    assert "mxl" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert request(port, body=GOOD)[0] == 200
    daemon.write_config(good)
    assert restart(daemon)["restarts"] == 1


def test_changed_configuration_is_in_force_afterwards(one):
    daemon, port = one
    (other,) = free_ports(1)
    daemon.write_config(lay_out({"a": unruly(port), "b": unruly(other)}, watch_config=False))
    restart(daemon)
    assert request(other, body=GOOD)[0] == 200
    assert daemon.profile("a")["loads"] == 1


def test_configuration_broken_after_its_check_does_not_end_the_daemon(one):
    daemon, port = one
    good = daemon.config_file.read_text()
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    body = {**GOOD, "stream": True, "unruly": {"chunks": 20, "chunk_delay": 0.05}}
    connection.request("POST", "/v1/chat/completions", json.dumps(body))
    response = connection.getresponse()
    assert daemon.admin("POST", "/v1/restart")[0] == 202  # it was checked, and waits for the stream
    daemon.write_config("profiles: [")
    assert response.read().rstrip().endswith(b"data: [DONE]")
    connection.close()
    assert request(port, body=GOOD)[0] == 200
    status = daemon.wait_for(lambda status: status["restarts"] == 1)
    assert status["profiles"][0]["loads"] == 1
    assert status["config_error"].startswith("the last good configuration is in use")
    assert "the last good configuration" in daemon.ctl("status").stdout
    assert "uses an older configuration" in daemon.ctl("doctor").stdout
    assert "config.refused" in daemon.ctl("events").stdout
    daemon.write_config(good)
    daemon.wait_for(lambda status: status["config_error"] is None)


def test_restart_without_a_daemon_says_so(one):
    daemon, _ = one
    done = daemon.ctl("--socket", str(daemon.directory / "no.sock"), "restart")
    assert done.returncode == 3


def test_stop_during_a_restart_wins(one):
    daemon, port = one
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    body = {**GOOD, "stream": True, "unruly": {"chunks": 60, "chunk_delay": 0.05}}
    connection.request("POST", "/v1/chat/completions", json.dumps(body))
    connection.getresponse().read(10)
    assert daemon.admin("POST", "/v1/restart")[0] == 202
    assert daemon.status()["stopping"]
    hosts = daemon.host_pids()
    daemon.ctl("stop", "--no-wait")
    assert daemon.process.wait(20) == 0
    assert not alive(hosts)
    connection.close()


def test_descriptors_do_not_grow_with_restarts(one):
    daemon, port = one

    def descriptors():
        request(port, body=GOOD)
        return psutil.Process(daemon.process.pid).num_fds()

    restart(daemon)
    before = descriptors()
    for _ in range(3):
        restart(daemon)
    assert descriptors() <= before + 1


def test_real_models_stay_through_a_restart(start, demo_models):
    mlx, gguf = free_ports(2)
    daemon = start(
        {
            "budget": "1700MiB", "gateway": None, "models_dirs": [str(demo_models)],
            "profiles": {
                "code": {"engine": "mlx", "model": "tiny-mlx", "port": mlx},
                "raw": {
                    "engine": "llama.cpp", "model": "tiny-q8_0.gguf", "port": gguf,
                    "args": ["--threads", "1"],
                },
            },
        }
    )  # fmt: skip
    for port in (mlx, gguf):
        assert ask(port, PROMPT)["content"] == ANSWER
    restart(daemon)
    for port in (mlx, gguf):
        assert ask(port, PROMPT)["content"] == ANSWER
    assert [profile["loads"] for profile in daemon.status()["profiles"]] == [1, 1]


def test_terminal_daemon_that_is_told_to_end_unloads_everything(one):
    daemon, _ = one
    hosts = daemon.host_pids()
    daemon.process.send_signal(signal.SIGTERM)
    assert daemon.process.wait(20) == 0
    assert not alive(hosts)
    assert not list((daemon.directory / "state").glob("ledger-*"))
