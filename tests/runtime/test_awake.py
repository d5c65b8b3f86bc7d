"""The machine is kept awake while there is work, and by nobody who is gone."""

import os
import signal
import sys

import psutil
import pytest
from structlog.testing import capture_logs

from llmd.platform.spawn import Exit, spawn
from llmd.runtime.awake import LINGER_S, KeepAwake, holder


linux_only = pytest.mark.skipif(sys.platform != "linux", reason="GNU tail")


class FakeChild:
    pid = 1

    def __init__(self):
        self.exit = None
        self.killed = False

    def kill(self, _number=signal.SIGTERM):
        self.killed = True
        return True


class Machine:
    """A clock, and the programs that were started to hold the machine."""

    def __init__(self):
        self.now = 1000.0
        self.holders = []
        self.error = None

    def spawn(self, argv, *, env, log):
        assert argv[0].is_absolute()
        if self.error is not None:
            raise self.error
        self.holders.append(FakeChild())
        return self.holders[-1]

    @property
    def held(self):
        return [child for child in self.holders if not child.killed and child.exit is None]


@pytest.fixture
def machine():
    return Machine()


@pytest.fixture
def keep(machine):
    return KeepAwake(program=(sys.executable,), spawn=machine.spawn, now=lambda: machine.now)


def test_idle_daemon_lets_the_machine_sleep(keep, machine):
    keep.mind(busy=False)
    assert not machine.holders


def test_work_holds_the_machine_once(keep, machine):
    for _ in range(3):
        keep.mind(busy=True)
    assert len(machine.held) == 1
    assert keep.holding


def test_machine_is_let_go_some_time_after_the_last_request(keep, machine):
    keep.mind(busy=True)
    machine.now += LINGER_S - 1
    keep.mind(busy=False)
    assert len(machine.held) == 1
    machine.now += 1
    keep.mind(busy=False)
    assert not machine.held
    assert not keep.holding


def test_another_request_meanwhile_holds_it_on(keep, machine):
    for _ in range(5):
        keep.mind(busy=True)
        machine.now += LINGER_S - 1
        keep.mind(busy=False)
    assert len(machine.holders) == 1
    assert machine.held


def test_machine_is_held_again_for_the_next_request(keep, machine):
    keep.mind(busy=True)
    keep.release()
    assert not machine.held
    keep.mind(busy=True)
    assert len(machine.held) == 1


def test_holder_that_ends_by_itself_is_told_once_and_tried_again_with_later_requests(keep, machine):
    with capture_logs() as logs:
        for _ in range(2):
            keep.mind(busy=True)
            machine.held[0].exit = Exit(code=1)
            keep.mind(busy=True)
            keep.mind(busy=True)
            assert not keep.holding
            machine.now += LINGER_S
            keep.mind(busy=False)
    assert len(machine.holders) == 2
    assert [(log["event"], log["reason"]) for log in logs if log["log_level"] == "warning"] == [
        ("machine.not_held", "exit status 1")
    ]


def test_program_that_is_missing_or_does_not_start_is_told_once_and_harms_nothing(machine):
    missing = KeepAwake(program=("no-such-program",), spawn=machine.spawn, now=lambda: machine.now)
    machine.error = PermissionError("not allowed")
    broken = KeepAwake(program=(sys.executable,), spawn=machine.spawn, now=lambda: machine.now)
    with capture_logs() as logs:
        for keep in (missing, missing, broken, broken):
            keep.mind(busy=True)
            keep.release()
    assert [log["reason"] for log in logs] == ["no such program", "not allowed"]
    assert logs[0]["program"] == "no-such-program"


def test_macs_are_held_by_a_program_that_watches_the_daemon():
    assert holder(42, "darwin") == ("/usr/bin/caffeinate", "-i", "-w", "42")


DAEMON = """
import os, signal
from llmd.runtime.awake import KeepAwake, holder
keep = KeepAwake(program=holder(os.getpid(), "linux"))
keep.mind(busy=True)
print(keep._held.pid, flush=True)
signal.pause()
"""

INHIBIT = """#!/bin/sh
while [ "${1#--}" != "$1" ]; do shift; done
"$@"
"""
"""`systemd-inhibit` without a bus: takes its options and runs the rest to its end."""


@pytest.fixture
def inhibit(tmp_path, monkeypatch):
    """A PATH with a stand-in on it, since the real one needs a bus."""
    program = tmp_path / "bin" / "systemd-inhibit"
    program.parent.mkdir()
    program.write_text(INHIBIT)
    program.chmod(0o755)
    path = f"{program.parent}:{os.environ['PATH']}"
    monkeypatch.setenv("PATH", path)
    return path


def family(pid):
    """A process and its children, once it has one."""
    leader = psutil.Process(pid)
    for _ in range(2000):
        if children := leader.children(recursive=True):
            return [leader, *children]
        psutil.wait_procs([leader], timeout=0.005)
    raise AssertionError("it never started what it was to run")


@linux_only
def test_daemon_that_is_killed_leaves_nobody_who_holds_the_machine(inhibit, tmp_path):
    log = tmp_path / "log"
    env = {**os.environ, "PATH": inhibit}
    daemon = spawn([sys.executable, "-c", DAEMON], env=env, log=log)
    try:
        while daemon.wait(0.01) is None and not log.read_text().endswith("\n"):
            pass
        held = family(int(log.read_text().split()[-1]))
        assert len(held) == 2
    finally:
        daemon.kill(signal.SIGKILL)
        daemon.wait(10)
    _, alive = psutil.wait_procs(held, timeout=10)  # `tail` looks once a second
    assert not alive


@linux_only
def test_letting_go_ends_the_program_and_what_it_runs(inhibit):
    keep = KeepAwake(program=holder(os.getpid(), "linux"))
    keep.mind(busy=True)
    held = family(keep._held.pid)
    keep.release()
    _, alive = psutil.wait_procs(held, timeout=10)
    assert not alive
