"""Real engines that are killed in the middle of an answer: what their clients are told."""

import concurrent.futures
import json
import os
import resource
import signal

import psutil
import pytest

from tests.system.conftest import demo_config, running
from tests.system.running import request


@pytest.fixture(scope="module")
def llmd(demo_models):
    """A daemon with the demo model on both engines."""
    config, ports = demo_config(demo_models)
    config["profiles"] = {name: config["profiles"][name] for name in ("code", "reason")}
    config["warm_spare"] = False
    with running(config) as daemon:
        daemon.ports_of = {"code": ports[8081], "reason": ports[8084]}
        yield daemon


ASKED = {"messages": [{"role": "user", "content": "Count."}], "stream": True}


@pytest.mark.parametrize("profile", ["code", "reason"])
@pytest.mark.parametrize(
    ("number", "words", "cause"),
    [
        (signal.SIGKILL, "somebody killed it (SIGKILL); the system was not out of memory", "kill"),
        (signal.SIGABRT, "the engine gave itself up (SIGABRT)", "abort"),
        (signal.SIGSEGV, "it crashed (SIGSEGV)", "crash"),
    ],
)
def test_death_in_mid_answer_is_told_by_its_kind(llmd, profile, number, words, cause):
    port = llmd.ports_of[profile]
    assert llmd.ctl("load", profile).returncode == 0
    host = llmd.profile(profile)["host_pid"]
    os.kill(host, signal.SIGSTOP)  # so that the answer is certainly not over
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        asked = pool.submit(request, port, body=ASKED)
        llmd.wait_for(lambda _: llmd.profile(profile)["in_flight"] == 1)
        os.kill(host, number)
        os.kill(host, signal.SIGCONT)
        answer = asked.result()[2]
    assert b"[DONE]" not in answer
    error = json.loads(answer[answer.index(b"{") :])["error"]
    assert error["code"] == "engine_died"
    assert words in error["message"]
    assert words in llmd.profile(profile)["last_error"]
    died = json.loads(llmd.ctl("--json", "events").stdout)
    assert f'"cause": "{cause}"' in json.dumps(died)


METAL = "[METAL] Command buffer execution failed: Insufficient Memory"
"""What Metal prints before it aborts; no MLX on a CPU says it."""


def starve(llmd, profile):
    """Let the host of *profile* die of memory as far as this machine can."""
    host = llmd.profile(profile)["host_pid"]
    if profile == "code":
        with (llmd.directory / "log" / "code.log").open("a") as log:
            log.write(f"libc++abi: terminating due to uncaught exception: {METAL}\n")
        os.kill(host, signal.SIGABRT)
    else:
        # Not one page more than it has now: real code meets a real refusal.
        resource.prlimit(host, resource.RLIMIT_AS, (psutil.Process(host).memory_info().vms,) * 2)


@pytest.mark.parametrize(
    ("profile", "change"),
    [
        ("code", "prompt cache 32 MiB instead of 128 MiB"),
        ("reason", "prompt cache 16 MiB instead of 64 MiB"),
    ],
)
def test_profile_that_died_of_memory_goes_on_smaller_and_says_so(llmd, profile, change):
    port = llmd.ports_of[profile]
    assert llmd.ctl("load", profile).returncode == 0
    full = llmd.profile(profile)
    starve(llmd, profile)
    request(port, body=ASKED)  # may be the one that it dies of
    assert b"[DONE]" in request(port, body=ASKED)[2]

    now = llmd.profile(profile)
    assert now["reduced"] == change
    assert full["footprint_bytes"] - now["footprint_bytes"] >= 48 * 2**20
    assert "started smaller from now on" in now["last_error"]
    assert "smaller since it died of memory" in llmd.ctl("status").stdout
    assert '"profile.reduced"' in json.dumps(json.loads(llmd.ctl("--json", "events").stdout))

    assert llmd.ctl("restart").returncode == 0
    after = llmd.profile(profile)
    assert after["host_pid"] == now["host_pid"], "it runs in the size that the next daemon expects"
    assert after["reduced"] == change

    llmd.ctl("unload", profile)
    assert llmd.ctl("load", profile).returncode == 0
    again = llmd.profile(profile)
    assert (again["reduced"], again["footprint_bytes"]) == ("", full["footprint_bytes"])
