"""What can be told of requests that are with an engine, and ending those that are with one."""

import asyncio

from llmd.errors import EngineDiedError
from llmd.proxy.gate import Upstream
from tests.proxy.doubles import STREAM, post, until
from tests.proxy.test_plane_waiting import events


HUNG = EngineDiedError("a hung", remedy="send the request again")


class Asked:
    """An engine that takes requests, and answers when it is told to."""

    def __init__(self):
        self.sides = []

    async def __call__(self, side):
        await side.request()
        self.sides.append(side)
        await side.until_closed()


async def test_request_is_at_work_from_its_sending_to_its_end(start):
    asked = Asked()
    plane = await start(asked)
    client = await plane.client()
    assert plane.listener.at_work() == []
    await client.send(post(STREAM))
    await until(lambda: asked.sides)
    (request,) = plane.listener.at_work()
    assert request.upstream is plane.gate.upstream
    assert (request.heard_s, request.held_up) == (0.0, False)
    before_s = asyncio.get_running_loop().time()
    await asked.sides[0].stream_head()
    await asked.sides[0].chunk(b"data: 1\n\n")
    await client.head()
    await client.chunk()
    (request,) = plane.listener.at_work()
    assert request.heard_s >= before_s
    client.hang_up()
    await until(lambda: not plane.listener.at_work())


async def test_request_that_waits_for_its_place_is_with_no_engine(start):
    plane = await start(hold=True)
    client = await plane.client()
    await client.send(post())
    await plane.gate.until(lambda: plane.gate.waiting_tickets)
    assert plane.listener.at_work() == []


async def test_request_whose_engine_broke_off_is_with_no_engine(start):
    async def dies(side):
        await side.request()
        side.die()

    plane = await start(dies)
    plane.gate.hold_autopsies = True
    client = await plane.client()
    await client.send(post())
    await plane.gate.until(lambda: plane.gate.autopsies)
    assert plane.listener.at_work() == []


async def test_client_that_takes_nothing_holds_its_engine_up(start):
    async def endless(side):
        await side.request()
        await side.stream_head()
        while True:
            await side.chunk(b"data: %b\n\n" % (b"x" * 65536))

    plane = await start(endless)
    client = await plane.client()
    await client.send(post(STREAM))
    await until(lambda: [r.held_up for r in plane.listener.at_work()] == [True])


async def test_requests_of_one_engine_are_ended_and_no_others(start):
    asked = Asked()
    plane = await start(asked)
    streaming, silent, waiting = [await plane.client() for _ in range(3)]
    await streaming.send(post(STREAM))
    await until(lambda: len(asked.sides) == 1)
    await asked.sides[0].stream_head()
    await asked.sides[0].chunk(b"data: 1\n\n")
    await streaming.head()
    await streaming.chunk()
    await silent.send(post())
    await until(lambda: len(asked.sides) == 2)
    hung, plane.gate.upstream = plane.gate.upstream, Upstream(path=plane.path)
    await waiting.send(post())
    await until(lambda: len(asked.sides) == 3)

    plane.listener.end_at(hung, HUNG)

    body = b""
    while piece := await streaming.chunk():
        body += piece
    assert '"code":"engine_died"' in events(body)[-1]
    assert (await silent.response()).error["message"].startswith("a hung")
    assert len(plane.listener.at_work()) == 1
    await asked.sides[2].answer()
    assert (await waiting.response()).status == 200
    await until(lambda: plane.engine.closed == 2)


async def test_answers_count_once_they_are_complete(start):
    asked = Asked()
    plane = await start(asked)
    assert plane.pool.answers(plane.gate.upstream) == 0
    client = await plane.client()
    await client.send(post())
    await until(lambda: asked.sides)
    assert plane.pool.answers(plane.gate.upstream) == 0
    await asked.sides[0].answer()
    await client.response()
    assert plane.pool.answers(plane.gate.upstream) == 1
