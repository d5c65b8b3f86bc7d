"""The stand-in, on a service of a few lines: that it does what the real systemd was seen to do."""

import os
import signal
import socket
import sys

import pytest

from tests.conftest import ROOT
from tests.system.running import free_ports
from tests.system.service_manager import ServiceManager
from tests.system.tiny_service import ask


@pytest.fixture
def service(short_dir):
    """Makes a service manager of the tiny service; closed with the test."""
    managers = []

    def service(*, variables=(), **options):
        admin = short_dir / "s" / "admin.sock"
        argv = [sys.executable, "-m", "tests.system.tiny_service", admin]
        env = {**os.environ, "PYTHONPATH": str(ROOT), "SYSTEMD_EXEC_PID": "1", **dict(variables)}
        options = {"ports": free_ports(1), "admin": admin, "restart_delay_s": 0.01, **options}
        managers.append(ServiceManager(short_dir, argv, env, **options))
        managers[-1].port = next(iter(options["ports"]), None)
        return managers[-1]

    yield service
    for manager in managers:
        manager.close()


def refused(port):
    with pytest.raises(ConnectionRefusedError):
        ask(port)
    return True


def test_a_service_gets_its_sockets_and_says_when_it_is_ready(service):
    manager = service()
    run = manager.start()
    found = ask(manager.port)
    assert (found["pid"], found["ports"], found["sockets"]) == (run.pid, [manager.port], 3)
    assert found["variables"] == []
    assert ask(manager.port, "look", "::1")["pid"] == run.pid
    assert (run.state, run.status, run.ready) == ("active", f"serving [{manager.port}]", 1)


def test_a_killed_service_is_started_again_and_nobody_is_refused(service):
    manager = service()
    first = manager.start()
    stored = ask(manager.port, "store")["stored"]
    assert manager.kill(signal.SIGKILL) is first
    again = ask(stored)  # waits in the backlog of a socket that nobody else has
    assert again["pid"] == manager.wait_ready().pid != first.pid
    assert again["ports"] == sorted([manager.port, stored])
    assert [run.exit for run in manager.starts] == [-signal.SIGKILL, None]


def test_a_restart_keeps_what_is_stored_and_a_stop_does_not(service):
    manager = service()
    manager.start()
    stored = ask(manager.port, "store")["stored"]
    run = manager.restart_by_signal()
    assert ask(stored)["pid"] == run.pid
    assert manager.stop() is run
    assert refused(stored)
    assert manager.start().pid == ask(manager.port)["pid"]
    assert [run.exit for run in manager.starts] == [0, 0, None]


def test_what_is_stored_twice_is_kept_once_until_it_is_discarded(service):
    manager = service()
    manager.start()
    ask(manager.port, "keep")
    ask(manager.port, "keep")
    ask(manager.port, "discard")
    ask(manager.port, "keep")
    manager.wait_until(lambda: len(manager.stored["extra"]) == 3)
    manager.restart_by_signal()
    assert ask(manager.port)["sockets"] == 3


@pytest.mark.parametrize(("status", "starts"), [(0, 1), (78, 1), (3, 2)])
def test_only_a_failure_that_may_pass_is_tried_again(service, status, starts):
    manager = service()
    run = manager.start()
    ask(manager.port, f"exit {status}")
    manager.wait_until(lambda: run.exit is not None)
    if starts > 1:
        manager.wait_ready()
    else:
        manager._runner.join()
    assert len(manager.starts) == starts


def test_a_service_that_fails_always_is_given_up(short_dir):
    with ServiceManager(short_dir, ["/bin/false"], os.environ, restart_delay_s=0) as manager:
        with pytest.raises(AssertionError, match="stays down"):
            manager.start()
        assert {run.exit for run in manager.starts} == {1}


def test_a_new_image_of_the_same_process_goes_on_as_the_service(service):
    manager = service()
    run = manager.start()
    ask(manager.port, "again")
    manager.wait_until(lambda: run.ready == 2)
    assert ask(manager.port)["pid"] == run.pid
    assert manager.starts == [run]


def test_a_service_that_no_longer_turns_is_replaced(service):
    manager = service(watchdog_s=1)
    first = manager.start()
    ask(manager.port, "hang")
    assert manager.wait_ready() is not first
    assert first.exit == -signal.SIGABRT


def test_a_service_that_does_not_stop_is_killed_in_time(service):
    manager = service(stop_timeout_s=0.1)
    manager.start()
    with socket.create_connection(("127.0.0.1", manager.port)) as hung:
        hung.sendall(b"hang\n")
        hung.recv(1000)
        assert manager.stop().exit == -signal.SIGKILL


def test_time_asked_for_while_stopping_is_given(service):
    manager = service(stop_timeout_s=1, variables={"TINY_LINGERS_S": "1.2"})
    manager.start()
    assert manager.stop().exit == 0
    assert len(manager.starts) == 1


def test_a_plain_supervisor_passes_and_keeps_nothing(service):
    manager = service(pass_sockets=False)
    run = manager.start()
    assert run.status == "serving []"
    manager.kill(signal.SIGKILL)
    assert manager.wait_ready().status == "serving []"


def test_nothing_is_left_running(service):
    manager = service()
    run = manager.start()
    manager.close()
    assert run.exit == -signal.SIGKILL
    assert refused(manager.port)
