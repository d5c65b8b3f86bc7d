"""The admin API over its real socket, as curl would speak to it."""

import asyncio
import json
import os

import pytest

from llmd.admin.server import AdminServer
from llmd.admin.socket import ControlSocket
from llmd.errors import LoadFailedError, ShuttingDownError
from tests.admin.conftest import Raw
from tests.admin.fake_operator import FakeOperator


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


async def test_error_of_the_body_comes_out_as_it_is(short_dir):
    server = AdminServer(FakeOperator(short_dir / "s"), ControlSocket(short_dir / "s"))
    with pytest.raises(KeyError, match="mine"):
        async with server:
            raise KeyError("mine")
    assert not server.path.exists()


async def test_closed_server_begins_nothing(short_dir):
    server = AdminServer(FakeOperator(short_dir / "s"), ControlSocket(short_dir / "s"))
    async with server:
        pass
    with pytest.raises(ShuttingDownError):
        server.begin(asyncio.sleep(0))
