"""The typed client: what comes back, and what it makes of a daemon that is not there."""

import os
import socket
import threading
from contextlib import contextmanager

import pytest

from llmd.admin.client import AdminClient, AnsweredError, NoAnswerError
from llmd.errors import DaemonNotRunningError, LoadFailedError


def test_status_and_profiles_are_typed(client):
    status = client.status()
    assert status.budget.total_bytes == 48 * 2**30
    assert status.profiles == client.profiles()
    assert status.profiles[0].aliases == ("coder",)


def test_load_tells_progress_and_returns_the_report(client):
    told = []
    report = client.load("code6", progress=lambda stage, fraction: told.append((stage, fraction)))
    assert told == [("weights", 1.0)]
    assert (report.profile, report.changed, report.evicted) == ("code6", True, ("code",))


def test_load_for_ever_crosses_the_wire(client, server):
    client.load("code", pin=True, ttl_s=float("inf"))
    assert server.operator.calls == [("load", "code", True, float("inf"))]


def test_refusal_is_kept_word_for_word(client, server):
    original = LoadFailedError("raw exited with status 1", remedy="mend its path")
    server.operator.fail["raw"] = original
    with pytest.raises(AnsweredError) as caught:
        client.load("raw")
    assert caught.value.message == "raw exited with status 1"
    assert caught.value.remedy == "mend its path"
    assert caught.value.to_openai() == original.to_openai()


def test_name_with_odd_characters_stays_one_path_segment(client):
    with pytest.raises(AnsweredError, match=r"no profile is called 'a/b\?c#d%'"):
        client.plan("a/b?c#d%")


def test_other_version_is_told_once(server, monkeypatch):
    monkeypatch.setattr("llmd.__version__", "9.9")
    told = []
    client = AdminClient(server.path, on_version=told.append)
    monkeypatch.setattr("llmd.admin.client.llmd.__version__", "8.8")
    monkeypatch.setattr("llmd.admin.server.llmd", type("older", (), {"__version__": "7.7"}))
    client.status()
    client.status()
    assert told == ["7.7"]


def test_no_socket_is_advice(short_dir):
    with pytest.raises(DaemonNotRunningError, match="no llmd answers on") as caught:
        AdminClient(short_dir / "none").status()
    assert "llmd serve" in caught.value.remedy


def test_dead_socket_is_advice(short_dir):
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(os.fspath(short_dir / "s"))
    with pytest.raises(DaemonNotRunningError):
        AdminClient(short_dir / "s").status()


def test_long_path_is_named_as_the_reason(short_dir):
    with pytest.raises(NoAnswerError, match="longer than 103 bytes"):
        AdminClient(short_dir / ("x" * 120)).status()


@contextmanager
def impostor(path, answer):
    """Something that accepts one connection, reads a little, says *answer*, and hangs up."""

    def serve():
        peer, _ = listener.accept()
        with peer:
            peer.recv(65536)
            peer.sendall(answer)

    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(os.fspath(path))
        listener.listen()
        thread = threading.Thread(target=serve)
        thread.start()
        yield
        thread.join(10)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        pytest.param(b"", "ended the connection before", id="hangs up"),
        pytest.param(b"hello\r\n", "ended the connection before", id="no HTTP"),
        pytest.param(
            b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}", "not one of llmd", id="other JSON"
        ),
        pytest.param(
            b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{", "ended the connection", id="cut"
        ),
        pytest.param(
            b"HTTP/1.1 502 Bad\r\nContent-Length: 2\r\n\r\nno", "is not llmd", id="other error"
        ),
    ],
)
def test_nonsense_is_no_answer(short_dir, answer, words):
    with impostor(short_dir / "s", answer), pytest.raises(NoAnswerError, match=words):
        AdminClient(short_dir / "s").status()


def test_load_cut_off_by_the_daemons_end_is_an_error(short_dir):
    answer = (
        b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n"
        b'{"event":"progress","stage":"weights","fraction":0.5}\n'
    )
    with impostor(short_dir / "s", answer), pytest.raises(NoAnswerError, match="while it loaded"):
        AdminClient(short_dir / "s").load("code")


def test_deaf_daemon_is_given_up(short_dir, monkeypatch):
    path = short_dir / "s"
    with socket.socket(socket.AF_UNIX) as deaf:
        deaf.bind(os.fspath(path))
        deaf.listen()
        client = AdminClient(path)
        with pytest.raises(NoAnswerError, match="did not answer within"):
            client._ask("GET", "/v1/status", dict, timeout_s=0.05)


def test_events_and_logs_are_iterators(client, server):
    server.operator.event_log.record("host.started", {"host": 7})
    server.operator.line_log.write("first")
    server.operator.line_log.write("second")
    assert [record["host"] for record in client.events()] == [7]
    assert list(client.logs()) == ["first", "second"]
    assert list(client.logs("code", lines=1)) == ["code: second"]


def test_closing_a_stream_hangs_up(client, server):
    server.operator.line_log.write("first")
    lines = client.logs(follow=True)
    assert next(lines) == "first"
    lines.close()
    server.wait_for("follower left")


def test_unload_pin_plan_reload_stop_and_metrics(client, server):
    assert client.unload("chat").unloaded == ("chat",)
    assert client.unload_all().unloaded == ("code",)
    assert client.pin("code", pinned=True).pinned
    assert client.plan("raw").fits is False
    assert client.reload().added == ("lab",)
    assert client.stop().pid == os.getpid()
    assert "llmd_uptime_seconds 11534.0" in client.metrics()
