"""A small gate, an engine that follows a script, and a client that sees every byte."""

import asyncio
import json
import re
from dataclasses import dataclass, field

from llmd.errors import EngineDiedError
from llmd.proxy.gate import BodyEdits, Destination, Lease, ModelCard, Upstream
from llmd.proxy.guard import Guard
from llmd.proxy.limits import Limits
from llmd.proxy.listener import PortListener
from llmd.proxy.pool import UpstreamPool


PATIENCE_S = 10.0
"""No wait in these tests lasts so long unless something is broken."""


class SmallGate:
    """Grants at once, or when told to with `grant` and `refuse` (`hold=True`).

    Attributes:
        waiting_tickets: What was held, oldest first: (ticket, model, settled).
        left: (ticket, served) of each `leave` of a ticket that was still out.
    """

    def __init__(self, upstream, *, hold=False):
        self.upstream = upstream
        self.hold = hold
        self.edits = BodyEdits()
        self.unsupported = frozenset()
        self.known_unsupported = frozenset()
        self.own_paths = None
        self.cards = [
            ModelCard("code", "ready", 4096, ("coder",), ("chat", "tools"), held_bytes=7),
            ModelCard("chat", "unloaded"),
        ]
        self.gateway = False
        self.healthy = {"state": "ready", "ready": True}
        self.arrived = []
        self.waiting_tickets = []
        self.out = set()
        self.left = []
        self.autopsies = []
        self.hold_autopsies = False
        self.repairs = []
        self._changed = asyncio.Event()

    def _note(self):
        self._changed.set()
        self._changed = asyncio.Event()

    async def until(self, condition):
        """Wait until *condition* holds; it is looked at whenever the gate was used."""
        async with asyncio.timeout(PATIENCE_S):
            while not condition():
                await self._changed.wait()

    def lease(self, ticket):
        return Lease("code", self.upstream, self.edits, self.unsupported, self.own_paths)

    # --- of `Gate` ---

    def arrive(self, port, model, settled):
        ticket = len(self.arrived) + 1
        self.arrived.append((port, model))
        self.out.add(ticket)
        if self.hold:
            self.waiting_tickets.append((ticket, model, settled))
        else:
            settled(self.lease(ticket))
        self._note()
        return ticket

    def leave(self, ticket, *, served):
        if ticket in self.out:
            self.out.discard(ticket)
            self.left.append((ticket, served))
            self._note()

    def waiting(self, ticket):
        assert ticket in self.out
        return "loading code, 40 %"

    def destination(self, port, model):
        return Destination("code", self.known_unsupported, self.own_paths)

    def autopsy(self, lease, explained):
        self.autopsies.append(explained)
        if not self.hold_autopsies:
            explained(EngineDiedError("the engine of code was killed by SIGKILL"))
        self._note()

    def repaired(self, profile, repair):
        self.repairs.append((profile, repair))

    def health(self, port):
        return self.healthy

    def models(self, port):
        return self.cards

    def is_gateway(self, port):
        return self.gateway

    # --- of tests ---

    async def grant(self):
        await self.until(lambda: self.waiting_tickets)
        ticket, _, settled = self.waiting_tickets.pop(0)
        settled(self.lease(ticket))

    async def refuse(self, error):
        await self.until(lambda: self.waiting_tickets)
        _, _, settled = self.waiting_tickets.pop(0)
        settled(error)


class EngineSide:
    """One connection to the scripted engine, seen from the engine."""

    def __init__(self, reader, writer, engine):
        self.reader, self.writer, self._engine = reader, writer, engine

    async def request(self):
        """The next request, or None at the end of the connection."""
        try:
            head = await self.reader.readuntil(b"\r\n\r\n")
        except (asyncio.IncompleteReadError, ConnectionResetError):
            return None
        length = re.search(rb"\r\ncontent-length: *(\d+)", head, re.IGNORECASE)
        body = await self.reader.readexactly(int(length[1])) if length else b""
        lines = head[:-4].split(b"\r\n")
        headers = {}
        for line in lines[1:]:
            name, _, value = line.partition(b":")
            headers.setdefault(name.lower().decode(), []).append(value.strip().decode("latin-1"))
        seen = SeenRequest(lines[0].decode(), headers, body)
        self._engine.requests.append(seen)
        self._engine.note()
        return seen

    async def send(self, data):
        self.writer.write(data)
        await self.writer.drain()

    async def answer(self, body=b'{"ok":true}', status="200 OK", headers=b""):
        await self.send(
            b"HTTP/1.1 %b\r\nContent-Type: application/json\r\n%bContent-Length: %d\r\n\r\n%b"
            % (status.encode(), headers, len(body), body)
        )

    async def stream_head(self, headers=b"Transfer-Encoding: chunked\r\n"):
        await self.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n%b\r\n" % headers)

    async def chunk(self, data):
        await self.send(b"%x\r\n%b\r\n" % (len(data), data))

    async def until_closed(self):
        """Wait until the other side has closed or reset the connection."""
        try:
            while await self.reader.read(65536):
                pass
        except ConnectionResetError:
            pass
        self._engine.closed += 1
        self._engine.note()

    def die(self):
        """Break the connection the way a killed process does."""
        self.writer.transport.abort()


@dataclass
class SeenRequest:
    line: str
    headers: dict[str, list[str]]
    body: bytes


async def always_ok(side):
    while await side.request() is not None:
        await side.answer()


class Engine:
    """Serves each connection with *script*, a coroutine function of an `EngineSide`."""

    def __init__(self, script):
        self.script = script or always_ok
        self.requests = []
        self.connections = 0
        self.closed = 0
        self.errors = []
        self._writers = set()
        self._tasks = set()
        self._changed = asyncio.Event()

    def note(self):
        self._changed.set()
        self._changed = asyncio.Event()

    async def until(self, condition):
        async with asyncio.timeout(PATIENCE_S):
            while not condition():
                await self._changed.wait()

    async def serve(self, reader, writer):
        self._tasks.add(asyncio.current_task())
        self._writers.add(writer)
        self.connections += 1
        self.note()
        try:
            await self.script(EngineSide(reader, writer, self))
        except ConnectionError:
            pass
        except asyncio.CancelledError:
            pass
        except Exception as exc:  # noqa: BLE001 - told by `Plane.__aexit__`
            self.errors.append(exc)
        finally:
            writer.close()
            self._tasks.discard(asyncio.current_task())

    async def stop(self):
        for task in list(self._tasks):
            task.cancel()
        if self._tasks:
            await asyncio.wait(list(self._tasks))
        for writer in self._writers:
            writer.transport.abort()


@dataclass
class Response:
    status: int
    headers: dict[str, str]
    body: bytes
    complete: bool = True
    interim: list[int] = field(default_factory=list)

    @property
    def json(self):
        return json.loads(self.body)

    @property
    def error(self):
        return self.json["error"]


class Client:
    """A raw connection to the port."""

    def __init__(self, reader, writer):
        self.reader, self.writer = reader, writer

    async def send(self, data):
        self.writer.write(data)
        await self.writer.drain()

    async def post(self, body=b'{"model":"any"}', path="/v1/chat/completions", headers=b""):
        await self.send(post(body, path, headers))
        return await self.response()

    async def get(self, path, headers=b"", method="GET"):
        await self.send(
            f"{method} {path} HTTP/1.1\r\nHost: localhost\r\n".encode() + headers + b"\r\n"
        )
        return await self.response(no_body=method == "HEAD")

    async def head(self):
        async with asyncio.timeout(PATIENCE_S):
            head = await self.reader.readuntil(b"\r\n\r\n")
        lines = head[:-4].decode("latin-1").split("\r\n")
        headers = {}
        for line in lines[1:]:
            name, _, value = line.partition(": ")
            assert name.lower() not in headers, f"{name} comes twice"
            headers[name.lower()] = value
        assert re.fullmatch(r"HTTP/1\.1 \d{3} [\w' -]*", lines[0]), lines[0]
        return int(lines[0].split(" ")[1]), headers

    async def response(self, *, no_body=False):
        """The next response; `complete` is false when the connection ended before it did."""
        interim = []
        status, headers = await self.head()
        while status < 200:
            interim.append(status)
            status, headers = await self.head()
        body, complete = b"", True
        async with asyncio.timeout(PATIENCE_S):
            if no_body or status in {204, 304}:
                pass
            elif "content-length" in headers:
                try:
                    body = await self.reader.readexactly(int(headers["content-length"]))
                except asyncio.IncompleteReadError as exc:
                    body, complete = exc.partial, False
                except ConnectionResetError:
                    complete = False
            elif "transfer-encoding" in headers:
                while True:
                    piece = await self.chunk()
                    if piece is None:
                        complete = False
                        break
                    if not piece:
                        break
                    body += piece
            else:
                body, complete = await self.rest()
        return Response(status, headers, body, complete, interim)

    async def chunk(self):
        """The next chunk; b"" at the end of the body, None when the connection ended."""
        try:
            async with asyncio.timeout(PATIENCE_S):
                size = int((await self.reader.readuntil(b"\r\n"))[:-2], 16)
                data = await self.reader.readexactly(size + 2)
        except (asyncio.IncompleteReadError, ConnectionResetError):
            return None
        assert data.endswith(b"\r\n")
        return data[:-2]

    async def rest(self):
        """All until the end of the connection, and whether that was a regular one."""
        data = b""
        try:
            async with asyncio.timeout(PATIENCE_S):
                while piece := await self.reader.read(65536):
                    data += piece
        except ConnectionResetError:
            return data, False
        return data, True

    def hang_up(self):
        self.writer.transport.abort()

    def close(self):
        self.writer.close()


def post(body=b'{"model":"any"}', path="/v1/chat/completions", headers=b""):
    return (
        f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n".encode()
        + headers
        + b"Content-Length: %d\r\n\r\n%b" % (len(body), body)
    )


STREAM = b'{"model":"any","stream":true}'


class Plane:
    """A listener, its gate and pool, in front of a scripted engine on a Unix socket."""

    def __init__(
        self, path, script=None, *, limits=None, guard=None, hold=False, hosts=("127.0.0.1",)
    ):
        self.path = str(path)
        self.engine = Engine(script)
        self.limits = limits or Limits()
        self.guard = guard or Guard()
        self.hosts = hosts
        self._hold = hold
        self._clients = []
        self._former = []

    async def __aenter__(self):
        self.tasks = set()
        self.gate = SmallGate(Upstream(path=self.path), hold=self._hold)
        self._server = await asyncio.start_unix_server(self.engine.serve, self.path)
        self.pool = UpstreamPool(self.limits, self._spawn)
        self.gone = asyncio.Event()
        self.listener = self._make_listener()
        await self.listener.start(hosts=self.hosts)
        return self

    def _make_listener(self):
        listener = PortListener(0, self.gate, self.guard, self.pool, self.limits)
        forget = listener._forget

        def forgotten(connection):
            forget(connection)
            self.gone.set()

        listener._forget = forgotten
        return listener

    async def hand_over(self):
        """Have a new listener in place of this one, as in another image."""
        self.listener.hold()
        assert await self.listener.settle(PATIENCE_S)
        standing = self.listener.hand_over()
        self.listener.close()
        self._former.append(self.listener)
        self.listener = self._make_listener()
        await self.take_over(standing)

    async def take_over(self, standing):
        await self.listener.start(sockets=standing.listening)
        for sock, unread in standing.clients:
            await self.listener.adopt(sock, unread)

    def _spawn(self, coroutine):
        task = asyncio.get_running_loop().create_task(coroutine)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        return task

    async def __aexit__(self, *exc):
        for client in self._clients:
            client.hang_up()
        for listener in (*self._former, self.listener):
            listener.close()
            assert await listener.drain(PATIENCE_S)
        self.pool.close()
        self._server.close()
        await self.engine.stop()
        if self.tasks:
            await asyncio.wait(list(self.tasks))
        if exc[0] is None:
            assert self.engine.errors == []
            assert self.gate.out == set(), "a ticket was not given back"
            for listener in (*self._former, self.listener):
                assert not listener.timer_running
            assert not self.pool.timer_running

    async def client(self, host="127.0.0.1", **options):
        client = Client(*await asyncio.open_connection(host, self.listener.port, **options))
        self._clients.append(client)
        return client


async def until(condition):
    """Let the event loop turn until *condition* holds."""
    async with asyncio.timeout(PATIENCE_S):
        while not condition():  # noqa: ASYNC110 - the kernel's deliveries make no event
            await asyncio.sleep(0)


def bytes_held(plane):
    return sum(len(connection.unread) for connection in plane.listener._connections)


async def silent_client(plane):
    """A client that has not sent anything; the port has noticed it."""
    before = plane.listener.connections
    client = await plane.client()
    await until(lambda: plane.listener.connections > before)
    return client
