"""Each request of the corpus through the real plane, on a real socket, before an engine that keeps
every byte: refused with its status and the end of the connection, or passed on as exactly one."""

import asyncio
import re

import pytest

from tests.http.corpus import GOT, LAST, PASSED, REFUSED, TE, sized
from tests.http.reading import answer_in
from tests.http.recorder import Recorder
from tests.proxy.doubles import PATIENCE_S
from tests.proxy.test_request_reader import AMBIGUOUS, BAD_CHUNKS


SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: localhost\r\n\r\n"
STATUS = re.compile(rb"HTTP/1\.1 (\d{3}) ")
GOOD = sized(b" 2")


def cases(table):
    return [pytest.param(*case, id=name) for name, case in table.items()]


OLD = {
    name: ({400, 413, 501}, data)
    for name, data in {
        **AMBIGUOUS,
        **{f"chunks: {name}": TE + body for name, body in BAD_CHUNKS.items()},
    }.items()
}


async def until_closed(client):
    received = b""
    async with asyncio.timeout(PATIENCE_S):
        try:
            while piece := await client.reader.read(2**20):
                received += piece
        except ConnectionResetError:
            pass
    return received


async def refused(start, data, *, behind=b""):
    """The statuses of all answers to *data*, and what the engine got; the port closes."""
    recorder = Recorder()
    plane = await start(recorder)
    client = await plane.client()
    client.writer.write(behind + data + SMUGGLED)
    received = await until_closed(client)
    return [int(status) for status in STATUS.findall(received)], recorder, received


@pytest.mark.parametrize(("status", "data"), cases(REFUSED | OLD))
async def test_ambiguous_request_is_refused_and_nothing_behind_it_is_served(start, status, data):
    statuses, recorder, received = await refused(start, data)

    assert len(statuses) == 1
    assert statuses[0] in (status if isinstance(status, set) else {status})
    assert b"\r\nConnection: close\r\n" in received
    assert recorder.connections == []
    assert answer_in(received)[2] == ""


@pytest.mark.parametrize(("status", "data"), cases(REFUSED | OLD))
async def test_ambiguous_request_behind_good_ones_is_refused_alone(start, status, data):
    statuses, recorder, _ = await refused(start, data, behind=GOOD + GOOD)

    assert statuses[:2] == [200, 200]
    assert len(statuses) == 3
    assert recorder.requests() == [(b"POST", b"/x", b"ok")] * 2


@pytest.mark.parametrize("in_single_bytes", [False, True], ids=["at once", "in single bytes"])
@pytest.mark.parametrize(("data", "expected"), cases(PASSED))
async def test_unambiguous_request_is_passed_on_as_what_it_is(
    start, data, expected, in_single_bytes
):
    recorder = Recorder()
    plane = await start(recorder)
    client = await plane.client()

    for piece in [data[at : at + 1] for at in range(len(data))] if in_single_bytes else [data]:
        if not client.writer.transport.is_closing():
            client.writer.write(piece)
        await asyncio.sleep(0)
    await plane.gate.until(lambda: len(plane.gate.left) >= len(expected))
    if not client.writer.transport.is_closing():
        client.writer.write_eof()
    received = await until_closed(client)

    assert recorder.requests() == expected
    assert [int(s) for s in STATUS.findall(received) if s != b"100"] == [200] * len(expected)


@pytest.mark.parametrize("data", [pytest.param(data, id=name) for name, data in LAST.items()])
async def test_nothing_is_served_behind_the_last_request(start, data):
    recorder = Recorder()
    plane = await start(recorder)
    client = await plane.client()

    await client.send(data + SMUGGLED)
    received = await until_closed(client)

    assert recorder.requests() == [GOT]
    assert STATUS.findall(received) == [b"200"]
