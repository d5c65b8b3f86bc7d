"""Disks that are full, directories that may not be written to, and things that are in the way."""

import contextlib
import fcntl
import os
import resource
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import structlog

from llmd.config.replace import private_directory, replace_file
from llmd.core.facts import Stock
from llmd.errors import ConfigError
from llmd.runtime.learned import Learned
from llmd.runtime.ledger import Ledger
from tests.conftest import ROOT
from tests.data.kinds import KINDS, names_in


NOBODY = 65534

FAILS = {
    "ledger": contextlib.nullcontext(),  # a warning; see below
    "learned": pytest.raises(OSError, match="File too large"),  # the daemon warns
    "shapes": contextlib.nullcontext(),
    "config": pytest.raises(ConfigError, match=r"cannot write .*: File too large"),
}


@contextlib.contextmanager
def full_disk():
    """No file can become longer than 8 bytes; nor can pytest's own output, so not for long."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


@pytest.mark.parametrize("kind", KINDS)
def test_full_disk_leaves_the_old_file_and_nothing_else(kind, tmp_path):
    file = KINDS[kind](tmp_path / "file")
    file.write("old")
    with structlog.testing.capture_logs(), full_disk(), FAILS[kind]:
        file.write("new")
    assert file.read() == ("old", None)
    assert names_in(tmp_path) == ["file"]


def test_ledger_that_cannot_be_written_says_so_once_and_is_written_when_there_is_room(tmp_path):
    ledger = Ledger(tmp_path / "ledger.json")
    with structlog.testing.capture_logs() as logs:
        with full_disk():
            for profile in ("a", "b"):
                ledger.write((), Stock(pins={profile: True}))
        ledger.write((), Stock(pins={"b": True}))
    assert [line["event"] for line in logs] == ["ledger.unwritten"]
    assert ledger.read().stock.pins == {"b": True}


def test_marks_that_could_not_be_saved_are_saved_with_the_next(tmp_path):
    learned = Learned(tmp_path / "learned.json")
    learned.record("a", 1)
    with full_disk(), pytest.raises(OSError, match="File too large"):
        learned.save()
    learned.record("b", 2)
    learned.save()
    again = Learned.load(learned.path)
    assert (again.mark("a"), again.mark("b")) == (1, 2)


READ_ONLY = """
import os, sys
from pathlib import Path
from tests.data.kinds import KINDS
file = KINDS[sys.argv[1]](Path(sys.argv[2]))
assert file.read() == ("old", None)  # and imports what it needs
if os.getuid() == 0:
    os.setuid(65534)
try:
    file.write("new")
except Exception as error:
    print(type(error).__name__, error)
print(file.read())
"""


@pytest.mark.parametrize("kind", KINDS)
def test_directory_that_may_not_be_written_keeps_the_old_file(kind, short_dir):
    directory = Path(short_dir) / "state"
    directory.mkdir()
    KINDS[kind](directory / "file").write("old")
    if os.getuid() == 0:
        Path(short_dir).chmod(0o711)
        os.chown(directory, NOBODY, NOBODY)
        os.chown(directory / "file", NOBODY, NOBODY)
    directory.chmod(0o500)
    ran = subprocess.run(
        [sys.executable, "-c", READ_ONLY, kind, directory / "file"],
        check=False, cwd=ROOT, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    directory.chmod(0o700)
    assert "('old', None)" in ran.stdout, ran.stderr
    assert "Traceback" not in ran.stderr
    assert names_in(directory) == ["file"]


@pytest.mark.parametrize("what", ["file", "pipe", "second name"])
def test_whatever_was_left_where_the_new_file_is_written_is_used_up(what, tmp_path):
    left, other = tmp_path / ".file.new", tmp_path / "other"
    other.write_text("somebody's")
    if what == "file":
        left.write_text("half of what was to be written, and longer than what comes now")
        left.chmod(0o666)
    elif what == "pipe":
        os.mkfifo(left)
        reader = os.open(left, os.O_RDONLY | os.O_NONBLOCK)
    else:
        left.hardlink_to(other)
    replace_file(tmp_path / "file", b"new", lasting=True)
    if what == "pipe":
        os.close(reader)
    assert (tmp_path / "file").read_bytes() == b"new"
    assert names_in(tmp_path) == ["file", "other"]
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o600
    assert other.read_text() == "somebody's"


@pytest.mark.parametrize("what", ["link", "directory"])
def test_link_or_directory_in_the_way_is_an_error_and_stays(what, tmp_path):
    left, other = tmp_path / ".file.new", tmp_path / "other"
    other.write_text("somebody's")
    left.symlink_to(other) if what == "link" else left.mkdir()
    with pytest.raises(OSError, match=r"Too many levels|Is a directory"):
        replace_file(tmp_path / "file", b"new", lasting=False)
    assert other.read_text() == "somebody's"
    assert not (tmp_path / "file").exists()


def test_second_writer_is_refused_and_does_not_wait(tmp_path):
    first = os.open(tmp_path / ".file.new", os.O_WRONLY | os.O_CREAT, 0o600)
    fcntl.flock(first, fcntl.LOCK_EX)
    with pytest.raises(BlockingIOError):
        replace_file(tmp_path / "file", b"second", lasting=False)
    os.close(first)
    replace_file(tmp_path / "file", b"second", lasting=False)
    assert (tmp_path / "file").read_bytes() == b"second"


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_directories_that_are_made_are_private_whatever_the_umask(umask, tmp_path):
    before = os.umask(umask)
    try:
        private_directory(tmp_path / "a" / "b" / "c")
        replace_file(tmp_path / "a" / "d" / "file", b"", lasting=False)
    finally:
        os.umask(before)
    made = [p for p in (tmp_path / "a", *(tmp_path / "a").rglob("*")) if p.is_dir()]
    assert len(made) == 4
    assert {p.stat().st_mode & 0o777 for p in made} == {0o700}


def test_lasting_file_is_on_disk_before_its_name_and_the_name_before_the_end(tmp_path, monkeypatch):
    calls, replace, fsync = [], Path.replace, os.fsync

    def noted_fsync(descriptor):
        calls.append("directory" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file")
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", noted_fsync)
    monkeypatch.setattr(Path, "replace", lambda *a: calls.append("name") or replace(*a))
    replace_file(tmp_path / "file", b"x", lasting=True)
    assert calls == ["file", "name", "directory"]
    replace_file(tmp_path / "file", b"x", lasting=False)
    assert calls[3:] == ["name"]
