"""Engines that misbehave, and what their clients and everybody else notice of it."""

import concurrent.futures
import http.client
import json

import psutil
import pytest

from tests.lessons import FRANCE
from tests.system.running import GOOD, ask, free_ports, lay_out, request, unruly


PROMPT, ANSWER = FRANCE


def error_of(answer):
    return json.loads(answer[2])["error"]


def test_crash_at_start_is_told_with_exit_code_and_log_and_backs_off(start):
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
    ports = free_ports(2)
    daemon = start(
        lay_out(
            {"good": unruly(ports[0]), "bad": unruly(ports[1], "--crash-at-start", "1")},
            budget="100MiB",
        )
    )
    for _ in range(4):
        request(ports[1], body=GOOD)
    request(ports[0], body=GOOD)
    for _ in range(3):
        assert request(ports[1], body=GOOD)[0] == 502
    good = daemon.profile("good")
    assert (good["state"], good["evictions"]) == ("ready", 0)


def test_death_in_mid_stream_ends_with_an_error_event_and_without_done(start):
    (port,) = free_ports(1)
    daemon = start(lay_out({"a": unruly(port)}))
    body = {**GOOD, "stream": True, "unruly": {"chunks": 9, "crash_after": 3, "crash_code": 9}}
    status, _, answer = request(port, body=body)
    assert status == 200
    events = [line for line in answer.split(b"\n\n") if line.startswith(b"data: ")]
    assert b"[DONE]" not in answer
    error = json.loads(events[-1].removeprefix(b"data: "))["error"]
    assert error["code"] == "engine_died"
    assert "exit code 9" in error["message"]
    assert request(port, body=GOOD)[0] == 200, "the next request gets a fresh engine"
    assert daemon.profile("a")["loads"] == 2


def test_death_before_the_answer_is_a_502_that_says_why(start):
    (port,) = free_ports(1)
    daemon = start(lay_out({"a": unruly(port)}))
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        asked = pool.submit(request, port, body={**GOOD, "unruly": {"silent": True}})
        daemon.wait_for(lambda s: s["profiles"][0]["in_flight"] == 1)
        engine = psutil.Process(daemon.profile("a")["host_pid"]).children()[0]
        engine.kill()
    answer = asked.result()
    assert answer[0] == 502
    assert error_of(answer)["code"] == "engine_died"
    assert "SIGKILL" in error_of(answer)["message"]


def test_engine_deaf_to_sigterm_delays_nobody_elses_ready_model(start):
    ports = free_ports(3)
    daemon = start(
        lay_out(
            {
                "deaf": unruly(ports[0], "--deaf"),
                "other": unruly(ports[0]),
                "ready": unruly(ports[1]),
            }
        )
    )
    request(ports[1], body=GOOD)
    request(ports[0], body={**GOOD, "model": "deaf"})
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        switched = pool.submit(request, ports[0], body={**GOOD, "model": "other"})
        daemon.wait_for(lambda s: s["profiles"][0]["state"] == "unloading")
        served = 0
        while not switched.done():
            assert request(ports[1], body=GOOD)[0] == 200
            served += 1
    assert switched.result()[0] == 200
    assert served > 3


def test_helpers_of_an_engine_go_with_it(start):
    (port,) = free_ports(1)
    daemon = start(lay_out({"a": unruly(port, "--children", "3")}))
    request(port, body=GOOD)
    pids = daemon.host_pids()
    assert len(pids) >= 5
    assert daemon.ctl("unload", "a").returncode == 0
    left = [psutil.Process(pid) for pid in pids if psutil.pid_exists(pid)]
    assert [p for p in left if p.status() != psutil.STATUS_ZOMBIE] == []


def test_load_that_takes_longer_than_its_timeout_fails_with_the_number(start):
    (port,) = free_ports(1)
    start(lay_out({"a": unruly(port, "--never-ready", load_timeout="1s")}))
    answer = request(port, body=GOOD)
    assert answer[0] == 502
    assert "load_timeout" in error_of(answer)["message"]


def test_growing_engine_is_charged_what_it_holds_and_idle_ones_make_room(start):
    ports = free_ports(2)
    daemon = start(
        lay_out(
            {
                "idle": unruly(ports[0], memory="80MiB"),
                "leaky": unruly(ports[1], "--leak", str(60 * 2**20), memory="80MiB"),
            }
        )
    )
    request(ports[0], body=GOOD)
    for _ in range(2):
        request(ports[1], body=GOOD)
    daemon.wait_for(lambda s: s["profiles"][1]["footprint_bytes"] > 120 * 2**20)
    daemon.wait_for(lambda s: s["profiles"][0]["state"] == "unloaded")
    assert "footprint.raised" in daemon.ctl("--json", "events").stdout


def test_client_that_leaves_stops_the_work_streamed_or_not(start):
    (port,) = free_ports(1)
    daemon = start(lay_out({"a": unruly(port)}))

    def engine(count):
        return json.loads(request(port, "GET", "/stats")[2])[count]

    for left, stream in enumerate((True, False)):
        body = {**GOOD, "stream": stream, "unruly": {"chunks": 1000, "chunk_delay": 0.05}}
        connection = http.client.HTTPConnection("127.0.0.1", port)
        connection.request("POST", "/v1/chat/completions", json.dumps(body))
        daemon.wait_for(lambda s: s["profiles"][0]["in_flight"] == 1)
        daemon.wait_for(lambda _: engine("in_flight") == 2)  # with this question; it has begun
        connection.close()
        daemon.wait_for(lambda s: s["profiles"][0]["in_flight"] == 0)
        daemon.wait_for(lambda _, left=left: engine("cancelled") == left + 1)


def test_reload_keeps_the_unchanged_and_replaces_the_changed(start):
    ports = free_ports(2)
    config = lay_out({"a": unruly(ports[0]), "b": unruly(ports[1])})
    daemon = start(config)
    for port in ports:
        request(port, body=GOOD)
    pid = daemon.profile("a")["host_pid"]
    config["profiles"]["b"]["cmd"] += ["--name", "other"]
    daemon.write_config(config)
    report = json.loads(daemon.ctl("--json", "reload").stdout)
    assert report["changed"] == ["b"]
    assert daemon.profile("a")["host_pid"] == pid
    assert request(ports[1], body=GOOD)[0] == 200
    assert (daemon.profile("a")["loads"], daemon.profile("b")["loads"]) == (1, 2)


def test_changed_file_is_read_without_being_told(start):
    ports = free_ports(2)
    config = lay_out({"a": unruly(ports[0])})
    daemon = start(config)
    config["profiles"]["b"] = unruly(ports[1])
    daemon.write_config(config)
    daemon.wait_for(lambda s: len(s["profiles"]) == 2)
    assert request(ports[1], body=GOOD)[0] == 200


def test_remote_profile_passes_on_and_costs_nothing(start, demo_models):
    far, near = free_ports(2)
    start(
        {
            "budget": "1GiB", "gateway": None, "models_dirs": [str(demo_models)],
            "profiles": {"raw": {"engine": "llama.cpp", "model": "tiny-q8_0.gguf", "port": far}},
        }
    )  # fmt: skip
    daemon = start(
        lay_out({"big": {"engine": "remote", "url": f"http://127.0.0.1:{far}/v1", "port": near}})
    )
    assert ask(near, PROMPT)["content"] == ANSWER
    assert daemon.status()["budget"]["used_bytes"] == 0


def test_remote_that_is_not_there_is_a_clear_error(start):
    far, near = free_ports(2)
    start(lay_out({"big": {"engine": "remote", "url": f"http://127.0.0.1:{far}", "port": near}}))
    answer = request(near, body=GOOD)
    assert answer[0] == 502
    assert error_of(answer)["code"] == "engine_died"


@pytest.mark.parametrize("how", ["stop", "SIGTERM"])
def test_stop_finishes_what_is_in_flight(start, how):
    (port,) = free_ports(1)
    daemon = start(lay_out({"a": unruly(port)}))
    request(port, body=GOOD)
    body = {**GOOD, "stream": True, "unruly": {"chunks": 20, "chunk_delay": 0.05}}
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        answer = pool.submit(request, port, body=body)
        daemon.wait_for(lambda s: s["profiles"][0]["in_flight"] == 1)
        if how == "stop":
            assert daemon.ctl("stop").returncode == 0
        else:
            daemon.process.terminate()
        assert b"[DONE]" in answer.result()[2]
    assert daemon.process.wait(20) == 0
