"""What the admin API refuses, and how it words a failure."""

import json
import os

import pytest

from llmd.errors import QueueFullError
from tests.admin.conftest import Raw
from tests.admin.fake_operator import served


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
            (f"GET /v1/logs?lines={'9' * 5000}", None, 400, "invalid_request", "`lines` is"),
            id="more lines than a number may have digits",
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
