"""The ledger: what is believed of it, and that nothing in it can do harm."""

import contextlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from msgspec.structs import replace

from llmd.core.facts import Past, Stock, Survivor
from llmd.core.reduction import Reduction
from llmd.platform.identity import arguments, started
from llmd.platform.spawn import spawn
from llmd.runtime import ledger as module
from llmd.runtime.ledger import Ledger, Record, strays


SLEEPER = "import signal; signal.pause()"


@pytest.fixture
def process():
    """Starts sleeping processes with given last arguments; ends them with the test."""
    children = []

    def start(*words):
        child = spawn([sys.executable, "-S", "-c", SLEEPER, *words], env={}, log=None)
        children.append(child)
        while not arguments(child.pid):
            pass  # the parent of a vfork goes on before the kernel shows the new command line
        return child

    yield start
    for child in children:
        child.kill(signal.SIGKILL)
        assert child.wait(10) is not None


@pytest.fixture
def ledger(tmp_path):
    return Ledger(tmp_path / "state" / "ledger.json")


def record(child, instance, port=8081, profile="a"):
    known = Survivor(instance, profile, port, "mlx", 100, ready_s=2.0, fingerprint="f")
    return Record(
        pid=child.pid, started=started(child.pid), instance=instance, log="/log", known=known
    )


def test_what_is_written_is_found_again(ledger, process):
    first, second = process("i1"), process("i2")
    records = (record(first, "i1"), record(second, "i2", port=0, profile=None))
    pasts = {
        "a": Past(1.5, loads=3, requests=9, visits=(2.0, 1.0, 1.0, 1.0), visited_s=6.0, used_s=7.0)
    }
    reductions = {"a": Reduction(2, 7.0, "f")}
    ledger.write(records, Stock(pins={"a": True}, pasts=pasts, reductions=reductions))
    found = Ledger(ledger.path).read()
    assert found.records == {"i1": records[0], "i2": records[1]}
    known = (records[0].known, records[1].known)
    assert found.stock == Stock(known, {"a": True}, pasts, reductions)


def test_file_is_private_and_written_only_when_something_changed(ledger, process):
    records = (record(process("i1"), "i1"),)
    ledger.write(records, Stock())
    assert ledger.path.stat().st_mode & 0o777 == 0o600
    before = ledger.path.stat().st_ino
    ledger.write(records, Stock())
    assert ledger.path.stat().st_ino == before
    ledger.write(records, Stock(pins={"a": True}))
    assert ledger.path.stat().st_ino != before


def test_process_that_is_gone_is_not_found(ledger, process):
    child = process("i1")
    ledger.write((record(child, "i1"),), Stock(pins={"a": True}))
    child.kill(signal.SIGKILL)
    child.wait(10)
    found = ledger.read()
    assert (found.records, found.stock.pins) == ({}, {"a": True})


def test_what_a_dead_host_has_left_in_its_group_is_killed(ledger):
    """Its daemon was killed with it, so that nobody else could."""
    tell = (
        "import os, signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); "
        "left = os.fork(); print(left, flush=True) if left else None; signal.pause()"
    )
    argv = [sys.executable, "-S", "-c", tell, "i1"]  # not by `spawn`, which sweeps up itself
    with subprocess.Popen(argv, start_new_session=True, stdout=subprocess.PIPE) as host:
        left = psutil.Process(int(host.stdout.readline()))
        ledger.write((record(host, "i1"),), Stock())
        host.kill()
    try:
        assert left.status() != psutil.STATUS_ZOMBIE

        assert Ledger(ledger.path).read().records == {}

        _, alive = psutil.wait_procs([left], timeout=5)
        assert not [each for each in alive if each.status() != psutil.STATUS_ZOMBIE]
    finally:
        with contextlib.suppress(psutil.NoSuchProcess):
            left.kill()


@pytest.mark.parametrize("pid", [0, -1, -(2**40), 2**31, 2**62])
def test_number_that_is_no_process_harms_nobody(ledger, process, monkeypatch, pid):
    monkeypatch.setattr(os, "killpg", lambda *args: pytest.fail(f"killed {args}"))
    false = Record(
        pid=pid, started=1.0, instance="i1", log="/log", known=Survivor("i1", "a", 8081, "mlx", 1)
    )
    ledger.write((false,), Stock())
    assert Ledger(ledger.path).read().records == {}


def test_number_that_means_another_process_now_is_a_stranger_and_left_alone(ledger, process):
    stranger = process("i9")
    mine = record(stranger, "i9")
    other_start = Record(
        pid=mine.pid, started=mine.started - 1, instance="i9", log="", known=mine.known
    )
    other_words = Record(
        pid=mine.pid, started=mine.started, instance="i1", log="", known=mine.known
    )
    for false in (other_start, other_words):
        ledger.write((false,), Stock())
        assert ledger.read().records == {}
    assert stranger.exit is None


def test_ledger_of_another_boot_counts_for_nothing(ledger, process, monkeypatch):
    child = process("i1")
    ledger.write((record(child, "i1"),), Stock(pins={"a": True}))
    monkeypatch.setattr(module, "boot_id", lambda: "after the reboot")
    found = Ledger(ledger.path).read()
    assert (found.records, found.stock) == ({}, Stock())
    assert child.exit is None


@pytest.mark.parametrize(
    "text",
    [b"", b"{", b"[]", b"null", b'{"version": 1}', b"\xff\xfe", b"[" * 100_000, b"x" * (1 << 21)],
    ids=["empty", "cut", "list", "null", "lacking", "binary", "deep", "huge"],
)
def test_damaged_ledger_is_set_aside_with_a_warning(ledger, text):
    ledger.path.parent.mkdir()
    ledger.path.write_bytes(text)
    assert ledger.read().records == {}
    assert "damaged" in ledger.warning
    assert ledger.path.with_name("ledger.json.damaged").read_bytes() == text
    assert not ledger.path.exists()


def test_ledger_of_a_later_version_is_set_aside(ledger, process):
    ledger.write((record(process("i1"), "i1"),), Stock())
    page = json.loads(ledger.path.read_text()) | {"version": 99}
    ledger.path.write_text(json.dumps(page))
    assert Ledger(ledger.path).read().records == {}


def test_second_host_of_one_port_is_ended(ledger, process):
    """One resident per port: a file that says otherwise must not overcommit memory."""
    first, second = process("i1"), process("i2")
    ledger.write((record(first, "i1"), record(second, "i2")), Stock())
    assert set(ledger.read().records) == {"i1"}
    assert second.wait(10) is not None
    assert first.exit is None


def test_directory_that_cannot_be_written_costs_a_warning_only(tmp_path, process):
    blocker = tmp_path / "file"
    blocker.write_text("")
    ledger = Ledger(blocker / "ledger.json")
    ledger.write((record(process("i1"), "i1"),), Stock())
    ledger.clear()


def test_cleared_ledger_is_gone(ledger, process):
    ledger.write((record(process("i1"), "i1"),), Stock())
    ledger.clear()
    assert not ledger.path.exists()
    assert ledger.read().records == {}
    assert ledger.warning is None


def test_daemons_on_two_sockets_have_two_ledgers(tmp_path):
    paths = {Ledger.beside(tmp_path, Path(f"/run/{name}.sock")).path for name in ("a", "b")}
    assert len(paths) == 2
    assert all(path.parent == tmp_path for path in paths)


def test_strays_are_hosts_of_our_socket_that_no_ledger_knows(monkeypatch):
    owner = Path("/run/llmd/llmd.sock")
    lived = []

    def start(socket):
        words = [sys.executable, "-c", SLEEPER, f"--owner={socket}"]
        lived.append(spawn(words, env={}, log=None))
        return lived[-1]

    monkeypatch.setattr(module, "is_host_of", lambda words, own: f"--owner={own}" in words)
    lost, known, foreign = start(owner), start(owner), start("/run/other/llmd.sock")
    try:
        (ended,) = strays(owner, {known.pid})
        assert ended.pid == lost.pid
        assert lost.wait(10) is not None
        assert (known.exit, foreign.exit) == (None, None)
    finally:
        for child in lived:
            child.kill(signal.SIGKILL)
            child.wait(10)


def test_keys_of_survivors_are_their_instances(ledger, process):
    child = process("i1")
    entry = record(child, "i1")
    odd = Record(
        pid=entry.pid, started=entry.started, instance="i1", log="",
        known=replace(entry.known, key="something else"),
    )  # fmt: skip
    ledger.write((odd,), Stock())
    assert [host.key for host in ledger.read().stock.hosts] == ["i1"]


def test_our_own_process_has_a_start_and_one_that_is_gone_has_none(process):
    child = process("i1")
    assert started(os.getpid()) == started(os.getpid()) != started(child.pid)
    child.kill(signal.SIGKILL)
    child.wait(10)
    assert started(child.pid) is None
