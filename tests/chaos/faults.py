"""Carries out what the script says: commands, changed files, signals, and what befalls a daemon."""

import asyncio
import contextlib
import os
import signal
import time

from tests.chaos.script import Command, DaemonFault, HostFault, Reload
from tests.chaos.tally import Tally
from tests.chaos.world import World


COMMAND_S = 90.0
"""For an administrator's command; it waits for loads, drains and deaf programs."""
SIGNALS = {"SIGKILL": signal.SIGKILL, "SIGKILL tree": signal.SIGKILL, "SIGABRT": signal.SIGABRT}
REFUSALS = range(400, 505)


class Faults:
    """Does to *world* what it is told, and writes down what connections may suffer from it."""

    def __init__(self, world: World, tally: Tally):
        self.world = world
        self.tally = tally
        self._one_at_a_time = asyncio.Lock()  # killed, restarted: not while it is away

    # --- administrators

    async def command(self, command: Command):
        name, profile = command.name, command.profile
        await self._ask(
            name,
            *{
                "load": ("POST", f"/v1/profiles/{profile}/load"),
                "load for a moment": ("POST", f"/v1/profiles/{profile}/load", {"ttl_s": 1}),
                "load and pin": ("POST", f"/v1/profiles/{profile}/load", {"pin": True}),
                "unload": ("POST", f"/v1/profiles/{profile}/unload"),
                "unload all": ("POST", "/v1/unload"),
                "pin": ("POST", f"/v1/profiles/{profile}/pin"),
                "unpin": ("POST", f"/v1/profiles/{profile}/unpin"),
                "plan": ("GET", f"/v1/profiles/{profile}/plan"),
            }[name],
        )

    async def reload(self, reload: Reload):
        self.world.write(reload.how, reload.profile)
        if reload.how == "removed":
            self.tally.cut()  # who has asked half a question on a port that is closed
        await self._ask(f"reload: {reload.how}", "POST", "/v1/reload")

    async def _ask(self, name, method, path, body=None):
        """Whether it was done, or at least begun."""
        began = time.monotonic()
        self.tally.done[f"command: {name}"] += 1
        status, answer = await self.world.admin(method, path, body, COMMAND_S)
        if status in (200, 202):
            return True
        if status == 0:
            if not self.tally.may_be_refused(began):
                self.tally.violated(f"{name}: no answer, {answer}")
        elif status not in REFUSALS or "error" not in (answer or ()):
            self.tally.violated(f"{name}: {status} {answer}")
        return False

    # --- hosts

    async def host(self, fault: HostFault):
        pid = await self.world.host_of(fault.profile)
        if pid is None:
            self.tally.done["(nobody to send a signal to)"] += 1
            return
        if fault.name == "SIGSTOP":
            self.tally.cut(fault.seconds + 2)
            self.world.stopped.add(pid)
            self.world.signal(pid, signal.SIGSTOP)
            self.tally.done["host: SIGSTOP, then SIGCONT"] += 1
            await asyncio.sleep(fault.seconds)
            self.world.signal(pid, signal.SIGCONT)
            self.world.stopped.discard(pid)
            return
        self.tally.cut()
        if self.world.signal(pid, SIGNALS[fault.name], tree=fault.name.endswith("tree")):
            self.tally.done[f"host: {fault.name}"] += 1

    # --- the daemon

    async def daemon(self, fault: DaemonFault):
        async with self._one_at_a_time:
            await getattr(self, "_" + fault.name.replace(" ", "_").replace("-", "_"))(fault)

    async def _kill(self, fault):
        self.tally.done["daemon: SIGKILL, started again"] += 1
        self.tally.leave()
        self.world.kill()
        await asyncio.sleep(fault.seconds * 2)  # some grace is left, or none
        await asyncio.to_thread(self.world.start)
        self.tally.come_back()

    async def _restart(self, _fault):
        before = await self.world.status()
        if before is None or not await self._ask("restart", "POST", "/v1/restart"):
            return
        # It answers before it goes; what was idle is passed on, what was asked is answered.
        deadline = time.monotonic() + COMMAND_S
        while time.monotonic() < deadline:
            now = await self.world.status()
            if now is not None and now["restarts"] > before["restarts"]:
                return
            await asyncio.sleep(0.1)
        self.tally.violated(f"no restart within {COMMAND_S:.0f} s")

    async def _disk_full(self, fault):
        if not self.world.disk:
            self.tally.done["(no disk to fill: mount is not permitted)"] += 1
            return
        self.tally.done["daemon: disk full"] += 1
        with self.world.full_disk():
            await asyncio.sleep(fault.seconds)

    async def _disk_read_only(self, fault):
        if not self.world.disk and os.geteuid() == 0:
            self.tally.done["(no read-only disk: root writes everywhere)"] += 1
            return
        self.tally.done["daemon: disk read-only"] += 1
        with self.world.read_only_disk():
            await asyncio.sleep(fault.seconds)

    async def _few_descriptors(self, fault):
        if not hasattr(self.world.process(), "rlimit"):
            self.tally.done["(descriptors of others cannot be limited here)"] += 1
            return
        self.tally.done["daemon: few descriptors"] += 1
        self.tally.leave()  # new connections may be turned away
        with self.world.few_descriptors(fault.amount):
            await asyncio.sleep(fault.seconds)
        self.tally.come_back()

    async def _clock_jump(self, fault):
        if self.world.clock.library is None:
            self.tally.done["(no clock to set: it needs Linux and a C compiler)"] += 1
            return
        self.tally.done["daemon: the clock jumps"] += 1
        self.world.clock.jump(fault.amount)
        await asyncio.sleep(fault.seconds)

    async def _spare(self, _fault):
        pid = await self.world.spare()
        if pid is not None and self.world.signal(pid, signal.SIGKILL):
            self.tally.cut()
            self.tally.done["spare: SIGKILL"] += 1


@contextlib.asynccontextmanager
async def cancelled(task):
    """Ends *task* at exit."""
    try:
        yield task
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
