"""One chaos run: rounds of traffic and faults, each with a rest after it in which all is well."""

import asyncio
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.chaos.clients import ANSWER_S, Client
from tests.chaos.faults import Faults, cancelled
from tests.chaos.invariants import Observer
from tests.chaos.script import (
    PORT_OF,
    Action,
    Ask,
    Command,
    DaemonFault,
    HostFault,
    Reload,
    rounds,
)
from tests.chaos.tally import Tally
from tests.chaos.world import World
from tests.conftest import ROOT


def chaos(seconds: float, seed: int, say=lambda _text: None) -> Tally:
    """Rounds of *seed* until *seconds* are over; returns what was done and seen."""
    tally = Tally()
    with tempfile.TemporaryDirectory(
        prefix="llmd-", dir="/tmp", ignore_cleanup_errors=True
    ) as directory:
        world = World(Path(directory), tally)
        observer = Observer(world, tally)
        try:
            world.start()
            asyncio.run(run(world, observer, seconds, seed, say))
        finally:
            world.close()
            observer.look_for_remains()
            if tally.violations:
                kept = ROOT / "build" / f"chaos-{seed}.log"
                kept.write_bytes(world.llmd.log_file.read_bytes())
                say(f"the daemon's log is kept in {kept.relative_to(ROOT)}")
    return tally


async def run(world: World, observer: Observer, seconds: float, seed: int, say):
    deadline = time.monotonic() + seconds
    tally, faults = world.tally, Faults(world, world.tally)
    # Administrators wait in threads: each for a load or a drain.
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(64))
    await observer.look_closely()
    await observer.look_at_rest()
    async with cancelled(asyncio.ensure_future(observer.watch())):
        for number, actions in enumerate(rounds(seed), 1):
            clients, doings = await play(actions, world, faults)
            await asyncio.gather(*doings)  # the last fault is over
            await observer.look_closely()
            async with asyncio.timeout(ANSWER_S + 5):
                await asyncio.gather(*clients)
            await observer.look_at_rest()
            say(
                f"round {number}: {sum(tally.outcomes.values())} requests, "
                f"{sum(tally.done.values())} faults and commands, "
                f"{len(tally.violations)} violations"
            )
            if time.monotonic() >= deadline:
                return


async def play(actions: tuple[Action, ...], world: World, faults: Faults):
    """Start each action at its time; returns the clients and the other doings, which may go on."""
    began = time.monotonic()
    clients, doings = [], []
    for action in actions:
        await asyncio.sleep(max(0.0, began + action.at_s - time.monotonic()))
        match action.what:
            case Ask() as ask:
                client = Client(ask, world.ports, PORT_OF[ask.profile], world.tally)
                clients.append(asyncio.ensure_future(client.run()))
            case Command() as command:
                doings.append(asyncio.ensure_future(faults.command(command)))
            case Reload() as reload:
                doings.append(asyncio.ensure_future(faults.reload(reload)))
            case HostFault() as fault:
                doings.append(asyncio.ensure_future(faults.host(fault)))
            case DaemonFault() as fault:
                doings.append(asyncio.ensure_future(faults.daemon(fault)))
    return clients, doings
