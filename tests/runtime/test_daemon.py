"""A bug in the decisions ends the daemon, so that the next one begins from what is true; and what
hosts held is charged from then on."""

import asyncio

import pytest
from msgspec.structs import replace

from llmd.config.models import Config
from llmd.core.events import Ticked
from llmd.core.footprint import Footprint
from llmd.runtime.daemon import Daemon
from llmd.runtime.learned import Learned
from llmd.runtime.ledger import Ledger
from llmd.runtime.log import EventLog
from llmd.runtime.ports import Held
from tests.system.running import free_ports, lay_out, unruly


@pytest.fixture
def daemon_of(short_dir):
    def make(config):
        socket = short_dir / "llmd.sock"
        return Daemon(
            Config.model_validate(config),
            learned=Learned.load(short_dir / "footprints.json"),
            ledger=Ledger.beside(short_dir, socket),
            owner=socket,
            log_dir=short_dir,
            events=EventLog(),
            held=Held(),
        )

    return make


async def test_bug_in_a_decision_ends_the_daemon_also_when_a_callback_met_it(daemon_of):
    (port,) = free_ports(1)
    daemon = daemon_of(lay_out({"a": unruly(port)}))
    told = []

    async def ready():
        def broken(event, *, now):
            raise KeyError("state")

        daemon.scheduler.handle = broken
        asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context))
        asyncio.get_running_loop().call_soon(daemon.dispatch, Ticked())

    with pytest.raises(ExceptionGroup) as ended:
        await asyncio.wait_for(daemon.run(ready), 10)

    assert [type(bug) for bug in ended.value.exceptions] == [KeyError]
    assert [type(context["exception"]) for context in told] == [KeyError]
    # What is closed on the way out decides nothing any more.
    daemon.dispatch(Ticked())


async def test_what_a_host_held_is_charged_from_its_end_on(daemon_of):
    (port,) = free_ports(1)
    daemon = daemon_of(lay_out({"a": unruly(port)}))
    estimate = Footprint(weights_bytes=90, compute_bytes=10)
    entry = daemon.catalogue.entries["a"]
    small = replace(entry, footprint=Footprint(weights_bytes=40), mark="small")
    entry = replace(entry, footprint=estimate, mark="full", smaller=(small,))
    daemon.catalogue = replace(daemon.catalogue, entries={"a": entry})
    daemon._learn(entry, 95)
    daemon._learn(small, 50)
    daemon._learn(small, 45)
    (charged,) = daemon.catalogue.residencies
    assert charged.footprint_bytes == 95
    assert [each.footprint_bytes for each in charged.smaller] == [50]
    assert daemon.scheduler._book.profiles["a"] == charged
