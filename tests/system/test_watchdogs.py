"""Engines that hang, with `stall_timeout` as short as it may be: replaced, and told why."""

import concurrent.futures
import contextlib
import http.client
import json
import os
import signal

import psutil
import pytest

from tests.system.conftest import demo_config, running
from tests.system.running import GOOD, free_ports, request, unruly


COMPLETIONS = "/v1/completions"
ENDS = ("1015", "1017")
"""The tokens at which the demo model stops."""
ENDLESS = {
    "prompt": "a", "max_tokens": 30_000, "stream": True, "temperature": 0,
    "logit_bias": dict.fromkeys(ENDS, -100),
}  # fmt: skip
SHORT = {"prompt": "a", "max_tokens": 1}


@pytest.fixture(scope="module")
def llmd(demo_models):
    """A daemon with the demo model on both engines, and an engine that hangs when it is told to."""
    config, ports = demo_config(demo_models)
    patient = {"context": 32768, "parallel": 1, "stall_timeout": "2s"}
    profiles = {name: config["profiles"][name] | patient for name in ("code", "reason")}
    (odd,) = free_ports(1)
    profiles["odd"] = unruly(odd, stall_timeout="2s", parallel=4)
    config |= {"profiles": profiles, "warm_spare": False}
    with running(config) as daemon:
        daemon.ports_of = {"code": ports[8081], "reason": ports[8084], "odd": odd}
        yield daemon


@contextlib.contextmanager
def streaming(port, body, path=COMPLETIONS):
    """An answer whose first event has come."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    with contextlib.closing(connection):
        headers = {"Content-Type": "application/json"}
        connection.request("POST", path, json.dumps(body), headers)
        response = connection.getresponse()
        assert response.status == 200
        while not response.readline().startswith(b"data: {"):
            pass
        yield response


def error_at_the_end(stream):
    """The error that ends *stream* in place of `[DONE]`."""
    assert b"[DONE]" not in stream
    last = stream.strip().rpartition(b"data: ")[2]
    return json.loads(last)["error"]


def stalls(llmd, profile):
    events = json.loads(llmd.ctl("--json", "events").stdout)
    return [e for e in events["events"] if e["name"] == "host.stalled" and e["profile"] == profile]


@pytest.mark.parametrize("profile", ["code", "reason"])
def test_engine_stopped_in_mid_stream_is_replaced_and_who_waits_is_served(llmd, profile):
    port = llmd.ports_of[profile]
    with streaming(port, ENDLESS) as response, concurrent.futures.ThreadPoolExecutor(1) as pool:
        host = llmd.profile(profile)["host_pid"]
        os.kill(host, signal.SIGSTOP)
        waiting = pool.submit(request, port, path=COMPLETIONS, body=SHORT)
        error = error_at_the_end(response.read())
        assert waiting.result()[0] == 200
    assert error["code"] == "engine_died"
    assert "it stopped answering: no token and no work for" in error["message"]
    assert "last log lines" in error["message"]
    assert "`stall_timeout`" in error["remedy"]
    assert not psutil.pid_exists(host)
    (stall,) = stalls(llmd, profile)
    assert stall["silent_s"] >= 2
    assert stall["in_flight"] == 1
    assert stall["bytes"] > 0


def test_server_that_hangs_in_its_answer_or_before_it_is_replaced(llmd):
    port = llmd.ports_of["odd"]
    hanging = {**GOOD, "stream": True, "unruly": {"hang": True}}
    silent = {**GOOD, "unruly": {"silent": True}}
    with (
        streaming(port, hanging, "/v1/chat/completions") as response,
        concurrent.futures.ThreadPoolExecutor(1) as pool,
    ):
        mute = pool.submit(request, port, body=silent)
        assert error_at_the_end(response.read())["code"] == "engine_died"
        status, _, body = mute.result()
    assert status == 502
    assert "it stopped answering" in json.loads(body)["error"]["message"]
    assert request(port, body=GOOD)[0] == 200


def test_idle_host_that_answers_nothing_any_more_is_replaced(llmd):
    port = llmd.ports_of["reason"]
    assert request(port, path=COMPLETIONS, body=SHORT)[0] == 200
    host = llmd.profile("reason")["host_pid"]
    os.kill(host, signal.SIGSTOP)
    llmd.wait_for(lambda _: llmd.profile("reason")["host_pid"] != host)
    assert "silent on its control socket" in llmd.profile("reason")["last_error"]
    assert request(port, path=COMPLETIONS, body=SHORT)[0] == 200


def test_long_prompt_is_no_hang(llmd):
    """Both take several times the timeout, the longest piece of the prompt included."""
    prompts = {"code": "a b c d " * 300, "reason": "the quick brown fox " * 400}
    before = {name: len(stalls(llmd, name)) for name in prompts}
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        asked = [
            pool.submit(
                request, llmd.ports_of[name], path=COMPLETIONS, body={**SHORT, "prompt": prompt}
            )
            for name, prompt in prompts.items()
        ]
        assert [each.result()[0] for each in asked] == [200, 200]
    assert {name: len(stalls(llmd, name)) for name in prompts} == before
