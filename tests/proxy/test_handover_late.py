"""Requests that are still there when a port is to go on in another image: ended, visibly."""

from llmd.errors import LlmdError
from llmd.proxy.limits import Limits
from tests.proxy.doubles import PATIENCE_S, STREAM, bytes_held, post, silent_client, until
from tests.proxy.test_plane_waiting import events


class RestartingError(LlmdError):
    """What the daemon tells those that take too long."""

    code, status = "restarting", 503


RESTARTING = RestartingError("llmd restarts", retry_after_s=1.0)


async def one_event(side):
    """Begins a stream that does not end."""
    await side.request()
    await side.stream_head()
    await side.chunk(b'data: {"n":1}\n\n')
    await side.until_closed()


async def test_waiting_requests_get_the_error_when_time_is_up(start):
    plane = await start(hold=True)
    client = await plane.client()
    await client.send(post() + post())
    await plane.gate.until(lambda: plane.gate.waiting_tickets)
    plane.listener.hold()
    assert not await plane.listener.settle(0)

    plane.listener.end_all(RESTARTING)

    response = await client.response()
    assert (response.status, response.error["code"]) == (503, "restarting")
    assert response.headers["connection"] == "close"
    assert response.headers["retry-after"] == "1"
    assert await client.rest() == (b"", True)
    assert plane.gate.left == [(1, False)]
    assert await plane.listener.settle(PATIENCE_S)


async def test_stream_that_waits_ends_with_an_event(start):
    plane = await start(hold=True, limits=Limits(comment_s=0.01))
    client = await plane.client()
    await client.send(post(STREAM))
    await client.head()

    plane.listener.end_all(RESTARTING)

    body = b""
    while piece := await client.chunk():
        body += piece
    assert piece == b""
    assert '"code":"restarting"' in events(body)[-1]
    assert await client.rest() == (b"", True)


async def test_running_stream_ends_with_an_event_and_the_engine_is_told(start):
    plane = await start(one_event)
    client = await plane.client()
    await client.send(post(STREAM))
    await client.head()
    assert await client.chunk()

    plane.listener.end_all(RESTARTING)

    (event,) = events(await client.chunk())
    assert '"code":"restarting"' in event
    assert await client.chunk() == b""
    assert await client.rest() == (b"", True)
    await plane.engine.until(lambda: plane.engine.closed)
    assert plane.gate.left == [(1, False)]


async def test_request_that_the_engine_has_not_answered_gets_the_error(start):
    async def script(side):
        await side.request()
        await side.until_closed()

    plane = await start(script)
    client = await plane.client()
    await client.send(post())
    await plane.engine.until(lambda: plane.engine.requests)

    plane.listener.end_all(RESTARTING)

    assert (await client.response()).error["code"] == "restarting"
    await plane.engine.until(lambda: plane.engine.closed)
    assert plane.gate.autopsies == []


async def test_request_of_an_engine_that_just_died_gets_the_error(start):
    async def script(side):
        await side.request()
        side.die()

    plane = await start(script)
    plane.gate.hold_autopsies = True
    client = await plane.client()
    await client.send(post())
    await plane.gate.until(lambda: plane.gate.autopsies)

    plane.listener.end_all(RESTARTING)
    plane.gate.autopsies[0](RESTARTING)  # too late: nothing happens

    assert (await client.response()).error["code"] == "restarting"
    assert await client.rest() == (b"", True)


async def test_stream_that_was_done_gets_its_end_and_no_error(start):
    async def script(side):
        await side.request()
        await side.stream_head()
        await side.chunk(b"data: 1\n\ndata: [DONE]\n\n")
        await side.until_closed()

    plane = await start(script)
    client = await plane.client()
    await client.send(post(STREAM))
    await client.head()
    await client.reader.readuntil(b"[DONE]\n\n")

    plane.listener.end_all(RESTARTING)

    assert await client.reader.readexactly(7) == b"\r\n0\r\n\r\n"
    assert plane.gate.left == [(1, True)]
    await plane.engine.until(lambda: plane.engine.closed)


async def test_answer_that_cannot_tell_breaks_off(start):
    async def script(side):
        await side.request()
        await side.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")
        await side.until_closed()

    plane = await start(script)
    client = await plane.client()
    await client.send(post())
    await client.head()
    await client.reader.readexactly(4)

    plane.listener.end_all(RESTARTING)

    assert await client.rest() == (b"", True)
    await plane.engine.until(lambda: plane.engine.closed)


async def test_body_that_does_not_end_is_refused(start):
    plane = await start()
    client = await plane.client()
    await client.send(post()[:-3])
    await until(lambda: [c for c in plane.listener._connections if c._stage == "body"])

    plane.listener.hold()
    plane.listener.end_all(RESTARTING)

    response = await client.response()
    assert (response.status, response.error["code"]) == (503, "restarting")


async def test_what_has_not_begun_is_not_ended(start):
    plane = await start()
    client = await silent_client(plane)
    plane.listener.hold()
    await client.send(post())
    await until(lambda: bytes_held(plane))

    plane.listener.end_all(RESTARTING)
    await plane.hand_over()

    assert (await client.response()).status == 200
