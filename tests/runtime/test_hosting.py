"""What hosts are told, and how long they are given."""

import asyncio
from pathlib import Path

import pytest

from llmd.core.events import StopHost
from llmd.runtime.hosting import GRACE_S, Host, Hosting


class Process:
    """A host's process that notes how it was stopped."""

    def __init__(self):
        self.graces = []
        self.exited = asyncio.get_running_loop().create_future()
        self.exited.set_result(0)

    async def stop(self, *, grace_s):
        self.graces.append(grace_s)


@pytest.mark.parametrize(("at_once", "grace_s"), [(True, 0.0), (False, GRACE_S)])
async def test_only_a_host_that_does_not_hang_is_asked_before_it_is_killed(at_once, grace_s):
    tasks = []

    def spawn_task(work):
        tasks.append(asyncio.ensure_future(work))
        return tasks[-1]

    hosting = Hosting(
        spawn_task=spawn_task, post=None, forget=None, learn=None, record=None,
        owner=Path("/s"), log_dir=Path("/log"), orphan_grace_s=1.0,
    )  # fmt: skip
    host = Host(1, "llama", "a", asyncio.get_running_loop().create_future())
    host.process = Process()
    hosting._hosts[1] = host

    hosting.stop(StopHost(1, "it is to go", at_once=at_once))
    hosting.stop(StopHost(1, "once is enough"))
    await asyncio.gather(*tasks)

    assert host.process.graces == [grace_s]
    assert host.stopping == "it is to go"
