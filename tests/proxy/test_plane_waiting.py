"""Requests that wait, streams that are silent, clients that leave."""

import asyncio
import json

import pytest

from llmd.errors import BudgetExceededError, LoadFailedError, QueueFullError
from llmd.proxy.gate import BodyEdits
from llmd.proxy.limits import Limits
from tests.proxy.doubles import STREAM, post


SOON = Limits(comment_s=0.02)
COMMENT = b": loading code, 40 %\n\n"


def events(body):
    """The data of each event of a stream; comments are left out."""
    found = []
    for block in body.decode().split("\n\n"):
        data = [line[6:] for line in block.split("\n") if line.startswith("data: ")]
        if data:
            found.append("\n".join(data))
    return found


async def silent(side):
    """Takes a request and says nothing until the other side gives up."""
    await side.request()
    await side.until_closed()


# --- the gate's answer ---------------------------------------------------------------------------


async def test_held_request_is_served_once_granted(start):
    plane = await start(hold=True)
    client = await plane.client()
    await client.send(post())

    await plane.gate.grant()

    assert (await client.response()).status == 200
    assert plane.gate.left == [(1, True)]


async def test_refusal_is_answered_as_the_gate_says(start):
    plane = await start(hold=True)
    client = await plane.client()
    await client.send(post())

    await plane.gate.refuse(QueueFullError("code", limit=64))

    response = await client.response()
    assert (response.status, response.error["code"]) == (429, "queue_full")
    assert response.headers["retry-after"] == "5"
    assert plane.gate.left == [(1, False)]
    assert plane.engine.connections == 0


async def test_refusal_within_arrive_is_answered_too(start):
    plane = await start()
    plane.gate.lease = lambda ticket: BudgetExceededError("code", need_bytes=2, budget_bytes=1)
    client = await plane.client()

    response = await client.post()

    assert (response.status, response.error["code"]) == (503, "budget_exceeded")
    assert plane.gate.left == [(1, False)]


async def test_requests_that_follow_a_waiting_one_wait_for_it(start):
    plane = await start(hold=True)
    client = await plane.client()

    await client.send(post() + b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
    await plane.gate.until(lambda: plane.gate.waiting_tickets)
    await plane.gate.grant()

    assert (await client.response()).body == b'{"ok":true}'
    assert (await client.response()).json["state"] == "ready"


# --- hang-ups -------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["hang_up", "close"])
async def test_hang_up_while_waiting_gives_the_place_back(start, way):
    plane = await start(hold=True)
    client = await plane.client()
    await client.send(post())
    await plane.gate.until(lambda: plane.gate.waiting_tickets)

    getattr(client, way)()

    await plane.gate.until(lambda: plane.gate.left == [(1, False)])
    ticket, _, settled = plane.gate.waiting_tickets[0]
    settled(plane.gate.lease(ticket))  # too late: nothing happens
    assert plane.engine.connections == 0


async def test_hang_up_while_a_stream_waits_gives_the_place_back(start):
    plane = await start(hold=True, limits=SOON)
    client = await plane.client()
    await client.send(post(STREAM))
    await client.head()
    assert await client.chunk() == COMMENT

    client.hang_up()

    await plane.gate.until(lambda: plane.gate.left == [(1, False)])


@pytest.mark.parametrize("way", ["hang_up", "close"])
@pytest.mark.parametrize("body", [b"{}", STREAM])
async def test_hang_up_before_the_answer_closes_the_engines_connection(start, way, body):
    plane = await start(silent)
    client = await plane.client()
    await client.send(post(body))
    await plane.engine.until(lambda: plane.engine.requests)

    getattr(client, way)()

    await plane.engine.until(lambda: plane.engine.closed)
    assert plane.gate.left == [(1, False)]
    assert plane.pool.kept == 0


async def test_hang_up_within_a_stream_closes_the_engines_connection(start):
    async def script(side):
        await side.request()
        await side.stream_head()
        await side.chunk(b"data: 1\n\n")
        await side.until_closed()

    plane = await start(script)
    client = await plane.client()
    await client.send(post(STREAM))
    await client.head()
    assert await client.chunk() == b"data: 1\n\n"

    client.hang_up()

    await plane.engine.until(lambda: plane.engine.closed)
    assert plane.gate.left == [(1, False)]


async def test_hang_up_within_a_body_that_is_no_stream_closes_the_engines_connection(start):
    async def script(side):
        await side.request()
        await side.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nabc")
        await side.until_closed()

    plane = await start(script)
    client = await plane.client()
    await client.send(post())
    await client.head()

    client.hang_up()

    await plane.engine.until(lambda: plane.engine.closed)
    assert plane.gate.left == [(1, False)]


async def test_hang_up_while_an_error_is_collected_closes_the_engines_connection(start):
    async def script(side):
        await side.request()
        await side.send(b"HTTP/1.1 500 Oops\r\nContent-Length: 100\r\n\r\nabc")
        await side.until_closed()

    plane = await start(script)
    client = await plane.client()
    await client.send(post())
    await plane.engine.until(lambda: plane.engine.requests)

    client.hang_up()

    await plane.engine.until(lambda: plane.engine.closed)
    assert plane.gate.left == [(1, False)]


async def test_hang_up_during_the_autopsy_gives_the_place_back(start):
    async def script(side):
        await side.request()
        side.die()

    plane = await start(script)
    plane.gate.hold_autopsies = True
    client = await plane.client()
    await client.send(post())
    await plane.gate.until(lambda: plane.gate.autopsies)

    client.hang_up()
    await plane.gate.until(lambda: plane.gate.left == [(1, False)])

    plane.gate.autopsies[0](LoadFailedError("too late"))


async def test_hang_up_within_a_request_disturbs_nobody(start):
    plane = await start()
    for part in (b"", b"POST /v1/x HT", post()[:-5]):
        client = await plane.client()
        await client.send(part)
        client.hang_up()

    assert (await (await plane.client()).post()).status == 200
    assert len(plane.gate.arrived) == 1


async def test_client_that_closes_its_sending_side_has_hung_up(start):
    plane = await start(silent)
    client = await plane.client()
    await client.send(post())
    await plane.engine.until(lambda: plane.engine.requests)

    client.writer.write_eof()

    await plane.engine.until(lambda: plane.engine.closed)
    assert await client.rest() == (b"", True)


async def test_client_that_closes_its_sending_side_still_gets_local_answers(start):
    plane = await start()
    client = await plane.client()

    client.writer.write(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
    client.writer.write_eof()

    assert (await client.response()).status == 200


# --- comments -------------------------------------------------------------------------------------


async def test_waiting_stream_gets_comments_and_then_its_events(start):
    async def script(side):
        while await side.request() is not None:
            await side.stream_head()
            await side.chunk(b"data: 1\n\ndata: [DONE]\n\n")
            await side.send(b"0\r\n\r\n")

    plane = await start(script, hold=True, limits=SOON)
    client = await plane.client()
    await client.send(post(STREAM))

    status, headers = await client.head()
    assert status == 200
    assert headers["content-type"] == "text/event-stream; charset=utf-8"
    assert headers["x-llmd-profile"] == "code"
    assert [await client.chunk() for _ in range(3)] == [COMMENT] * 3
    await plane.gate.grant()
    body = b""
    while chunk := await client.chunk():
        body += chunk

    assert body.replace(COMMENT, b"") == b"data: 1\n\ndata: [DONE]\n\n"
    await client.send(post(STREAM))
    await plane.gate.grant()
    assert (await client.response()).status == 200


async def test_stream_in_prefill_gets_comments(start):
    go = asyncio.Event()

    async def script(side):
        await side.request()
        await go.wait()
        await side.stream_head()
        await side.chunk(b"data: [DONE]\n\n")
        await side.send(b"0\r\n\r\n")
        await side.until_closed()

    plane = await start(script, limits=SOON)
    client = await plane.client()
    await client.send(post(STREAM))

    _, headers = await client.head()
    assert headers["x-llmd-profile"] == "code"
    assert await client.chunk() == COMMENT
    go.set()
    chunks = []
    while chunk := await client.chunk():
        chunks.append(chunk)
    assert chunks[-1] == b"data: [DONE]\n\n"


async def test_silence_between_events_is_filled_with_comments(start):
    go = asyncio.Event()

    async def script(side):
        await side.request()
        await side.stream_head()
        await side.chunk(b"data: 1\n\nda")
        await go.wait()
        await side.chunk(b"ta: 2\n\ndata: [DONE]\n\n")
        await side.send(b"0\r\n\r\n")
        await side.until_closed()

    plane = await start(script, limits=SOON)
    client = await plane.client()
    await client.send(post(STREAM))
    await client.head()

    assert await client.chunk() == b"data: 1\n\n"
    assert await client.chunk() == COMMENT
    go.set()
    body = b""
    while chunk := await client.chunk():
        body += chunk
    assert body.replace(COMMENT, b"") == b"data: 2\n\ndata: [DONE]\n\n"


async def test_no_comment_within_an_event_that_is_too_large_to_hold(start):
    go = asyncio.Event()

    async def script(side):
        if b"other" in (await side.request()).body:
            await side.until_closed()
        await side.stream_head()
        await side.chunk(b"data: 1234567890")
        await go.wait()
        await side.chunk(b"1\n\ndata: [DONE]\n\n")
        await side.send(b"0\r\n\r\n")
        await side.until_closed()

    plane = await start(script, limits=Limits(comment_s=0.02, max_event_bytes=10))
    client, other = await plane.client(), await plane.client()
    await client.send(post(STREAM))
    await client.head()
    assert await client.chunk() == b"data: 1234567890"

    # Another stream's comments tell that time has passed.
    await other.send(post(b'{"model":"other","stream":true}'))
    await other.head()
    for _ in range(4):
        await other.chunk()
    go.set()

    assert await client.chunk() == b"1\n\ndata: [DONE]\n\n"


async def test_request_that_is_no_stream_gets_no_comments(start):
    plane = await start(hold=True, limits=SOON)
    client, other = await plane.client(), await plane.client()
    await client.send(post(b'{"stream":false}'))
    await other.send(post(STREAM))
    await other.head()
    for _ in range(3):
        assert await other.chunk() == COMMENT

    await plane.gate.grant()

    assert (await client.response()).headers["content-type"] == "application/json"


async def test_comments_stop_with_the_stream_and_no_timer_is_left(start):
    async def script(side):
        while await side.request() is not None:
            await side.stream_head()
            await side.chunk(b"data: [DONE]\n\n")
            await side.send(b"0\r\n\r\n")

    plane = await start(script, limits=SOON)
    client = await plane.client()
    await client.post(STREAM)

    assert plane.listener.timer_running  # the idle connection's
    client.close()
    await plane.gate.until(lambda: True)
    assert await client.rest() == (b"", True)


async def test_comments_reach_an_http_1_0_client_unframed(start):
    plane = await start(hold=True, limits=SOON)
    client = await plane.client()
    await client.send(
        b"POST /v1/chat/completions HTTP/1.0\r\nContent-Length: %d\r\n\r\n%b"
        % (len(STREAM), STREAM)
    )

    _, headers = await client.head()
    assert "transfer-encoding" not in headers
    assert await client.reader.readexactly(len(COMMENT)) == COMMENT
    await plane.gate.refuse(LoadFailedError("it did not load"))

    body, _ = await client.rest()
    assert json.loads(events(body)[-1])["error"]["code"] == "load_failed"


# --- errors after the head ------------------------------------------------------------------------


async def test_refusal_after_comments_is_an_error_event_and_a_framed_end(start):
    plane = await start(hold=True, limits=SOON)
    client = await plane.client()
    await client.send(post(STREAM))
    await plane.gate.until(lambda: plane.gate.waiting_tickets)
    await client.head()

    await plane.gate.refuse(LoadFailedError("it did not load"))

    chunks = []
    while chunk := await client.chunk():
        chunks.append(chunk)
    assert chunk == b""
    (event,) = events(b"".join(chunks))
    assert json.loads(event)["error"]["code"] == "load_failed"
    assert b"[DONE]" not in b"".join(chunks)
    assert plane.gate.left == [(1, False)]


async def test_engine_error_after_comments_is_an_error_event(start):
    go = asyncio.Event()

    async def script(side):
        await side.request()
        await go.wait()
        await side.answer(b'{"error":"the prompt is too long"}', "400 Bad Request")
        await side.until_closed()

    plane = await start(script, limits=SOON)
    client = await plane.client()
    await client.send(post(STREAM))
    await client.head()
    go.set()

    body = b""
    while chunk := await client.chunk():
        body += chunk
    (event,) = events(body)
    assert json.loads(event)["error"]["message"] == "the prompt is too long"
    assert plane.gate.left == [(1, True)]


async def test_engine_that_does_not_stream_after_comments_is_an_error_event(start):
    go = asyncio.Event()

    async def script(side):
        await side.request()
        await go.wait()
        await side.answer()
        await side.until_closed()

    plane = await start(script, limits=SOON)
    client = await plane.client()
    await client.send(post(STREAM))
    await client.head()
    go.set()

    body = b""
    while chunk := await client.chunk():
        body += chunk
    assert json.loads(events(body)[0])["error"]["code"] == "unsupported"
    assert plane.gate.left == [(1, False)]


async def test_engine_that_does_not_stream_at_once_is_passed_on(start):
    plane = await start()
    client = await plane.client()

    response = await client.post(STREAM)

    assert response.headers["content-type"] == "application/json"


async def test_no_comment_within_an_answer_that_is_no_stream(start):
    go = asyncio.Event()

    async def script(side):
        if b"other" in (await side.request()).body:
            await side.until_closed()
        await side.send(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab")
        await go.wait()
        await side.send(b"cde")
        await side.until_closed()

    plane = await start(script, limits=SOON)
    client, other = await plane.client(), await plane.client()
    await client.send(post(STREAM))
    await client.head()
    await other.send(post(b'{"model":"other","stream":true}'))
    await other.head()
    for _ in range(4):
        await other.chunk()
    go.set()

    assert await client.reader.readexactly(5) == b"abcde"
    assert (await client.get("/health")).status == 200


async def test_forced_stream_value_decides_about_comments(start):
    plane = await start(silent, limits=SOON)
    plane.gate.edits = BodyEdits(force={"stream": True})
    client = await plane.client()
    await client.send(post(b"{}"))

    await client.head()

    assert await client.chunk() == COMMENT


async def test_error_event_of_messages_has_its_name(start):
    plane = await start(hold=True, limits=SOON)
    client = await plane.client()
    await client.send(post(STREAM, path="/v1/messages"))
    await client.head()

    await plane.gate.refuse(LoadFailedError("it did not load"))

    body = b""
    while chunk := await client.chunk():
        body += chunk
    assert b'event: error\ndata: {"type":"error","error":{' in body
