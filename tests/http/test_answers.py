"""Each answer of the corpus through the real plane: whole, a marked error or a marked cut, and
never a byte of it in the answer to the next request."""

import pytest

from tests.http.answers import BROKEN, CODED, CUT, END, HEAD, TWO, WHOLE
from tests.proxy.doubles import STREAM


SECOND = b"GET /second HTTP/1.1\r\nHost: localhost\r\n\r\n"


def saying(answer, *, close=False):
    """An engine that answers its first request so, and each later one with `second`."""
    seen = []

    async def script(side):
        while request := await side.request():
            seen.append(request)
            if len(seen) > 1:
                await side.answer(b'"second"')
                continue
            await side.send(answer)
            if close:
                return

    return script


async def second(plane, client=None):
    """A second request is answered with its own answer, wherever it goes."""
    client = client or await plane.client()
    await client.send(SECOND)
    response = await client.response()
    assert (response.status, response.body) == (200, b'"second"')


@pytest.mark.parametrize(
    ("answer", "status", "body"), [pytest.param(*case, id=name) for name, case in WHOLE.items()]
)
async def test_answer_ends_where_it_ends_and_the_next_is_another(start, answer, status, body):
    plane = await start(saying(answer))
    client = await plane.client()

    response = await client.post()

    assert (response.status, response.body, response.complete) == (status, body, True)
    assert response.interim == []
    assert "upgrade" not in response.headers
    await second(plane, client)


@pytest.mark.parametrize(
    "answer", [pytest.param(answer, id=name) for name, answer in BROKEN.items()]
)
async def test_broken_answer_is_a_502_and_not_a_byte_of_it_is_passed_on(start, answer):
    plane = await start(saying(answer))
    client = await plane.client()

    response = await client.post()

    assert (response.status, response.error["code"]) == (502, "engine_died")
    assert "broken HTTP" in response.error["message"]
    assert plane.gate.left == [(1, False)]
    await second(plane, client)


@pytest.mark.parametrize("answer", [pytest.param(answer, id=name) for name, answer in CUT.items()])
async def test_answer_that_breaks_on_its_way_is_cut_and_says_so(start, answer):
    plane = await start(saying(answer))
    client = await plane.client()

    response = await client.post()

    assert (response.status, response.complete) == (200, False)
    assert response.body in (b"", b"ok")
    assert plane.gate.left == [(1, False)]
    await second(plane)


@pytest.mark.parametrize("answer", [HEAD + TWO, CODED + END], ids=["length", "chunks"])
@pytest.mark.parametrize("at", range(1, 12))
async def test_answer_that_ends_early_is_never_taken_for_a_whole_one(start, answer, at):
    plane = await start(saying(answer[:-at], close=True))
    client = await plane.client()

    response = await client.post()

    assert response.status == 502 or not response.complete
    await second(plane)


async def test_answer_before_the_body_was_taken_is_passed_on_and_its_connection_not_used_again(
    start,
):
    body = b'{"x":"' + b"y" * 8_000_000 + b'"}'
    connections = []

    async def script(side):
        connections.append(side)
        if len(connections) > 1:
            await side.request()
            await side.answer(b'"second"')
            return
        await side.reader.readuntil(b"\r\n\r\n")
        await side.answer(b'{"error":"no"}', "413 Too Large")
        await side.until_closed()

    plane = await start(script)
    client = await plane.client()

    response = await client.post(body)

    assert response.status == 413
    await second(plane, client)
    assert len(connections) == 2


async def test_what_an_engine_sends_unasked_answers_nobody(start):
    plane = await start(saying(HEAD + TWO))
    client = await plane.client()
    await client.post()
    (shelf,) = plane.pool._shelves.values()
    (kept,) = shelf.idle

    kept.data_received(HEAD + b"Content-Length: 3\r\n\r\nbad")

    await second(plane, client)


@pytest.mark.parametrize("named", [b"X-Hop", b"keep-alive, x-hop", b"x-hop, X-Other"])
async def test_headers_that_connection_names_are_not_passed_back(start, named):
    plane = await start(
        saying(HEAD + b"X-Hop: 1\r\nX-Stay: 2\r\nConnection: " + named + b"\r\n" + TWO)
    )

    response = await (await plane.client()).post()

    assert "x-hop" not in response.headers
    assert response.headers["x-stay"] == "2"


@pytest.mark.parametrize(
    "answer",
    [
        HEAD + b"Content-Length: 9\r\n\r\n",
        HEAD + TWO,
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n",
        CODED + END,
        HEAD + b"\r\n",
        HEAD + b"Content-Length: 9\r\n\r\n" + HEAD + TWO,
    ],
    ids=["length", "body", "coding", "chunks", "nothing", "answer as body"],
)
async def test_answer_to_head_has_no_body_whatever_the_engine_sends(start, answer):
    plane = await start(saying(answer))
    client = await plane.client()

    response = await client.get("/x", method="HEAD")

    assert (response.status, response.complete) == (200, True)
    await second(plane, client)


async def test_broken_answer_to_a_stream_that_has_begun_ends_with_an_error_event(start):
    events = HEAD.replace(b"text/plain", b"text/event-stream")
    event = b"data: {}\n\n"
    broken = b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n-1\r\n" % (len(event), event)
    plane = await start(saying(events + broken))
    client = await plane.client()

    response = await client.post(STREAM)

    assert (response.status, response.complete) == (200, True)
    assert response.body.startswith(event)
    assert b"broken HTTP" in response.body
    assert b"[DONE]" not in response.body
    await second(plane, client)
