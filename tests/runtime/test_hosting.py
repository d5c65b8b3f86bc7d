"""What hosts are told, and how long they are given."""

import asyncio
from pathlib import Path

import pytest

from llmd.core.events import StopHost
from llmd.core.facts import Failure
from llmd.runtime import saving as module
from llmd.runtime.host_process import HostFailedError
from llmd.runtime.hosting import GRACE_S, Host, Hosting
from llmd.runtime.saving import SAVE_S, Saving


class Process:
    """A host's process that notes what it was told."""

    def __init__(self, *, saving=None, state="ready"):
        self.told = []
        self.state = state
        self.saving = saving
        self.exited = asyncio.get_running_loop().create_future()
        self.exited.set_result(0)

    async def save(self, **allowance):
        self.told.append(("save", allowance))
        if isinstance(self.saving, Exception):
            raise self.saving
        await asyncio.sleep(self.saving or 0)
        return 2, 5000

    async def stop(self, *, grace_s):
        self.told.append(("stop", grace_s))


class Keeper:
    """An entry as far as saving goes."""

    saves_prompts = True


@pytest.fixture
def stopped(monkeypatch, tmp_path):
    """Stops a host with a process, twice; what that was told."""
    monkeypatch.setenv("LLMD_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(module, "room_bytes", lambda limit_bytes: limit_bytes - 1)

    async def stopped(process, *, entry=None, at_once=False):
        tasks = []

        def spawn_task(work):
            tasks.append(asyncio.ensure_future(work))
            return tasks[-1]

        hosting = Hosting(
            spawn_task=spawn_task, post=None, forget=None, learn=None, record=None,
            owner=Path("/s"), log_dir=Path("/log"), orphan_grace_s=1.0, saving=Saving(1000),
        )  # fmt: skip
        host = Host(1, "llama", "a", asyncio.get_running_loop().create_future())
        host.process, host.entry = process, entry
        hosting._hosts[1] = host
        hosting.stop(StopHost(1, "it is to go", at_once=at_once))
        hosting.stop(StopHost(1, "once is enough"))
        while any(not task.done() for task in tasks):
            await asyncio.gather(*tasks)
        assert host.stopping == "it is to go"
        return process.told

    return stopped


@pytest.mark.parametrize(("at_once", "grace_s"), [(True, 0.0), (False, GRACE_S)])
async def test_only_a_host_that_does_not_hang_is_asked_before_it_is_killed(
    stopped, at_once, grace_s
):
    assert await stopped(Process(), at_once=at_once) == [("stop", grace_s)]


SAVE = ("save", {"limit_bytes": 999, "within_s": SAVE_S})


async def test_prompts_are_saved_before_a_host_goes(stopped):
    assert await stopped(Process(), entry=Keeper()) == [SAVE, ("stop", GRACE_S)]


async def test_host_that_cannot_save_goes_all_the_same(stopped):
    earlier = HostFailedError(Failure("no such operation: 'save'"))
    assert await stopped(Process(saving=earlier), entry=Keeper()) == [SAVE, ("stop", GRACE_S)]


async def test_host_that_does_not_answer_is_not_waited_for_twice(stopped, monkeypatch):
    monkeypatch.setattr(module, "SAVE_S", 0.01)
    monkeypatch.setattr(module, "_ANSWER_S", 0.01)
    told = await stopped(Process(saving=60), entry=Keeper())
    assert [what for what, _ in told] == ["save", "stop"]
    assert told[-1] == ("stop", 0.0)


@pytest.mark.parametrize(
    ("state", "at_once"),
    [
        pytest.param("loading", False, id="it has served nobody"),
        pytest.param("ready", True, id="it hangs"),
        pytest.param("stopping", False, id="it is on its way"),
    ],
)
async def test_host_has_nothing_to_save_where(stopped, state, at_once):
    told = await stopped(Process(state=state), entry=Keeper(), at_once=at_once)
    assert [what for what, _ in told] == ["stop"]
