"""Engines that break their word, at each stage of a request."""

import asyncio
import json
import socket

import pytest

from llmd.proxy.gate import Upstream
from llmd.proxy.limits import Limits
from tests.proxy.doubles import STREAM, post
from tests.proxy.test_plane_waiting import COMMENT, events


SOON = Limits(comment_s=0.02)


async def stream_until_end(client):
    """The body of a stream that has begun, and whether it was framed to its end."""
    body = b""
    while chunk := await client.chunk():
        body += chunk
    return body, chunk == b""


async def test_engine_that_is_not_there_is_a_502_with_the_reason(start):
    plane = await start()
    plane.gate.upstream = Upstream(path=plane.path + ".gone")
    client = await plane.client()

    response = await client.post()

    assert (response.status, response.error["code"]) == (502, "engine_died")
    assert "SIGKILL" in response.error["message"]
    assert plane.gate.left == [(1, False)]
    assert (await client.get("/health")).status == 200


async def test_tcp_engine_that_refuses_is_a_502(start):
    plane = await start()
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        plane.gate.upstream = Upstream(port=unused.getsockname()[1])
        client = await plane.client()

        response = await client.post()

    assert response.status == 502
    assert response.error["message"].endswith(": Connection refused")


async def test_name_that_nobody_knows_is_a_502(start):
    plane = await start()

    async def look_up(*args, **kwargs):
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    plane.pool._open = look_up
    client = await plane.client()

    response = await client.post()

    assert response.error["code"] == "engine_died"
    assert "Name or service not known" in response.error["message"]


async def test_engine_that_does_not_accept_in_time_is_a_502(start):
    plane = await start(limits=Limits(connect_timeout_s=0.05))
    plane.gate.upstream = Upstream(host="127.0.0.1", port=1)

    async def never(*args, **kwargs):
        await asyncio.Event().wait()

    plane.pool._open = never
    client = await plane.client()

    assert (await client.post()).status == 502


@pytest.mark.parametrize(
    "sent", [b"", b"HTTP/1.1 200", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n"]
)
@pytest.mark.parametrize("way", ["reset", "close"])
async def test_death_before_the_head_is_a_502(start, sent, way):
    async def script(side):
        await side.request()
        await side.send(sent)
        if way == "reset":
            side.die()

    plane = await start(script)
    client = await plane.client()

    response = await client.post()

    assert (response.status, response.error["code"]) == (502, "engine_died")
    assert plane.gate.left == [(1, False)]
    assert len(plane.gate.autopsies) == 1
    assert plane.engine.connections == 1


async def test_death_within_an_error_is_a_502(start):
    async def script(side):
        await side.request()
        await side.send(b"HTTP/1.1 500 Oops\r\nContent-Length: 50\r\n\r\n{")
        side.die()

    plane = await start(script)
    client = await plane.client()

    assert (await client.post()).status == 502


async def test_answer_waits_for_the_autopsy(start):
    async def script(side):
        await side.request()
        side.die()

    plane = await start(script)
    plane.gate.hold_autopsies = True
    client = await plane.client()
    await client.send(post())
    await plane.gate.until(lambda: plane.gate.autopsies)
    assert plane.gate.left == []

    plane.gate.hold_autopsies = False
    plane.gate.autopsy(None, plane.gate.autopsies[0])

    assert (await client.response()).status == 502


@pytest.mark.parametrize("way", ["reset", "close"])
@pytest.mark.parametrize("unfinished", [b"", b'data: {"cho'])
async def test_death_within_a_stream_is_an_error_event_without_done(start, way, unfinished):
    async def script(side):
        await side.request()
        await side.stream_head()
        await side.chunk(b"data: 1\n\n" + unfinished)
        if way == "reset":
            side.die()

    plane = await start(script)
    client = await plane.client()
    await client.send(post(STREAM))
    await client.head()

    body, framed = await stream_until_end(client)

    assert framed
    first, last = events(body)
    assert first == "1"
    assert json.loads(last)["error"]["code"] == "engine_died"
    assert b"[DONE]" not in body
    assert plane.gate.left == [(1, False)]
    assert (await client.get("/health")).status == 200


async def test_death_within_a_huge_event_ends_that_event_first(start):
    async def script(side):
        await side.request()
        await side.stream_head()
        await side.chunk(b"data: 1234567890")
        side.die()

    plane = await start(script, limits=Limits(max_event_bytes=10))
    client = await plane.client()
    await client.send(post(STREAM))
    await client.head()

    body, framed = await stream_until_end(client)

    assert framed
    assert body.startswith(b'data: 1234567890\n\ndata: {"error":')


async def test_death_after_comments_is_an_error_event(start):
    go = asyncio.Event()

    async def script(side):
        await side.request()
        await go.wait()
        side.die()

    plane = await start(script, limits=SOON)
    client = await plane.client()
    await client.send(post(STREAM))
    await client.head()
    assert await client.chunk() == COMMENT
    go.set()

    body, framed = await stream_until_end(client)

    assert framed
    assert json.loads(events(body)[-1])["error"]["code"] == "engine_died"


async def test_stream_that_ends_by_closing_without_done_was_cut(start):
    async def script(side):
        await side.request()
        await side.stream_head(b"")
        await side.send(b"data: 1\n\n")

    plane = await start(script)
    client = await plane.client()
    await client.send(post(STREAM))
    await client.head()

    body, framed = await stream_until_end(client)

    assert framed
    assert json.loads(events(body)[-1])["error"]["code"] == "engine_died"
    assert plane.gate.left == [(1, False)]


@pytest.mark.parametrize("way", ["reset", "close"])
async def test_death_after_done_adds_nothing_to_the_answer(start, way):
    async def script(side):
        await side.request()
        await side.stream_head()
        await side.chunk(b"data: 1\n\ndata: [DONE]\n\n")
        if way == "reset":
            side.die()

    plane = await start(script)
    client = await plane.client()
    await client.send(post(STREAM))
    await client.head()

    body, framed = await stream_until_end(client)

    assert framed
    assert body == b"data: 1\n\ndata: [DONE]\n\n"
    assert plane.gate.left == [(1, True)]
    assert plane.gate.autopsies == []


async def test_stream_that_ends_by_closing_with_done_is_complete(start):
    async def script(side):
        await side.request()
        await side.stream_head(b"")
        await side.send(b"data: 1\n\ndata: [DONE]\n\n")

    plane = await start(script)
    client = await plane.client()

    response = await client.post(STREAM)

    assert response.body == b"data: 1\n\ndata: [DONE]\n\n"
    assert plane.gate.left == [(1, True)]
    assert plane.gate.autopsies == []


@pytest.mark.parametrize(
    ("pieces", "whole"),
    [
        ([], False),
        ([b'{"choices": [{"index": 0'], False),
        ([b'{"choices": []}'], True),
        ([b'{"choices": []', b"}", b"\r\n"], True),
    ],
)
async def test_object_that_ends_by_closing_is_whole_if_it_has_its_last_brace(start, pieces, whole):
    async def script(side):
        await side.request()
        await side.send(b"HTTP/1.0 200 OK\r\nContent-Type: application/json\r\n\r\n")
        for piece in pieces:
            await side.send(piece)

    plane = await start(script)
    client = await plane.client()
    await client.send(post())
    await client.head()

    body, framed = await stream_until_end(client)

    assert (body, framed) == (b"".join(pieces), whole)
    assert plane.gate.left == [(1, whole)]


async def test_stream_of_another_kind_may_end_by_closing_without_done(start):
    async def script(side):
        await side.request()
        await side.stream_head(b"")
        await side.send(b"event: message_stop\ndata: {}\n\n")

    plane = await start(script)
    client = await plane.client()

    response = await client.post(STREAM, path="/v1/messages")

    assert response.body == b"event: message_stop\ndata: {}\n\n"
    assert plane.gate.left == [(1, True)]


async def test_death_within_a_body_of_known_length_breaks_the_connection(start):
    async def script(side):
        await side.request()
        await side.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nabc")
        side.die()

    plane = await start(script)
    client = await plane.client()

    response = await client.post()

    assert (response.body, response.complete) == (b"abc", False)
    assert plane.gate.left == [(1, False)]


async def test_death_within_a_chunked_body_breaks_the_connection(start):
    async def script(side):
        await side.request()
        await side.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n")
        side.die()

    plane = await start(script)
    client = await plane.client()

    response = await client.post()

    assert (response.body, response.complete) == (b"abc", False)


async def test_death_within_a_body_resets_an_http_1_0_client(start):
    go = asyncio.Event()

    async def script(side):
        await side.request()
        await side.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n")
        await go.wait()
        side.die()

    plane = await start(script)
    client = await plane.client()
    await client.send(b"GET /x HTTP/1.0\r\n\r\n")
    await client.head()
    assert await client.reader.readexactly(3) == b"abc"
    go.set()

    _, regular = await client.rest()

    assert not regular


async def test_kept_connection_that_had_ended_is_replaced_once(start):
    async def script(side):
        await side.request()
        await side.answer()
        if len(side._engine.requests) == 1:
            # The second request arrives, and is answered by the end of the connection.
            await side.request()
            side.die()
        else:
            await side.until_closed()

    plane = await start(script)
    client = await plane.client()
    assert (await client.post()).status == 200

    assert (await client.post()).status == 200

    assert plane.engine.connections == 2
    assert len(plane.engine.requests) == 3
    assert plane.gate.left == [(1, True), (2, True)]
    assert plane.gate.autopsies == []


async def test_engine_that_ends_the_fresh_connection_too_is_dead(start):
    async def script(side):
        await side.request()
        if len(side._engine.requests) == 1:
            await side.answer()
            await side.request()
        side.die()

    plane = await start(script)
    client = await plane.client()
    assert (await client.post()).status == 200

    assert (await client.post()).status == 502
    assert plane.engine.connections == 2


async def test_kept_connection_that_breaks_within_its_answer_is_not_retried(start):
    async def script(side):
        await side.request()
        await side.answer()
        await side.request()
        await side.send(b"HTTP/1.1 200")
        side.die()

    plane = await start(script)
    client = await plane.client()
    assert (await client.post()).status == 200

    assert (await client.post()).status == 502
    assert plane.engine.connections == 1


async def test_connection_that_the_engine_closed_while_kept_is_not_used(start):
    async def script(side):
        await side.request()
        await side.answer()

    plane = await start(script)
    client = await plane.client()
    assert (await client.post()).status == 200

    assert (await client.post()).status == 200
    assert plane.engine.connections == 2


@pytest.mark.parametrize(
    "answer",
    [
        b"SSH-2.0-OpenSSH\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: a\r\n b\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\nabc",
    ],
)
async def test_answer_that_is_not_proper_http_is_a_502(start, answer):
    async def script(side):
        await side.request()
        await side.send(answer)
        await side.until_closed()

    plane = await start(script)
    client = await plane.client()

    response = await client.post()

    assert (response.status, response.error["code"]) == (502, "engine_died")
    assert "broken HTTP" in response.error["message"]
    assert plane.pool.kept == 0


async def test_broken_chunk_within_a_stream_is_an_error_event(start):
    async def script(side):
        await side.request()
        await side.stream_head()
        await side.chunk(b"data: 1\n\n")
        await side.send(b"zz\r\n")
        await side.until_closed()

    plane = await start(script)
    client = await plane.client()
    await client.send(post(STREAM))
    await client.head()

    body, framed = await stream_until_end(client)

    assert framed
    assert events(body)[0] == "1"
    assert "broken HTTP" in json.loads(events(body)[1])["error"]["message"]


async def test_host_that_is_forgotten_gets_no_further_requests_on_kept_connections(start):
    plane = await start()
    client = await plane.client()
    await client.post()
    assert plane.pool.kept == 1

    plane.pool.forget(plane.gate.upstream)

    assert plane.pool.kept == 0
    await client.post()
    assert plane.engine.connections == 2


async def test_connection_in_use_is_not_kept_when_its_host_is_forgotten_meanwhile(start):
    go = asyncio.Event()

    async def script(side):
        await side.request()
        await go.wait()
        await side.answer()
        await side.until_closed()

    plane = await start(script)
    client = await plane.client()
    await client.send(post())
    await plane.engine.until(lambda: plane.engine.requests)
    plane.pool.forget(plane.gate.upstream)
    go.set()

    assert (await client.response()).status == 200
    assert plane.pool.kept == 0
    await plane.engine.until(lambda: plane.engine.closed)


async def test_kept_connection_expires(start):
    plane = await start(limits=Limits(upstream_idle_s=0.05))

    async def script(side):
        await side.request()
        await side.answer()
        await side.until_closed()

    plane.engine.script = script
    client = await plane.client()
    await client.post()
    assert plane.pool.kept == 1

    await plane.engine.until(lambda: plane.engine.closed)

    assert plane.pool.kept == 0
    assert not plane.pool.timer_running


async def test_no_more_connections_are_kept_than_allowed(start):
    plane = await start(limits=Limits(upstream_idle_max=2))
    clients = [await plane.client() for _ in range(5)]

    await asyncio.gather(*(client.post() for client in clients))

    assert plane.pool.kept == 2
