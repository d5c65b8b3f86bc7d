"""The admin API over its real socket, as curl would speak to it."""

import http.client
import json
import os
import socket

import pytest

from llmd.errors import LoadFailedError, QueueFullError
from tests.admin.fake_operator import served


class Raw(http.client.HTTPConnection):
    def __init__(self, path):
        super().__init__("localhost", timeout=10)
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(10)
        self.sock.connect(os.fspath(self.path))


@pytest.fixture
def ask(server):
    def ask(method, path, body=None, **headers):
        connection = Raw(server.path)
        headers = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request(method, path, body, headers)
        response = connection.getresponse()
        text = response.read()
        connection.close()
        return response, text

    return ask


def test_status_has_what_the_design_promises(ask, server):
    response, text = ask("GET", "/v1/status")
    status = json.loads(text)
    assert response.status == 200
    assert response.headers["X-LLMD-Version"] == "0.1.0"
    assert response.headers["X-Request-Id"].startswith("adm_")
    assert {"version", "pid", "uptime_s", "budget", "ports", "profiles"} <= status.keys()
    assert status["budget"].keys() == {"total_bytes", "used_bytes", "free_bytes", "peak_bytes"}
    port = next(port for port in status["ports"] if port["port"] == 8081)
    assert {
        "profile": "code",
        "state": "ready",
        "in_flight": 0,
        "queued": 0,
    }.items() <= port.items()
    assert {
        "name", "engine", "port", "state", "footprint_bytes", "estimated_bytes", "measured_bytes",
        "pinned", "in_flight", "queued", "idle_s", "host_pid", "loads", "evictions", "last_error",
    } <= status["profiles"][0].keys()  # fmt: skip


def test_each_profile_is_listed(ask, server):
    listed = json.loads(ask("GET", "/v1/profiles")[1])["profiles"]
    assert [profile["name"] for profile in listed] == ["code", "code6", "chat", "raw"]


def test_load_answers_once_it_is_done(ask, server):
    response, text = ask("POST", "/v1/profiles/code6/load")
    assert (response.status, response.headers["Content-Type"]) == (200, "application/json")
    assert json.loads(text) == {
        "profile": "code6",
        "changed": True,
        "evicted": ["code"],
        "seconds": 12.34,
        "footprint_bytes": 26 * 2**30,
        "port": 8081,
    }


@pytest.mark.parametrize(
    ("body", "pin", "ttl_s"),
    [
        pytest.param("", False, None, id="no body"),
        pytest.param("{}", False, None, id="nothing asked for"),
        pytest.param('{"pin": true}', True, None, id="pinned"),
        pytest.param('{"ttl_s": 90}', False, 90.0, id="for so long"),
        pytest.param('{"ttl_s": "never"}', False, float("inf"), id="for ever"),
        pytest.param('{"ttl_s": null}', False, None, id="as configured"),
    ],
)
def test_load_options_arrive(ask, server, body, pin, ttl_s):
    assert ask("POST", "/v1/profiles/code/load", body)[0].status == 200
    assert server.operator.calls == [("load", "code", pin, ttl_s)]


def test_alias_stands_for_its_profile(ask, server):
    ask("POST", "/v1/profiles/coder/load")
    assert server.operator.calls[0][1] == "code"


def test_followed_load_tells_its_progress(ask, server):
    server.operator.stages = [("evicting code", None), ("weights", 0.25), ("weights", 1.0)]
    response, text = ask("POST", "/v1/profiles/code6/load", Accept="application/x-ndjson")
    lines = [json.loads(line) for line in text.splitlines()]
    assert response.headers["Content-Type"].startswith("application/x-ndjson")
    assert [line["event"] for line in lines] == ["progress", "progress", "done"]
    assert (lines[0]["stage"], lines[0]["fraction"]) == ("evicting code", None)
    assert lines[1]["fraction"] == 1.0, "only the newest of a stage is kept for a slow reader"
    assert lines[-1]["report"]["profile"] == "code6"


def test_followed_load_that_fails_ends_with_the_error(ask, server):
    server.operator.fail["raw"] = LoadFailedError("raw exited with status 1", remedy="mend it")
    response, text = ask("POST", "/v1/profiles/raw/load", Accept="application/x-ndjson")
    last = json.loads(text.splitlines()[-1])
    assert response.status == 200
    assert last["event"] == "error"
    assert (last["error"]["code"], last["error"]["remedy"]) == ("load_failed", "mend it")


@pytest.mark.parametrize("accept", ["application/json", "application/x-ndjson"])
def test_load_goes_on_when_its_client_hangs_up(ask, server, accept):
    server.hold("code6")
    connection = Raw(server.path)
    connection.request("POST", "/v1/profiles/code6/load", headers={"Accept": accept})
    server.wait_for("load code6 began")
    connection.close()
    assert ask("GET", "/v1/status")[0].status == 200
    server.release("code6")
    server.wait_for("load code6 ended")
    assert server.operator.by_name["code6"].state == "ready"


def test_unload_pin_plan_and_reload(ask, server):
    assert json.loads(ask("POST", "/v1/profiles/chat/pin")[1]) == {
        "profile": "chat",
        "pinned": True,
    }
    assert json.loads(ask("POST", "/v1/profiles/chat/unpin")[1])["pinned"] is False
    assert json.loads(ask("POST", "/v1/profiles/chat/unload")[1])["unloaded"] == ["chat"]
    assert json.loads(ask("POST", "/v1/unload")[1])["unloaded"] == ["code"]
    assert json.loads(ask("GET", "/v1/profiles/code6/plan")[1])["evict"][0]["profile"] == "code"
    assert json.loads(ask("POST", "/v1/reload")[1])["added"] == ["lab"]


def test_stop_answers_before_it_stops(ask, server):
    response, text = ask("POST", "/v1/stop")
    assert (response.status, json.loads(text)) == (202, {"pid": os.getpid()})
    assert server.operator.calls == [("stop",)]


def test_metrics_are_prometheus_text(ask, server):
    response, text = ask("GET", "/metrics")
    assert response.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    lines = text.decode().splitlines()
    assert "llmd_budget_bytes 51539607552" in lines
    assert (
        'llmd_profile_footprint_bytes{profile="code",engine="mlx",port="8081"} 18468000000' in lines
    )
    assert (
        'llmd_profile_state{profile="raw",engine="llama.cpp",port="8083",state="failed"} 1' in lines
    )
    assert all(line.startswith("#") or len(line.rsplit(" ", 1)) == 2 for line in lines)


@pytest.mark.parametrize(
    "case",
    [
        pytest.param(
            ("GET /v1/nope", None, 404, "invalid_request", "there is no /v1/nope"),
            id="no such path",
        ),
        pytest.param(
            ("PUT /v1/status", None, 405, "invalid_request", "does not answer PUT"),
            id="wrong method",
        ),
        pytest.param(
            ("GET /v1/profiles/code/load", None, 405, "invalid_request", "use POST"),
            id="a command is no GET",
        ),
        pytest.param(
            (
                "POST /v1/profiles/cod/load",
                None,
                404,
                "model_not_found",
                "did you mean code? profiles: code, code6, chat, raw",
            ),
            id="unknown profile, nearest named",
        ),
        pytest.param(
            (
                "POST /v1/profiles/zzz/load",
                None,
                404,
                "model_not_found",
                "(profiles: code, code6, chat, raw)",
            ),
            id="unknown profile, nothing near",
        ),
        pytest.param(
            (
                "GET /v1/profiles/%2e%2e%2fx/plan",
                None,
                404,
                "model_not_found",
                "no profile is called '../x'",
            ),
            id="name is no path",
        ),
        pytest.param(
            ("POST /v1/profiles/code/load", "{", 400, "invalid_request", "the body is no JSON"),
            id="bad JSON",
        ),
        pytest.param(
            ("POST /v1/profiles/code/load", "ÿ", 400, "invalid_request", "the body"), id="not UTF-8"
        ),
        pytest.param(
            ("POST /v1/profiles/code/load", "[]", 400, "invalid_request", "does not fit"),
            id="JSON of another shape",
        ),
        pytest.param(
            (
                "POST /v1/profiles/code/load",
                '{"pim": true}',
                400,
                "invalid_request",
                "unknown field `pim`",
            ),
            id="unknown field",
        ),
        pytest.param(
            ("POST /v1/profiles/code/load", '{"ttl_s": "soon"}', 400, "invalid_request", "$.ttl_s"),
            id="no such duration",
        ),
        pytest.param(
            ("POST /v1/profiles/code/load", '{"ttl_s": -1}', 400, "invalid_request", "more than 0"),
            id="negative duration",
        ),
        pytest.param(
            (
                "POST /v1/profiles/code/unload",
                '{"now": 1}',
                400,
                "invalid_request",
                "unknown field `now`",
            ),
            id="unload has no options",
        ),
        pytest.param(
            ("POST /v1/stop", "x" * 70_000, 413, "too_large", "larger than 65536"), id="huge body"
        ),
        pytest.param(
            ("GET /v1/events?follow=maybe", None, 400, "invalid_request", "`follow` is 0 or 1"),
            id="no such flag",
        ),
        pytest.param(
            ("GET /v1/events?lines=-1", None, 400, "invalid_request", "`lines` is a number"),
            id="negative lines",
        ),
        pytest.param(
            ("GET /v1/events?lines=%D9%A4", None, 400, "invalid_request", "`lines` is a number"),
            id="other digits",
        ),
        pytest.param(
            ("GET /v1/logs?tail=5", None, 400, "invalid_request", "no parameter is called 'tail'"),
            id="unknown parameter",
        ),
    ],
)
def test_bad_request_is_told_what_is_wrong(ask, server, case):
    request, body, status, code, words = case
    method, path = request.split()
    response, text = ask(method, path, body.encode("latin-1") if body else None)
    error = json.loads(text)["error"]
    assert (response.status, error["code"]) == (status, code)
    assert error.keys() == {"message", "type", "code", "param", "remedy"}
    assert words in error["message"]
    assert server.operator.calls == []


@pytest.mark.parametrize(
    ("header", "value"),
    [
        pytest.param("Origin", "http://localhost:3000", id="Origin"),
        pytest.param("Origin", "null", id="opaque Origin"),
        pytest.param("Referer", "http://localhost/", id="Referer"),
        pytest.param("Sec-Fetch-Site", "same-origin", id="Sec-Fetch"),
        pytest.param("sec-fetch-mode", "cors", id="lower case"),
        pytest.param("Host", "evil.example", id="a foreign Host"),
        pytest.param("Host", "localhost.evil.example:80", id="a Host that begins well"),
    ],
)
def test_browser_is_no_administrator(ask, server, header, value):
    response, text = ask("POST", "/v1/stop", **{header: value})
    assert response.status == 403
    assert json.loads(text)["error"]["code"] == "forbidden_origin"
    assert server.operator.calls == []


@pytest.mark.parametrize(
    "host", ["localhost", "localhost:80", "LLMD", "127.0.0.1", "[::1]:8080", "."]
)
def test_any_local_host_name_will_do(ask, server, host):
    assert ask("GET", "/v1/status", Host=host)[0].status == 200


def test_other_users_are_refused(short_dir):
    with served(short_dir / "s", uid=os.getuid() + 1) as server:
        connection = Raw(server.path)
        connection.request("POST", "/v1/stop")
        response = connection.getresponse()
        error = json.loads(response.read())["error"]
        connection.close()
        assert (response.status, error["code"]) == (401, "unauthorized")
        assert server.operator.calls == []


def test_errors_carry_their_own_status_and_retry(ask, server):
    server.operator.fail["chat"] = QueueFullError("chat", limit=64)
    response, text = ask("POST", "/v1/profiles/chat/unload")
    assert (response.status, response.headers["Retry-After"]) == (429, "5")
    assert json.loads(text)["error"]["code"] == "queue_full"


def test_bug_is_a_numbered_500_without_its_traceback(ask, server):
    server.operator.fail["status"] = KeyError("secret detail")
    response, text = ask("GET", "/v1/status")
    error = json.loads(text)["error"]
    assert (response.status, error["code"]) == (500, "internal_error")
    assert response.headers["X-Request-Id"] in error["message"]
    assert b"secret" not in text
    del server.operator.fail["status"]
    assert ask("GET", "/v1/status")[0].status == 200, "the server goes on"


@pytest.mark.parametrize("accept", ["application/json", "application/x-ndjson"])
def test_bug_in_a_command_does_not_end_the_server(ask, server, accept):
    server.operator.fail["code6"] = ValueError("secret detail")
    _, text = ask("POST", "/v1/profiles/code6/load", Accept=accept)
    assert b"internal_error" in text
    assert b"secret" not in text
    assert ask("GET", "/v1/status")[0].status == 200


def test_events_are_one_object_per_line(ask, server):
    for number in range(5):
        server.operator.event_log.record("host.started", {"host": number})
    _, text = ask("GET", "/v1/events?lines=2")
    records = [json.loads(line) for line in text.splitlines()]
    assert [record["host"] for record in records] == [3, 4]
    assert records[0].keys() == {"time", "name", "host"}


def test_follower_hears_what_comes_and_is_forgotten_when_it_leaves(server):
    server.operator.event_log.record("host.started", {"host": 1})
    connection = Raw(server.path)
    connection.request("GET", "/v1/events?follow=1&lines=1")
    response = connection.getresponse()
    assert json.loads(response.readline())["host"] == 1
    server.call(lambda: server.operator.event_log.record("host.started", {"host": 2}))
    assert json.loads(response.readline())["host"] == 2
    response.close()
    connection.close()
    server.wait_for("follower left")


def test_follower_is_connected_before_anything_happens(server):
    connection = Raw(server.path)
    connection.request("GET", "/v1/logs?follow=1")
    assert connection.getresponse().status == 200
    connection.close()
    server.wait_for("follower left")


def test_closing_server_ends_streams_properly(server):
    connection = Raw(server.path)
    connection.request("GET", "/v1/logs?follow=1")
    response = connection.getresponse()
    server.operator.line_log.write("last words")
    assert response.readline() == b"last words\n"
    server.close()
    assert response.read() == b"", "the last chunk came: no IncompleteRead"
    connection.close()


def test_closing_server_cancels_a_load_that_hangs(server):
    server.hold("code6")
    connection = Raw(server.path)
    connection.request(
        "POST", "/v1/profiles/code6/load", headers={"Accept": "application/x-ndjson"}
    )
    response = connection.getresponse()
    server.wait_for("load code6 began")
    server.close()
    lines = response.read().splitlines()
    assert all(json.loads(line)["event"] == "progress" for line in lines)
    connection.close()


def test_log_of_a_profile_fails_in_its_last_line(ask, server):
    server.operator.fail["raw"] = LoadFailedError("raw has no log yet")
    response, text = ask("GET", "/v1/profiles/raw/logs")
    assert response.status == 200
    assert json.loads(text.splitlines()[-1])["error"]["code"] == "load_failed"
