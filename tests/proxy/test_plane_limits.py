"""Clients that send too much, too slowly, or do not read."""

import asyncio
import socket

import pytest

from llmd.proxy.client import ClientConnection
from llmd.proxy.limits import Limits
from tests.proxy.doubles import STREAM, post


HEAD = b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\n"


async def send_all(client, total, piece=b"x" * 65536):
    """Send *total* bytes, as far as the other side takes them."""
    try:
        for _ in range(0, total, len(piece)):
            await client.send(piece)
    except ConnectionError:
        return False
    return True


async def test_body_beyond_the_limit_is_refused_while_it_is_still_sent(start):
    plane = await start(limits=Limits(max_body_bytes=1000))
    client = await plane.client()
    size = 100 * 2**20

    await client.send(HEAD + b"Content-Length: %d\r\n\r\n" % size)
    sent = await send_all(client, size)
    response = await client.response()

    assert sent
    assert (response.status, response.error["code"]) == (413, "too_large")
    assert "max_body" in response.error["remedy"]
    assert response.headers["connection"] == "close"
    assert await client.rest() == (b"", True)
    assert plane.gate.arrived == []


async def test_chunked_body_beyond_the_limit_is_refused_while_it_is_still_sent(start):
    plane = await start(limits=Limits(max_body_bytes=10**6))
    client = await plane.client()
    chunk = b"10000\r\n" + b"x" * 65536 + b"\r\n"

    await client.send(HEAD + b"Transfer-Encoding: chunked\r\n\r\n")
    sent = await send_all(client, 50 * 2**20, chunk)

    assert sent
    assert (await client.response()).status == 413


async def test_body_of_exactly_the_limit_is_taken(start):
    plane = await start(limits=Limits(max_body_bytes=1000))
    client = await plane.client()
    body = b'{"x":"' + b"y" * 992 + b'"}'

    assert (await client.post(body)).status == 200
    assert (await client.post(body + b" ")).status == 413


async def test_client_that_never_stops_sending_is_cut_off(start):
    plane = await start(limits=Limits(max_body_bytes=1000, max_linger_bytes=10**6))
    client = await plane.client()

    await client.send(HEAD + b"Content-Length: 100000000\r\n\r\n")

    assert not await send_all(client, 50 * 2**20)


async def test_refused_client_that_sends_nothing_more_is_closed_in_time(start):
    plane = await start(limits=Limits(max_body_bytes=10, linger_s=0.05))
    client = await plane.client()

    await client.send(HEAD + b"Content-Length: 1000\r\n\r\n")

    assert (await client.response()).status == 413
    assert (await client.rest())[0] == b""


async def test_headers_beyond_the_limit_are_a_431(start):
    plane = await start()
    client = await plane.client()

    await client.send(HEAD + b"X: " + b"a" * 70_000)

    response = await client.response()
    assert (response.status, response.error["code"]) == (431, "too_large")


async def test_too_many_headers_are_a_431(start):
    plane = await start()
    client = await plane.client()

    await client.send(HEAD + b"X: 1\r\n" * 200 + b"\r\n")

    assert (await client.response()).status == 431


@pytest.mark.parametrize("part", [b"P", HEAD, HEAD[:-2], b"GET / HTTP/1.1\r\nHost: localhost\r\n"])
async def test_unfinished_head_is_a_408(start, part):
    plane = await start(limits=Limits(head_timeout_s=0.05))
    client = await plane.client()

    await client.send(part)

    response = await client.response()
    assert (response.status, response.error["code"]) == (408, "request_timeout")
    client.close()


async def test_head_that_drips_is_a_408_all_the_same(start):
    plane = await start(limits=Limits(head_timeout_s=0.1))
    client = await plane.client()

    async def drip():
        while True:
            await client.send(b"a")
            await asyncio.sleep(0.02)

    await client.send(HEAD + b"X: ")
    dripping = asyncio.ensure_future(drip())
    response = await client.response()
    dripping.cancel()

    assert response.status == 408


@pytest.mark.parametrize(
    "part",
    [
        HEAD + b"Content-Length: 10\r\n\r\n",
        HEAD + b"Content-Length: 10\r\n\r\n{",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n5\r\n{",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n",
        HEAD + b"Expect: 100-continue\r\nContent-Length: 10\r\n\r\n",
    ],
)
async def test_unfinished_body_is_a_408(start, part):
    plane = await start(limits=Limits(body_timeout_s=0.05))
    client = await plane.client()

    await client.send(part)

    response = await client.response()
    assert response.status == 408
    assert "body" in response.error["message"]
    assert plane.gate.arrived == []


@pytest.mark.parametrize(
    ("head", "drop"),
    [
        (b"Content-Length: 1000000\r\n\r\n", b"x"),
        (b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n"),
    ],
)
async def test_body_that_drips_is_a_408_though_it_is_never_silent(start, head, drop):
    plane = await start(limits=Limits(body_timeout_s=0.1, body_step_bytes=2**20))
    client = await plane.client()
    await client.send(HEAD + head)
    answer = asyncio.ensure_future(client.response())

    drops = 0
    while not answer.done() and drops < 500:
        await client.send(drop)
        drops += 1
        await asyncio.wait([answer], timeout=0.01)

    assert answer.done()
    assert answer.result().status == 408
    assert drops > 3


async def test_connection_that_says_nothing_is_closed(start):
    plane = await start(limits=Limits(head_timeout_s=0.05))
    client = await plane.client()

    assert await client.rest() == (b"", True)


async def test_kept_connection_that_says_nothing_is_closed(start):
    plane = await start(limits=Limits(keep_alive_s=0.05))
    client = await plane.client()
    await client.post()

    assert await client.rest() == (b"", True)


async def test_malformed_request_is_a_400_and_the_end_of_the_connection(start):
    plane = await start()
    client = await plane.client()

    await client.send(HEAD + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\nab" + post())

    response = await client.response()
    assert (response.status, response.error["code"]) == (400, "invalid_request")
    assert response.headers["connection"] == "close"
    assert await client.rest() == (b"", True)
    assert plane.gate.arrived == []


async def test_https_client_is_told_so(start):
    plane = await start()
    client = await plane.client()

    await client.send(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03")

    assert "plain HTTP" in (await client.response()).error["message"]


async def test_connection_beyond_the_limit_is_a_503(start):
    plane = await start(limits=Limits(max_connections=2))
    kept = [await plane.client() for _ in range(2)]
    for client in kept:
        assert (await client.get("/health")).status == 200

    response = await (await plane.client()).response()

    assert (response.status, response.error["code"]) == (503, "too_many_connections")
    assert (await kept[0].get("/health")).status == 200


@pytest.fixture
def paused(monkeypatch):
    """Set when a client connection's write buffer has filled up."""
    event = asyncio.Event()
    original = ClientConnection.pause_writing

    def pause_writing(self):
        original(self)
        event.set()

    monkeypatch.setattr(ClientConnection, "pause_writing", pause_writing)
    return event


def narrow():
    """A client socket that buffers little."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16 * 1024)
    return sock


async def slow_client(plane):
    sock = narrow()
    sock.setblocking(False)  # noqa: FBT003
    await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", plane.listener.port))
    from tests.proxy.doubles import Client

    reader, writer = await asyncio.open_connection(sock=sock, limit=16 * 1024)
    client = Client(reader, writer)
    plane._clients.append(client)
    return client


async def test_slow_reader_holds_the_engine_back_and_memory_stays_flat(start, paused):
    piece, pieces = b"x" * 65536, 1000
    sent = 0

    async def script(side):
        nonlocal sent
        await side.request()
        await side.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (len(piece) * pieces))
        for _ in range(pieces):
            await side.send(piece)
            sent += len(piece)
        await side.until_closed()

    plane = await start(script)
    client = await slow_client(plane)
    await client.send(post())
    async with asyncio.timeout(10):
        await paused.wait()

    (connection,) = plane.listener._connections
    assert connection._transport.get_write_buffer_size() < 1_000_000
    assert sent < 20_000_000
    assert plane.gate.left == []

    response = await client.response()

    assert response.complete
    assert response.body == piece * pieces
    assert plane.gate.left == [(1, True)]


async def test_slow_reader_of_a_stream_gets_every_event(start, paused):
    event, events = b"data: " + b"x" * 10_000 + b"\n\n", 1000

    async def script(side):
        await side.request()
        await side.stream_head()
        for _ in range(events):
            await side.chunk(event)
        await side.chunk(b"data: [DONE]\n\n")
        await side.send(b"0\r\n\r\n")
        await side.until_closed()

    plane = await start(script, limits=Limits(comment_s=0.02))
    client = await slow_client(plane)
    await client.send(post(STREAM))
    async with asyncio.timeout(10):
        await paused.wait()

    response = await client.response()

    body = response.body.replace(b": loading code, 40 %\n\n", b"")
    assert body == event * events + b"data: [DONE]\n\n"


async def test_reader_that_has_stopped_is_cut_off_and_the_engine_freed(start, paused):
    async def script(side):
        await side.request()
        await side.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n")
        await side.send(b"x" * 100_000_000)

    plane = await start(script, limits=Limits(stall_s=0.1))
    client = await slow_client(plane)
    await client.send(post())
    await paused.wait()

    await plane.gate.until(lambda: plane.gate.left == [(1, False)])

    response = await client.response()
    assert not response.complete


async def test_client_that_pipelines_without_reading_is_held_back(start, paused):
    plane = await start(limits=Limits(max_pipelined_bytes=10_000))
    client = await slow_client(plane)
    plane.gate.cards *= 100
    count = 1000
    request = b"GET /v1/models HTTP/1.1\r\nHost: localhost\r\nX: %b\r\n\r\n" % (b"x" * 20_000)

    async def send():
        for _ in range(count):
            await client.send(request)

    sending = asyncio.ensure_future(send())
    await paused.wait()
    (connection,) = plane.listener._connections
    for number in range(count):
        assert (await client.response()).status == 200
        assert connection._transport.get_write_buffer_size() < 1_000_000
        assert connection._reader.pending < 1_000_000, number
    await sending


async def test_what_is_sent_behind_a_waiting_request_is_bounded(start):
    plane = await start(hold=True, limits=Limits(max_pipelined_bytes=10_000))
    client = await plane.client()
    await client.send(post())
    await plane.gate.until(lambda: plane.gate.waiting_tickets)

    sending = asyncio.ensure_future(client.send(post(b'{"x":"' + b"y" * 30_000_000 + b'"}')))
    plane.gate.hold = False
    # The kernel takes some of it, the connection at most one read more than allowed.
    (connection,) = plane.listener._connections
    await plane.gate.grant()

    assert (await client.response()).status == 200
    assert connection._reader.pending < 1_000_000
    assert (await client.response()).status == 200
    await sending
