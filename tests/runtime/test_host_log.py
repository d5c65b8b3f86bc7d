"""Logs of hosts stay bounded while somebody writes to them, and never lack their end."""

import os
import signal
import stat
import sys
import threading

import pytest

from llmd.platform.spawn import Exit, spawn
from llmd.runtime import host_log
from llmd.runtime.host_log import (
    LOG_MAX_BYTES,
    TAIL_BYTES,
    HostLog,
    keep_end,
    last_lines,
    older,
    rotate_log,
    shorten_log,
)


LIMIT_BYTES = 256 * 1024

CHATTER = """
import sys
for number in range(int(sys.argv[1])):
    print(f"{number:015d}", flush=True)
"""
"""Prints lines of 16 bytes, one write each."""

TELLER = """
import signal, sys
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
begin = 0
for count in map(int, sys.argv[1:]):
    for number in range(begin, begin + count):
        print(f"{number:015d}")
    begin += count
    sys.stdout.flush()
    signal.sigwait([signal.SIGUSR1])
"""
"""Prints so many lines, and more each time it is nudged."""


@pytest.fixture
def log(tmp_path):
    return tmp_path / "chat.log"


@pytest.fixture
def start(log):
    """Starts a program that writes to *log*; whoever is left is killed."""
    children = []

    def begin(code, *words):
        argv = [sys.executable, "-S", "-c", code, *map(str, words)]
        children.append(spawn(argv, env={}, log=log))
        return children[-1]

    yield begin
    for child in children:
        child.kill(signal.SIGKILL)
        child.wait(10)


def wait_until(condition):
    pause = threading.Event()
    for _ in range(2000):
        if condition():
            return
        pause.wait(0.005)
    raise AssertionError("it never came to that")


def numbers(path):
    """What whole lines say; the first may have been cut."""
    return [int(line) for line in path.read_text().splitlines() if len(line) == 15]


def test_program_that_prints_without_end_has_a_bounded_log_at_every_moment(start, log):
    count = 3 * LIMIT_BYTES // 16
    child = start(CHATTER, count)
    while child.wait(0.001) is None:
        shorten_log(log, limit_bytes=LIMIT_BYTES)
        if numbers(log):  # once it has begun, its last words are there, in order, and once
            found = [int(line) for line in last_lines(log, 20)[1:]]
            assert found == sorted(set(found))
            assert found
    assert child.exit == Exit(code=0)
    assert shorten_log(log, limit_bytes=LIMIT_BYTES) >= 0
    assert log.stat().st_size <= LIMIT_BYTES
    assert LIMIT_BYTES // 2 < older(log).stat().st_size <= LIMIT_BYTES
    assert numbers(log)[-1] == count - 1
    assert stat.S_IMODE(older(log).stat().st_mode) == 0o600


def test_nothing_is_lost_of_the_end_and_what_follows_comes_after_it(start, log):
    child = start(TELLER, 20_000, 5)
    wait_until(lambda: log.exists() and log.stat().st_size == 16 * 20_000)
    before = last_lines(log, 4000)
    assert shorten_log(log, limit_bytes=LIMIT_BYTES) == 16 * 20_000 - TAIL_BYTES
    assert last_lines(log, 4000) == before
    child.kill(signal.SIGUSR1)
    wait_until(lambda: log.stat().st_size == TAIL_BYTES + 16 * 5)
    assert numbers(log) == list(range(20_000 - TAIL_BYTES // 16, 20_005))
    assert numbers(older(log)) == list(range(20_000 - LIMIT_BYTES // 16, 20_000))


def test_what_is_written_during_the_cut_is_brought_along(log, monkeypatch):
    log.write_bytes(b"x" * (2 * TAIL_BYTES))
    genuine = os.pwrite

    def with_a_writer(descriptor, data, offset):
        if offset == 0:
            with log.open("ab") as file:
                file.write(b"\nlast words\n")
        return genuine(descriptor, data, offset)

    monkeypatch.setattr(host_log.os, "pwrite", with_a_writer)
    assert keep_end(log, TAIL_BYTES) == TAIL_BYTES
    assert last_lines(log, 1) == ("last words",)
    assert log.stat().st_size == TAIL_BYTES + len("\nlast words\n")


def test_writer_that_does_not_pause_for_breath_does_not_hold_up_the_daemon(log, monkeypatch):
    log.write_bytes(b"x" * (2 * TAIL_BYTES))
    genuine = os.pwrite

    def with_a_writer(descriptor, data, offset):
        with log.open("ab") as file:
            file.write(b"more\n")
        return genuine(descriptor, data, offset)

    monkeypatch.setattr(host_log.os, "pwrite", with_a_writer)
    keep_end(log, TAIL_BYTES)
    assert log.stat().st_size < 2 * TAIL_BYTES


def test_short_log_is_left_alone(log):
    log.write_text("all is well\n")
    assert shorten_log(log) == 0
    assert log.read_text() == "all is well\n"
    assert not older(log).exists()


def test_full_disk_still_lets_a_log_be_shortened(log, monkeypatch):
    log.write_bytes(b"x" * 2 * LIMIT_BYTES)

    def full(*_args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(host_log, "_copy_range", full)
    assert shorten_log(log, limit_bytes=LIMIT_BYTES) == 2 * LIMIT_BYTES - TAIL_BYTES
    assert log.stat().st_size == TAIL_BYTES


def test_log_that_is_missing_or_no_file_of_ours_does_no_harm(log, tmp_path):
    assert shorten_log(log, limit_bytes=0) == 0
    (tmp_path / "precious").write_bytes(b"x" * LIMIT_BYTES)
    log.symlink_to(tmp_path / "precious")
    assert shorten_log(log, limit_bytes=0) == 0
    assert (tmp_path / "precious").stat().st_size == LIMIT_BYTES


def test_log_that_had_grown_beyond_all_bounds_is_cut_when_it_is_moved_away(log):
    log.write_bytes(b"x" * 2 * LOG_MAX_BYTES + b"\nthe end\n")
    rotate_log(log)
    assert not log.exists()
    assert older(log).stat().st_size == LOG_MAX_BYTES
    assert last_lines(older(log), 1) == ("the end",)


def test_last_words_of_a_crash_are_what_it_said_before_it_dumped_its_stacks(start, log):
    """Else a dump of thirty lines hides what tells a lack of memory from any other crash."""
    crash = (
        "import faulthandler, os, sys; faulthandler.enable(); "
        "print('no memory left', file=sys.stderr, flush=True); os.abort()"
    )
    start(crash)
    wait_until(lambda: log.exists() and "most recent call first" in log.read_text())
    assert last_lines(log, 20) == ("no memory left", "Fatal Python error: Aborted")
    assert last_lines(log, 1) == ("Fatal Python error: Aborted",)


def test_last_words_are_those_of_this_run_after_the_log_was_shortened(start, log):
    log.write_text("an earlier run\n" * (LOG_MAX_BYTES // 15))
    ours = HostLog.begin(log)
    start(TELLER, 10, 0)
    wait_until(lambda: log.stat().st_size == ours.begins_at + 160)
    with log.open("ab") as file:
        file.write(b"filler " * 20)
    expected = ours.tail()
    assert len(expected) == 11
    ours.shorten()
    assert log.stat().st_size == TAIL_BYTES
    assert ours.tail() == expected
