"""Engines that die, hang or refuse to go: what their clients see, and that others see nothing."""

import concurrent.futures
import contextlib
import http.client
import json
import os
import signal

import psutil
import pytest

from tests.system.running import GOOD, free_ports, lay_out, request, unruly


def error_of(answer):
    return json.loads(answer[2])["error"]


def test_engine_deaf_to_sigterm_delays_nobody_elses_ready_model(start):
    """Failure 2."""
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


@contextlib.contextmanager
def hung_in_mid_answer(daemon, port):
    """A client that waits for the rest of an answer of profile `a`."""
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        body = {**GOOD, "model": "a", "stream": True, "unruly": {"hang": True}}
        asked = pool.submit(request, port, body=body)
        daemon.wait_for(lambda s: s["profiles"][0]["in_flight"] == 1)
        try:
            yield
            assert not asked.done(), "it was to hang all along"
        finally:
            for process in psutil.Process(daemon.profile("a")["host_pid"]).children():
                process.kill()
        assert b"engine_died" in asked.result()[2]


@contextlib.contextmanager
def hung_while_loading(daemon, port):
    """A client of profile `a` whose load never ends."""
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        asked = pool.submit(request, port, body={**GOOD, "model": "unready"})
        daemon.wait_for(lambda s: s["profiles"][1]["state"] == "loading")
        yield
        assert not asked.done(), "it was to hang all along"
        assert daemon.ctl("unload", "unready").returncode == 0
        assert asked.result()[0] >= 500


@contextlib.contextmanager
def stopped_in_mid_answer(daemon, port):
    """A whole host that the system does not let run any more, with a client that waits for it."""
    with hung_in_mid_answer(daemon, port):
        host = daemon.profile("a")["host_pid"]
        os.kill(host, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(host, signal.SIGCONT)


@pytest.mark.parametrize("hanging", [hung_in_mid_answer, hung_while_loading, stopped_in_mid_answer])
def test_hung_engine_hinders_no_load_on_another_port(start, hanging):
    """Failure 3; the hung one itself is ended by its administrator."""
    ports = free_ports(3)
    daemon = start(
        lay_out(
            {
                "a": unruly(ports[0]),
                "unready": unruly(ports[0], "--never-ready"),
                "b": unruly(ports[1]),
                "c": unruly(ports[2]),
            }
        )
    )
    with hanging(daemon, ports[0]):
        for _ in range(3):  # room for one beside it: each load is a swap
            for port in ports[1:]:
                assert request(port, body=GOOD, timeout=60)[0] == 200
        assert (daemon.profile("b")["loads"], daemon.profile("c")["loads"]) == (3, 3)


def test_death_in_mid_stream_ends_with_an_error_event_and_without_done(start):
    """Failure 6."""
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


@pytest.mark.parametrize("fault", [{"crash_after": 3}, {"cut_after": 3}], ids=["crash", "cut"])
@pytest.mark.parametrize("framing", [{}, {"close_delimited": True}], ids=["chunked", "by closing"])
def test_answer_that_was_cut_is_never_taken_for_a_whole_one(start, fault, framing):
    """Failure 6, streamed and not: an error event, or a body that ends too early."""
    (port,) = free_ports(1)
    start(lay_out({"a": unruly(port)}))
    faults = {"chunks": 9, **fault, **framing}
    status, _, text = request(port, body={**GOOD, "stream": True, "unruly": faults})
    assert status == 200
    assert b"[DONE]" not in text
    assert json.loads(text.rstrip().split(b"data: ")[-1])["error"]["code"] == "engine_died"
    try:
        status, _, text = request(port, body={**GOOD, "unruly": faults})
    except http.client.IncompleteRead:
        return
    assert status == 502, text


def test_death_before_the_answer_is_a_502_that_says_why(start):
    """Failure 6: the reason is told, too."""
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


def test_helpers_of_an_engine_go_with_it(start):
    (port,) = free_ports(1)
    daemon = start(lay_out({"a": unruly(port, "--children", "3")}))
    request(port, body=GOOD)
    pids = daemon.host_pids()
    assert len(pids) >= 5
    assert daemon.ctl("unload", "a").returncode == 0
    left = [psutil.Process(pid) for pid in pids if psutil.pid_exists(pid)]
    assert [p for p in left if p.status() != psutil.STATUS_ZOMBIE] == []
