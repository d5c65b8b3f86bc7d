"""What one daemon leaves to the next, joined from the ledger, the hosts and the scheduler."""

import asyncio
from pathlib import Path
from types import SimpleNamespace

import pytest
from msgspec.structs import replace

from llmd.core.events import AdoptHost
from llmd.core.facts import Residency, Stock, Survivor
from llmd.runtime import succession as module
from llmd.runtime.catalogue import Entry
from llmd.runtime.ledger import Found, Record
from llmd.runtime.succession import Succession


def record(fingerprint="f"):
    known = Survivor("i1", "a", 8081, "mlx", 100, fingerprint=fingerprint)
    return Record(pid=1, started=2.0, instance="i1", log="/log", known=known)


class FakeLedger:
    warning = None

    def __init__(self):
        self.written = None

    def read(self):
        left = record()
        return Found({"i1": left}, Stock((left.known,)))

    def write(self, records, stock):
        self.written = records, stock


class FakeHosting:
    def __init__(self, *hosts):
        self.hosts = {host.number: host for host in hosts}
        self.adopted = []

    def adopt(self, effect, left, entry):
        self.adopted.append((effect.host, left.instance, entry))

    def get(self, number):
        return self.hosts.get(number)

    def __iter__(self):
        return iter(self.hosts.values())


@pytest.fixture(autouse=True)
def no_strays(monkeypatch):
    monkeypatch.setattr(module, "strays", lambda _owner, _known: [])


def entry(fingerprint):
    return Entry(None, Residency("a", 8081, 0, fingerprint=fingerprint))


@pytest.mark.parametrize(("fingerprint", "kept"), [("f", True), ("another", False)])
async def test_host_of_a_changed_profile_says_nothing_about_the_profile(fingerprint, kept):
    """What it held would be learned as the footprint of something else."""
    hosting = FakeHosting()
    follower = Succession(FakeLedger(), owner=Path("/s"), hosting=hosting, scheduler=None)
    assert (await follower.inherit()).hosts[0].key == "i1"
    known = entry(fingerprint)
    follower.adopt(AdoptHost(7, "i1", "a"), SimpleNamespace(entries={"a": known}))
    assert hosting.adopted == [(7, "i1", known if kept else None)]


async def test_host_in_a_smaller_size_is_taken_over_as_that():
    hosting = FakeHosting()
    follower = Succession(FakeLedger(), owner=Path("/s"), hosting=hosting, scheduler=None)
    await follower.inherit()
    known = replace(entry("whole"), smaller=(entry("less"), entry("f")))
    follower.adopt(AdoptHost(7, "i1", "a"), SimpleNamespace(entries={"a": known}))
    assert hosting.adopted == [(7, "i1", known.smaller[1])]


def test_hosts_are_written_down_under_their_instance_and_kind_without_those_that_only_start():
    def host(number, process):
        return SimpleNamespace(number=number, kind="llama", process=process, peak_bytes=5)

    process = SimpleNamespace(
        pid=11, started=3.0, instance="i7", log=SimpleNamespace(path=Path("/l"))
    )
    ledger, hosting = FakeLedger(), FakeHosting(host(1, process), host(2, None))
    stock = Stock((Survivor("1", "a", 8081, "", 100), Survivor("2", "b", 8082, "", 100)))
    scheduler = SimpleNamespace(stock=lambda: stock)
    Succession(ledger, owner=Path("/s"), hosting=hosting, scheduler=scheduler).record()
    ((written,), _) = ledger.written
    assert (written.pid, written.instance, written.log, written.peak_bytes) == (11, "i7", "/l", 5)
    assert (written.known.key, written.known.kind, written.known.profile) == ("i7", "llama", "a")


async def test_host_that_never_answers_holds_nobody_up_for_long(monkeypatch):
    monkeypatch.setattr(module, "ANSWER_S", 0.01)
    silent = SimpleNamespace(number=1, found=record(), settled=asyncio.Event())
    follower = Succession(
        FakeLedger(), owner=Path("/s"), hosting=FakeHosting(silent), scheduler=None
    )
    await asyncio.wait_for(follower.heard(), 5)
