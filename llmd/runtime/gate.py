"""The door between the data plane and the decisions."""

import asyncio
import time
from typing import TYPE_CHECKING, Any, Final

import structlog

from llmd.core.death import judge
from llmd.core.events import RequestArrived, RequestFinished
from llmd.errors import EngineDiedError, LlmdError, QueueFullError, UnloadedError
from llmd.proxy.gate import Destination, Explained, Lease, ModelCard, Repair, Settled
from llmd.runtime import clock
from llmd.runtime.cards import card_of


if TYPE_CHECKING:
    from llmd.runtime.daemon import Daemon
    from llmd.runtime.hosting import Host


AUTOPSY_S: Final = 1.0
"""How long the exit of a host that broke a connection is waited for."""

REPAIRS_KEPT: Final = 1_000
"""Repairs of tools that are remembered as told."""

log = structlog.get_logger("llmd.gate")


class DaemonGate:
    """Implements `llmd.proxy.gate.Gate` on the daemon."""

    def __init__(self, daemon: "Daemon") -> None:
        self._daemon = daemon
        self._repairs: set[tuple[str, Repair]] = set()
        """Those that were told already."""
        self._since_s = int(time.time())

    def arrive(self, port: int, model: str | None, settled: Settled) -> int:
        """Post the request; a ready host settles it before this returns."""
        ticket = self._daemon.new_ticket()
        self._daemon.waiting[ticket] = settled
        if self._daemon.catalogue.faulty:
            name = self._daemon.scheduler.destination(port, model)
            if name in self._daemon.catalogue.faulty:
                self._daemon.spawn_task(self._examine_first(ticket, port, model, name))
                return ticket
        self._daemon.dispatch(RequestArrived(ticket, port, model))
        return ticket

    async def _examine_first(self, ticket: int, port: int, model: str | None, name: str) -> None:
        """Weights that were missing may be there now: look before refusing."""
        await self._daemon.examine(name)
        if ticket in self._daemon.waiting:  # its client has not hung up
            self._daemon.dispatch(RequestArrived(ticket, port, model))

    def leave(self, ticket: int, *, served: bool) -> None:
        """Give the place back."""
        self._daemon.waiting.pop(ticket, None)
        self._daemon.dispatch(RequestFinished(ticket, served=served))

    def waiting(self, ticket: int) -> str:
        """What the request waits for."""
        return self._daemon.scheduler.explain(ticket) or "waiting for the engine"

    def destination(self, port: int, model: str | None) -> Destination | None:
        """The profile that the request would go to."""
        name = self._daemon.scheduler.destination(port, model)
        if name is None:
            return None
        entry = self._daemon.catalogue[name]
        return Destination(name, entry.unsupported, entry.own_paths)

    def autopsy(self, lease: Lease, explained: Explained) -> None:
        """Wait for the exit of the lease's host, and tell what it says."""
        self._daemon.spawn_task(self._explain(lease, explained))

    async def _explain(self, lease: Lease, explained: Explained) -> None:
        host = next((h for h in self._daemon.hosting if h.upstream is lease.upstream), None)
        if host is not None:
            try:
                await asyncio.wait_for(host.gone.wait(), AUTOPSY_S)
            except TimeoutError:
                host = None
        explained(self._verdict(lease, host))

    def _verdict(self, lease: Lease, host: "Host | None") -> LlmdError:
        if host is not None and host.stopping is not None:
            return EngineDiedError(
                f"{lease.profile} was stopped while it answered: {host.stopping}",
                remedy="send the request again",
            )
        views = self._daemon.snapshot().profiles if host is not None else ()
        cause = next((view.last_error for view in views if view.name == lease.profile), None)
        detail = f": {cause}" if cause else ""
        process = host.process if host is not None else None
        remedy = judge(process.failure()).remedy if process is not None else ""
        return EngineDiedError(
            f"the engine of {lease.profile} broke off{detail}",
            remedy=f"send the request again; {remedy or f'see `llmd-ctl logs {lease.profile}`'}",
        )

    def repaired(self, profile: str, repair: Repair) -> None:
        """Record what is new; a client offers the same tools with each request."""
        if (profile, repair) in self._repairs:
            return
        if len(self._repairs) >= REPAIRS_KEPT:
            self._repairs.clear()
        self._repairs.add((profile, repair))
        fields = {"profile": profile, "tool": repair.tool, "dropped": list(repair.dropped)}
        log.info("tools.repaired", **fields)
        self._daemon.events.record("tools.repaired", fields)

    def health(self, port: int) -> dict[str, Any]:
        """Whether a request would be served that comes now, and what is there.

        `failed` when it would be refused whatever it names, `degraded` when only for the profile
        that requests without a name get. A full queue is no failure.
        """
        snapshot = self._daemon.snapshot()
        view = next((view for view in snapshot.ports if view.port == port), None)
        found = self._soundness(port)
        if view is None:  # the gateway, or a port that a service manager holds without a profile
            ready = self.is_gateway(port) and any(v.state == "ready" for v in snapshot.ports)
            return {"state": "ready" if ready else "unloaded", "ready": ready, **found}
        return {
            **found,
            "state": view.state,
            "profile": view.profile,
            "ready": view.state == "ready",
            "in_flight": view.in_flight,
            "queued": view.queued,
        }

    def _soundness(self, port: int) -> dict[str, Any]:
        """The `status` of *port*, and the error that stands behind it."""
        scheduler, now, names = self._daemon.scheduler, clock.now(), self._names(port)
        found = {name: scheduler.objection(name, now) for name in names}
        refused = {n: e for n, e in found.items() if e and not isinstance(e, QueueFullError)}
        nameless = scheduler.destination(port, None) or ""
        if len(refused) == len(names):
            gone = UnloadedError(f"port {port} has no profile any more")
            first = next(iter(refused.values()), gone)
            return {"status": "failed", **refused.get(nameless, first).to_openai()}
        if nameless in refused:
            return {"status": "degraded", **refused[nameless].to_openai()}
        return {"status": "ok"}

    def models(self, port: int) -> list[ModelCard]:
        """The profiles of *port*, or all on the gateway."""
        views = {view.name: view for view in self._daemon.snapshot().profiles}
        return [
            card_of(self._daemon.catalogue[name], views.get(name), since_s=self._since_s)
            for name in self._names(port)
        ]

    def _names(self, port: int) -> list[str]:
        everything = self.is_gateway(port)
        entries = self._daemon.catalogue.items()
        return [name for name, entry in entries if everything or entry.profile.port == port]

    def is_gateway(self, port: int) -> bool:
        """Whether *port* is the configuration's gateway."""
        gateway = self._daemon.config.gateway
        return gateway is not None and port == gateway.port
