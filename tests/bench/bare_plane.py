"""The data plane alone, for benchmarks: a gate that grants at once, one upstream."""

import asyncio

import uvloop

from llmd.errors import EngineDiedError
from llmd.proxy.gate import Destination, Lease, ModelCard, Upstream
from llmd.proxy.guard import Guard
from llmd.proxy.limits import Limits
from llmd.proxy.listener import PortListener
from llmd.proxy.pool import UpstreamPool


class InstantGate:
    """Grants every request a place at one upstream, before `arrive` returns."""

    def __init__(self, path: str) -> None:
        self.upstream = Upstream(path=path)
        self.tickets = 0

    def arrive(self, port, model, settled):
        self.tickets += 1
        settled(Lease("bench", self.upstream))
        return self.tickets

    def leave(self, ticket, *, served):
        pass

    def waiting(self, ticket):
        return "nothing"

    def destination(self, port, model):
        return Destination("bench")

    def autopsy(self, lease, explained):
        explained(EngineDiedError("the engine is gone"))

    def health(self, port):
        return {"ready": True}

    def models(self, port):
        return [ModelCard("bench", "ready")]


def run(path, pipe) -> None:
    """Serve until killed; sends the port through *pipe*."""

    async def serve():
        async with asyncio.TaskGroup() as tasks:
            pool = UpstreamPool(Limits(), tasks.create_task)
            listener = PortListener(0, InstantGate(path), Guard(), pool, Limits())
            await listener.start(hosts=["127.0.0.1"])
            pipe.send(listener.port)
            await asyncio.get_running_loop().create_future()

    uvloop.run(serve())
