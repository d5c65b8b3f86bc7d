"""Loads that fail, that nobody waits for any more, or that need not be."""

import contextlib
import http.client
import json

from tests.system.running import GOOD, free_ports, lay_out, request, unruly


def error_of(answer):
    return json.loads(answer[2])["error"]


@contextlib.contextmanager
def asking(port, **fields):
    """A client that has asked and hangs up at the end, answered or not."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    with contextlib.closing(connection):
        body = json.dumps({**GOOD, **fields})
        connection.request("POST", "/v1/chat/completions", body)
        yield connection


def test_load_that_nobody_waits_for_holds_up_nobody(start):
    """Failure 8: the next one does not wait for a load that its client gave up."""
    ports = free_ports(2)
    profiles = {"endless": unruly(ports[0], "--never-ready"), "b": unruly(ports[1])}
    daemon = start(lay_out(profiles, budget="100MiB"))
    with asking(ports[0]):
        daemon.wait_for(lambda s: s["profiles"][0]["state"] == "loading")
    assert request(ports[1], body=GOOD, timeout=60)[0] == 200
    assert daemon.profile("endless")["state"] == "unloaded"


def test_client_that_asks_again_finds_the_load_of_its_first_try(start):
    """Failure 8: clients with a time limit hang up and repeat themselves."""
    (port,) = free_ports(1)
    daemon = start(lay_out({"slow": unruly(port, "--ready-delay", "2")}))
    with asking(port):
        daemon.wait_for(lambda s: s["profiles"][0]["host_pid"])
    host = daemon.profile("slow")["host_pid"]
    assert request(port, body=GOOD)[0] == 200
    slow = daemon.profile("slow")
    assert (slow["host_pid"], slow["loads"]) == (host, 1)


def test_model_that_got_ready_for_a_client_who_had_left_stays(start):
    """Failure 8: it counts as used when it got ready, not as idle for ever."""
    (port,) = free_ports(1)
    daemon = start(lay_out({"slow": unruly(port, "--ready-delay", "2", idle_ttl="30s")}))
    with asking(port):
        daemon.wait_for(lambda s: s["profiles"][0]["state"] == "loading")
    daemon.wait_for(lambda s: s["profiles"][0]["state"] == "ready")
    seen = daemon.wait_for(lambda s: s["profiles"][0]["idle_s"] > 1.5)
    assert seen["profiles"][0]["state"] == "ready"
    assert (request(port, body=GOOD)[0], daemon.profile("slow")["loads"]) == (200, 1)


def test_crash_at_start_is_told_with_exit_code_and_log_and_backs_off(start):
    """Failure 9."""
    (port,) = free_ports(1)
    words = "the cheese has run out"
    daemon = start(lay_out({"a": unruly(port, "--crash-at-start", "7", "--last-words", words)}))
    first = request(port, body=GOOD)
    assert first[0] == 502
    error = error_of(first)
    assert error["code"] == "load_failed"
    assert "exit code 7" in error["message"]
    assert words in error["message"]
    again = request(port, body=GOOD)
    assert again[0] == 502
    assert int(again[1]["Retry-After"]) >= 1
    profile = daemon.profile("a")
    assert profile["state"] == "failed"
    assert "exit code 7" in profile["last_error"]
    loaded = daemon.ctl("load", "a")
    assert loaded.returncode == 1
    assert words in loaded.stderr


def test_failing_profile_evicts_nobody_while_it_backs_off(start):
    """Failure 9."""
    ports = free_ports(2)
    daemon = start(
        lay_out(
            {"good": unruly(ports[0]), "bad": unruly(ports[1], "--crash-at-start", "1")},
            budget="100MiB",
        )
    )
    for _ in range(5):
        daemon.ctl("load", "bad")  # each a failure more, so that it backs off for 16 s
    request(ports[0], body=GOOD)
    for _ in range(3):
        assert request(ports[1], body=GOOD)[0] == 502
    good = daemon.profile("good")
    assert (good["state"], good["evictions"]) == ("ready", 0)


def test_load_that_takes_longer_than_its_timeout_fails_with_the_number(start):
    (port,) = free_ports(1)
    start(lay_out({"a": unruly(port, "--never-ready", load_timeout="1s")}))
    answer = request(port, body=GOOD)
    assert answer[0] == 502
    assert "load_timeout" in error_of(answer)["message"]


def health(port):
    status, _, body = request(port, "GET", "/health")
    return status, json.loads(body)


def test_health_is_that_of_the_next_request(start):
    """Failure 12: a port that can serve nobody says so, with the error that clients get."""
    first, second, gateway = free_ports(3)
    crashing = unruly(first, "--crash-at-start", "7")
    profiles = {"bad": crashing, "worse": {**crashing, "port": second}, "good": unruly(second)}
    start(lay_out(profiles, gateway={"port": gateway}))
    for port in (first, second, gateway):
        assert health(port) == (200, {**health(port)[1], "status": "ok", "ready": False})

    request(first, body=GOOD)
    status, document = health(first)
    assert (status, document["status"], document["ready"]) == (503, "failed", False)
    assert "exit code 7" in document["error"]["message"]

    request(second, body=GOOD)
    status, document = health(second)
    assert (status, document["status"]) == (200, "degraded")
    assert "exit code 7" in document["error"]["message"]

    assert request(second, body={**GOOD, "model": "good"})[0] == 200
    assert health(second) == (200, {**health(second)[1], "status": "ok", "ready": True})
    assert health(gateway) == (200, {"status": "ok", "state": "ready", "ready": True})


CHAT = "/v1/chat/completions"
WISHES = [
    (CHAT, {"model": "a", "max_tokens": 2}),
    (CHAT, {"model": "a", "max_tokens": 4, "n_ctx": 512, "num_ctx": 512}),
    (CHAT, {"model": "a", "options": {"num_ctx": 8192}, "keep_alive": 0}),
    ("/api/chat", {"model": "a", "stream": False, "options": {"num_ctx": 2048}}),
    ("/api/chat", {"model": "a:latest", "stream": False, "options": {"num_ctx": 16384}}),
    ("/api/chat", {"model": "a", "stream": False, "keep_alive": 0, "options": {"num_gpu": 1}}),
]


def test_clients_with_different_options_share_one_load(start):
    """Failure 13: what a model is loaded with is the profile's affair, whatever clients wish."""
    port, gateway = free_ports(2)
    daemon = start(lay_out({"a": unruly(port)}, gateway={"port": gateway}))
    for path, wish in WISHES * 2:
        status, _, answer = request(gateway, path=path, body={**GOOD, **wish})
        assert status == 200, answer
    for wanted in ("any", "gpt-9", "a"):
        assert request(port, body={**GOOD, "model": wanted})[0] == 200
    assert daemon.profile("a")["loads"] == 1
