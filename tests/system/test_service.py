"""Under a service manager (the stand-in): what SIGTERM, a crash and `stop` mean there."""

import contextlib
import http.client
import json
import os
import signal
import sys
import threading
import time

import pytest
import yaml

from tests.system.running import GOOD, Llmd, alive, free_ports, lay_out, request, unruly
from tests.system.service_manager import ServiceManager


@contextlib.contextmanager
def started(directory, grace):
    """llmd with one engine in use, started by a service manager that holds its port."""
    (port,) = free_ports(1)
    daemon = Llmd(directory, yaml.safe_dump(lay_out({"a": unruly(port)}, orphan_grace=grace)))
    daemon.socket.parent.mkdir(mode=0o700)
    argv = [sys.executable, "-m", "llmd", "serve"]
    with ServiceManager(
        directory, argv, daemon.env, ports=[port], admin=daemon.socket, watchdog_s=3
    ) as manager:
        manager.start()
        daemon.manager, daemon.port = manager, port
        assert request(port, body=GOOD)[0] == 200
        yield daemon
        left = daemon.host_pids()
    for pid in left:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


@pytest.fixture
def managed(short_dir):
    """With a grace that is longer than the slowest start of the next daemon."""
    with started(short_dir, "60s") as daemon:
        yield daemon


def test_status_tells_who_holds_the_port(managed):
    status = managed.status()
    assert status["manager"] == "other"
    assert [port["managed"] for port in status["ports"]] == [True]
    assert not status["warnings"]


def test_sigterm_leaves_the_hosts_for_the_next_daemon(managed):
    before = managed.profile("a")
    managed.manager.restart_by_signal()
    assert managed.manager.starts[0].exit == 0
    after = managed.profile("a")
    assert (after["host_pid"], after["loads"]) == (before["host_pid"], 1)
    assert request(managed.port, body=GOOD)[0] == 200


def test_sigterm_finishes_what_is_in_flight(managed):
    connection = http.client.HTTPConnection("127.0.0.1", managed.port, timeout=30)
    body = {**GOOD, "stream": True, "unruly": {"chunks": 30, "chunk_delay": 0.05}}
    connection.request("POST", "/v1/chat/completions", json.dumps(body))
    response = connection.getresponse()
    first = response.read(10)
    managed.manager.restart_by_signal()
    assert (first + response.read()).rstrip().endswith(b"data: [DONE]")
    connection.close()


def test_hosts_that_nobody_takes_over_end_by_themselves(short_dir):
    with started(short_dir, "2s") as daemon:
        hosts = daemon.host_pids()
        daemon.manager.stop()
        assert daemon.manager.current.exit == 0
        assert alive(hosts), "they wait for a daemon"
        deadline = time.monotonic() + 20
        while alive(hosts):
            assert time.monotonic() < deadline, "hosts without a daemon are left"
            threading.Event().wait(0.05)


def test_stop_by_an_administrator_unloads_and_is_not_restarted(managed):
    hosts = managed.host_pids()
    done = managed.ctl("stop")
    assert done.returncode == 0, done.stderr
    assert not alive(hosts)
    assert [run.exit for run in managed.manager.starts] == [0]


def test_crash_is_restarted_and_connections_wait_meanwhile(managed):
    starts = len(managed.manager.starts)
    managed.manager.kill(signal.SIGKILL)
    assert request(managed.port, body=GOOD)[0] == 200
    assert len(managed.manager.starts) == starts + 1
    assert managed.profile("a")["loads"] == 1


def test_idle_daemon_tells_the_watchdog_that_it_turns(managed):
    run = managed.manager.current
    managed.manager.wait_until(lambda: run.heard_s > run.ready_s + 1)
    assert managed.manager.current is run


def test_hung_event_loop_is_noticed_by_the_watchdog(managed):
    starts = len(managed.manager.starts)
    managed.manager.send(signal.SIGSTOP)
    # Which holds back the watchdog's SIGABRT as well, until it is told to go on.
    go_on = threading.Timer(5, managed.manager.send, [signal.SIGCONT])
    go_on.start()
    assert request(managed.port, body=GOOD, timeout=60)[0] == 200
    go_on.join()
    assert managed.manager.starts[starts - 1].exit == -signal.SIGABRT
    assert len(managed.manager.starts) == starts + 1
    assert managed.profile("a")["loads"] == 1


def test_typo_does_not_keep_a_crashed_daemon_from_coming_back(managed):
    good = managed.config_file.read_text()
    managed.write_config("profiles: [")
    managed.manager.kill(signal.SIGKILL)
    assert request(managed.port, body=GOOD)[0] == 200
    assert managed.profile("a")["loads"] == 1
    assert "the last good configuration is in use" in managed.status()["config_error"]
    managed.write_config(good)
    managed.wait_for(lambda status: status["config_error"] is None)


def test_configuration_that_can_never_work_is_not_tried_again(short_dir):
    daemon = Llmd(short_dir, "profiles: 7\n")
    argv = [sys.executable, "-m", "llmd", "serve"]
    with ServiceManager(short_dir, argv, daemon.env, ports=free_ports(1)) as manager:
        with pytest.raises(AssertionError):
            manager.start(timeout=10)
        assert [run.exit for run in manager.starts] == [78]
        assert "profiles" in manager.log()


def test_port_that_the_service_does_not_hold_is_named(managed):
    (later,) = free_ports(1)
    config = lay_out({"a": unruly(managed.port), "b": unruly(later)}, orphan_grace="2s")
    managed.write_config(config)
    managed.ctl("reload")
    (warning,) = managed.status()["warnings"]
    assert f"port {later}" in warning
    assert "llmd-ctl install" in warning
    managed.write_config(lay_out({"b": unruly(later)}, orphan_grace="2s"))
    managed.ctl("reload")
    status, _, body = request(managed.port, body=GOOD)
    assert (status, json.loads(body)["error"]["code"]) == (503, "unloaded")
