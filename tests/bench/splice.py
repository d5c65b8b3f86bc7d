"""A bare splice: what comes from a client goes to the engine, and back; nothing is looked at.

    python -m tests.bench.splice URL PORT

No proxy on uvloop can cost less, and this is no proxy: it knows an answer's end by its last bytes.
It stands for the machine: how many times its cost llmd adds can be compared between machines.
"""

import asyncio
import sys
from urllib.parse import urlsplit

import uvloop


ENDS = (b"}", b"\r\n0\r\n\r\n")


class Upstream(asyncio.Protocol):
    """A kept connection to the engine; free again with each answer."""

    client = None

    def __init__(self, free):
        self.free = free

    def connection_made(self, transport):
        self.transport = transport

    def data_received(self, data):
        client = self.client
        if data.endswith(ENDS):
            self.client = client.upstream = None
            self.free.append(self)
        client.transport.write(data)


class Client(asyncio.Protocol):
    """Has a connection to the engine while it waits for an answer."""

    upstream = task = None

    def __init__(self, free, connect):
        self.free = free
        self.connect = connect
        self.early = []

    def connection_made(self, transport):
        self.transport = transport

    def data_received(self, data):
        if self.upstream is None and self.free:
            self.take(self.free.pop())
        if self.upstream is not None:
            self.upstream.transport.write(data)
        else:
            self.early.append(data)
            self.task = self.task or asyncio.get_running_loop().create_task(self.take_new())

    def take(self, upstream):
        self.upstream, upstream.client = upstream, self

    async def take_new(self):
        self.take(await self.connect())
        self.upstream.transport.writelines(self.early)
        self.early, self.task = [], None


async def serve(host, engine, port):
    loop, free = asyncio.get_running_loop(), []

    async def connect():
        return (await loop.create_connection(lambda: Upstream(free), host, engine))[1]

    server = await loop.create_server(lambda: Client(free, connect), "127.0.0.1", port)
    await server.serve_forever()


if __name__ == "__main__":
    url = urlsplit(sys.argv[1])
    uvloop.run(serve(url.hostname, url.port, int(sys.argv[2])))
