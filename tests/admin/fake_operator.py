"""A daemon of four profiles, in memory, behind the real admin server on a thread of its own."""

import asyncio
import os
import queue
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import uvloop

from llmd.admin import wire
from llmd.admin.metrics import prometheus_text
from llmd.admin.server import AdminServer
from llmd.admin.socket import ControlSocket
from llmd.errors import LlmdError
from llmd.runtime.log import EventLog, LineLog


GIB = 2**30


class FakeOperator:
    """Loads and unloads at once, unless told otherwise.

    `fail[name]` is raised by whatever concerns *name* (`"reload"` by a reload). A load of a name in
    `hold` waits for its event. `done` receives one entry for each thing that came to an end.
    """

    def __init__(self, socket_path: Path, *, pid: int | None = None) -> None:
        self.fail: dict[str, Exception] = {}
        self.hold: dict[str, asyncio.Event] = {}
        self.stages: list[tuple[str, float | None]] = [("weights", 0.5), ("weights", 1.0)]
        self.done: queue.Queue[str] = queue.Queue()
        self.calls: list[tuple[Any, ...]] = []
        self.restarts = 0
        self.event_log = EventLog()
        self.line_log = LineLog()
        self.on_stop: Callable[[], None] = lambda: None
        self.ports: dict[int, dict[str, Any]] = {8080: {}, 8081: {}, 8082: {}, 8083: {}}
        self.by_name = {
            profile.name: profile
            for profile in (
                wire.Profile(
                    name="code",
                    engine="mlx",
                    port=8081,
                    state="ready",
                    footprint_bytes=18_468_000_000,
                    estimated_bytes=18_468_000_000,
                    measured_bytes=17_900_000_000,
                    in_flight=1,
                    sequences=2,
                    host_pid=4711,
                    loads=3,
                    requests=120,
                    load_s=6.2,
                    tokens_per_s=54.13,
                    context=65536,
                    aliases=("coder",),
                ),
                wire.Profile(
                    name="code6",
                    engine="mlx",
                    port=8081,
                    state="unloaded",
                    estimated_bytes=26 * GIB,
                ),
                wire.Profile(
                    name="chat",
                    engine="mlx",
                    port=8082,
                    state="ready",
                    pinned=True,
                    footprint_bytes=8 * GIB,
                    estimated_bytes=8 * GIB,
                    idle_s=65.0,
                    sequences=2,
                ),
                wire.Profile(
                    name="raw",
                    engine="llama.cpp",
                    port=8083,
                    state="failed",
                    estimated_bytes=5 * GIB,
                    last_error="raw exited with status 1 while loading: no such file",
                    retry_in_s=42.0,
                ),
            )
        }
        self._pid = os.getpid() if pid is None else pid
        self._socket_path = socket_path

    def status(self) -> wire.Status:
        self._maybe_fail("status")
        used = sum(profile.footprint_bytes for profile in self.by_name.values())
        return wire.Status(
            version="0.1.0",
            pid=self._pid,
            restarts=self.restarts,
            uptime_s=11_534.0,
            budget=wire.Budget(
                total_bytes=48 * GIB,
                used_bytes=used,
                free_bytes=48 * GIB - used,
                peak_bytes=30 * GIB,
            ),
            ports=tuple(self._port(number, extra) for number, extra in self.ports.items()),
            profiles=tuple(self.by_name.values()),
            spare=wire.Spare(
                kind="mlx", state="prepared", host_pid=4712, footprint_bytes=310 * 2**20
            ),
            config_path="/etc/llmd.yaml",
            socket_path=str(self._socket_path),
        )

    def _port(self, number: int, extra: dict[str, Any]) -> wire.Port:
        here = [p for p in self.by_name.values() if p.port == number]
        resident = next((p for p in here if p.footprint_bytes), None)
        fields: dict[str, Any] = {
            "port": number,
            "profile": resident.name if resident else None,
            "state": resident.state if resident else "unloaded",
            "listen": ("127.0.0.1", "::1"),
            "gateway": number == 8080,
        }
        return wire.Port(**fields | extra)

    def profiles(self) -> list[wire.Profile]:
        return list(self.by_name.values())

    async def load(
        self, name: str, *, pin: bool, ttl_s: float | None, progress: Callable[..., None]
    ) -> wire.LoadReport:
        self.calls.append(("load", name, pin, ttl_s))
        self.event_log.record("load.started", {"profile": name, "port": self.by_name[name].port})
        for stage, fraction in self.stages:
            progress(stage, fraction)
        self.done.put(f"load {name} began")
        if name in self.hold:
            await self.hold[name].wait()
        self._maybe_fail(name)
        before = self.by_name[name]
        port = before.port
        changed = before.state != "ready"
        evicted = []
        if changed:
            for other in self.by_name.values():
                if other.port == port and other.footprint_bytes:
                    self._set(other.name, state="unloaded", footprint_bytes=0, in_flight=0)
                    evicted.append(other.name)
        self._set(name, state="ready", footprint_bytes=before.estimated_bytes, pinned=pin)
        self.done.put(f"load {name} ended")
        return wire.LoadReport(
            profile=name,
            changed=changed,
            evicted=tuple(evicted),
            seconds=12.34 if changed else 0.0,
            footprint_bytes=before.estimated_bytes,
            port=port,
        )

    async def unload(self, name: str) -> wire.UnloadReport:
        self.calls.append(("unload", name))
        self._maybe_fail(name)
        before = self.by_name[name]
        if not before.footprint_bytes:
            return wire.UnloadReport()
        self._set(name, state="unloaded", footprint_bytes=0, in_flight=0)
        return wire.UnloadReport(unloaded=(name,), freed_bytes=before.footprint_bytes, seconds=0.4)

    async def unload_all(self) -> wire.UnloadReport:
        reports = [await self.unload(name) for name in self.by_name]
        return wire.UnloadReport(
            unloaded=tuple(name for report in reports for name in report.unloaded),
            freed_bytes=sum(report.freed_bytes for report in reports),
            seconds=1.5,
        )

    def pin(self, name: str, *, pinned: bool) -> None:
        self._maybe_fail(name)
        self._set(name, pinned=pinned)

    def plan(self, name: str) -> wire.PlanReport:
        self._maybe_fail(name)
        if name == "raw":
            return wire.PlanReport(
                profile=name, fits=False, need_bytes=5 * GIB, free_bytes=GIB, reason="backing off"
            )
        return wire.PlanReport(
            profile=name,
            fits=True,
            evict=(wire.Victim(profile="code", bytes=18_468_000_000, cost_s=6.2),),
            need_bytes=26 * GIB,
            free_bytes=22 * GIB,
            expected_s=9.5,
            reason="evicting code frees 17.2 GiB",
        )

    async def events(self, *, follow: bool, lines: int) -> Any:
        async for record in self._replay(self.event_log, follow=follow, lines=lines):
            yield record

    async def logs(self, name: str | None, *, follow: bool, lines: int) -> Any:
        if name is not None:
            self._maybe_fail(name)
        async for line in self._replay(self.line_log, follow=follow, lines=lines):
            yield line if name is None else f"{name}: {line}"

    async def _replay(self, log: Any, *, follow: bool, lines: int) -> Any:
        if not follow:
            for item in log.recent(lines):
                yield item
            return
        try:
            async for item in log.follow(lines):
                yield item
        finally:
            self.done.put("follower left")

    async def reload(self) -> wire.ReloadReport:
        self._maybe_fail("reload")
        return wire.ReloadReport(
            added=("lab",),
            changed=("chat", "raw"),
            unchanged=("code",),
            warnings=("lab: no weights",),
        )

    async def restart(self) -> wire.RestartReport:
        self._maybe_fail("restart")
        self.calls.append(("restart",))
        self.restarts += 1
        return wire.RestartReport(restarts=self.restarts - 1)

    def stop(self) -> None:
        self.calls.append(("stop",))
        self.on_stop()

    def metrics(self) -> str:
        return prometheus_text(self.status())

    def _set(self, name: str, **changes: Any) -> None:
        self.by_name[name] = msgspec.structs.replace(self.by_name[name], **changes)

    def _maybe_fail(self, name: str) -> None:
        if name in self.fail:
            raise self.fail[name]


class Served:
    """A running server, seen from the thread of the test."""

    def __init__(self, operator: FakeOperator, path: Path) -> None:
        self.operator = operator
        self.path = path
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closing: asyncio.Event | None = None
        self._closed = False

    def call(self, function: Callable[[], Any]) -> Any:
        """Run *function* on the server's loop, and wait for it."""

        async def run() -> Any:
            return function()

        assert self._loop is not None
        return asyncio.run_coroutine_threadsafe(run(), self._loop).result(10)

    def hold(self, name: str) -> None:
        """Loads of *name* wait from now on."""
        self.operator.hold[name] = self.call(asyncio.Event)

    def release(self, name: str) -> None:
        """Let the loads of *name* end."""
        self.call(self.operator.hold[name].set)

    def wait_for(self, what: str) -> None:
        """Until the operator reports *what*."""
        while self.operator.done.get(timeout=10) != what:
            pass

    def close(self) -> None:
        """Begin to close the server; does not wait. Idempotent."""
        assert self._closing is not None
        if not self._closed:
            self._closed = True
            self.call(self._closing.set)

    async def serve(self, started: threading.Event, uid: int | None) -> None:
        self._loop = asyncio.get_running_loop()
        self._closing = asyncio.Event()
        try:
            async with AdminServer(self.operator, ControlSocket(self.path), uid=uid):
                started.set()
                await self._closing.wait()
        finally:
            started.set()


@contextmanager
def served(path: Path, *, uid: int | None = None, pid: int | None = None) -> Iterator[Served]:
    """The real server on a thread, on the daemon's kind of loop."""
    server = Served(FakeOperator(path, pid=pid), path)
    started = threading.Event()
    failures: list[BaseException] = []

    def run() -> None:
        try:
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                runner.run(server.serve(started, uid))
        except BaseException as error:  # noqa: BLE001  # raised by the test
            failures.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        assert started.wait(10)
        yield server
    finally:
        if thread.is_alive() and not failures:
            server.close()
        thread.join(20)
        assert not thread.is_alive()
    if failures:
        raise failures[0]


__all__ = ["FakeOperator", "LlmdError", "Served", "served"]
