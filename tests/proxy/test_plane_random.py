"""The data plane without sockets: any order of events, any cut between reads."""

import asyncio
import re
from itertools import pairwise

import httptools
from hypothesis import given, settings
from hypothesis import strategies as st

from llmd.errors import EngineDiedError, QueueFullError
from llmd.proxy.gate import Upstream
from llmd.proxy.guard import Guard
from llmd.proxy.limits import Limits
from llmd.proxy.listener import PortListener
from llmd.proxy.pool import Shelf, UpstreamPool
from llmd.proxy.upstream import UpstreamConnection
from tests.proxy.doubles import STREAM, SmallGate, post


UPSTREAM = Upstream(path="/nowhere")
ADDRESS = (UPSTREAM.path, UPSTREAM.host, UPSTREAM.port, UPSTREAM.tls)


LIMITS = Limits(max_error_bytes=10, max_event_bytes=8)


class FakeTransport:
    """Keeps what is written; the test ends the connection."""

    def __init__(self):
        self.written = b""
        self.closing = False
        self.aborted = False

    def write(self, data):
        assert not self.closing
        self.written += data

    def writelines(self, pieces):
        for piece in pieces:
            self.write(bytes(piece))

    def write_eof(self):
        pass

    def close(self):
        self.closing = True

    def abort(self):
        self.closing = self.aborted = True

    def is_closing(self):
        return self.closing

    def get_write_buffer_size(self):
        return 0

    def set_write_buffer_limits(self, high, low):
        pass

    def pause_reading(self):
        pass

    def resume_reading(self):
        pass

    def get_extra_info(self, name):
        return None


class Scene:
    """One client, one engine, a gate; nothing happens unless the test makes it."""

    def __init__(self, *, hold=True):
        self.gate = SmallGate(UPSTREAM, hold=hold)
        self.gate.hold_autopsies = True
        self.pool = UpstreamPool(LIMITS, lambda coroutine: coroutine.close())
        self.pool.connect = self.connect
        self.listener = PortListener(1, self.gate, Guard(), self.pool, LIMITS)
        self.client = self.listener._accept()
        self.socket = FakeTransport()
        self.client.connection_made(self.socket)
        self.callers = []
        self.engines = []
        self.lost = False
        self.left_to_send = b""

    def connect(self, upstream, caller):
        self.callers.append(caller)

    def engine_connects(self):
        if not self.callers:
            return
        caller = self.callers.pop(0)
        if caller.gone:
            return
        shelf = self.pool._shelves.setdefault(ADDRESS, Shelf(ADDRESS))
        engine = UpstreamConnection(shelf, self.pool._ended_idle)
        engine.connection_made(FakeTransport())
        self.engines.append(engine)
        caller.connected(engine)

    def engine_refuses(self):
        if self.callers:
            caller = self.callers.pop(0)
            if not caller.gone:
                caller.unreachable("refused")

    @property
    def engine(self):
        return next((engine for engine in reversed(self.engines) if not engine.lost), None)

    def engine_sends(self, data):
        engine = self.engine
        if engine is not None and not engine._transport.closing:
            engine.data_received(data)

    def engine_begins(self, answer):
        self.left_to_send = answer
        self.engine_continues(20)

    def engine_continues(self, size):
        piece, self.left_to_send = self.left_to_send[:size], self.left_to_send[size:]
        self.engine_sends(piece)

    def engine_ends(self, exc=None):
        engine, self.left_to_send = self.engine, b""
        if engine is not None:
            engine._transport.closing = True
            engine.connection_lost(exc)

    def sends(self, data):
        if not self.socket.closing:
            self.client.data_received(data)

    def leaves(self, *, politely=False):
        if self.lost:
            return
        if politely and not self.socket.closing:
            self.client.eof_received()
        self.lost = self.socket.closing = True
        self.client.connection_lost(None)

    def settle(self, outcome=None):
        if self.gate.waiting_tickets:
            ticket, _, settled = self.gate.waiting_tickets.pop(0)
            if ticket in self.gate.out:
                settled(outcome or self.gate.lease(ticket))

    def explain(self):
        if self.gate.autopsies:
            self.gate.autopsies.pop(0)(EngineDiedError("it died"))

    def stalls(self):
        if not self.client.write_paused and not self.socket.closing:
            self.client.pause_writing()

    def catches_up(self):
        if self.client.write_paused:
            self.client.resume_writing()

    def rings(self):
        if self.client.alarm.ring is not None:
            self.client.alarm.ring()

    def finish(self):
        self.leaves()
        self.engine_ends()
        while self.gate.autopsies:
            self.explain()
        assert self.gate.out == set()
        assert not self.listener.timer_running
        assert self.listener.connections == 0
        self.pool.close()


REQUESTS = [
    post(),
    post(STREAM),
    post(b"{"),
    post(b"{}", path="/v1/embeddings"),
    b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"GET /x HTTP/1.0\r\n\r\n",
    b"HEAD /x HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"GET /x HTTP/1.1\r\nHost: evil\r\n\r\n",
    post()[:-4],
    b"nonsense\r\n\r\n",
]
EVENTS = b"Content-Type: text/event-stream\r\n"
ANSWERS = [
    b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nabcd",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n",
    b"HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\n\r\nabc",
    (
        b"HTTP/1.1 200 OK\r\n%bTransfer-Encoding: chunked\r\n\r\n"
        b"9\r\ndata: 1\n\n\r\ne\r\ndata: [DONE]\n\n\r\n0\r\n\r\n"
    )
    % EVENTS,
    b"HTTP/1.0 200 OK\r\n%b\r\ndata: 1\n\ndata: [DONE]\n\n" % EVENTS,
    b'HTTP/1.1 400 Bad\r\nContent-Length: 9\r\n\r\n{"x":"y"}',
    b"HTTP/1.1 500 Oops\r\n\r\nthis is broken, and at length",
    b"nonsense",
]

answers = st.sampled_from(ANSWERS)


def possible(scene):
    """What could happen next, as (name, arguments); what brings a request on comes more often."""
    found = [("rings",)]
    found.append(("catches_up",) if scene.client.write_paused else ("stalls",))
    if not scene.socket.closing:
        found += [("sends", request) for request in REQUESTS]
    if scene.gate.waiting_tickets:
        found += [("settle",)] * 8
        found.append(("settle", QueueFullError("code", limit=1)))
    if scene.callers:
        found += [("engine_connects",)] * 8
        found.append(("engine_refuses",))
    if scene.gate.autopsies:
        found += [("explain",)] * 4
    engine = scene.engine
    if engine is not None and not engine._transport.closing:
        found += [("engine_ends",), ("engine_ends", ConnectionResetError())]
        if scene.left_to_send:
            found += [("engine_continues", size) for size in (1, 5, 30, 80, 1000, 1000)]
        else:
            found += [("engine_begins", answer) for answer in ANSWERS]
    return found


@settings(max_examples=200, deadline=None)
@given(st.data(), st.booleans())
def test_any_order_of_events_gives_every_ticket_back(data, hold):
    async def run():
        scene = Scene(hold=hold)
        for _ in range(data.draw(st.integers(0, 25))):
            name, *arguments = data.draw(st.sampled_from(possible(scene)))
            getattr(scene, name)(*arguments)
        if data.draw(st.booleans()):
            scene.leaves(politely=True)
        scene.finish()

    asyncio.run(run())


class Received:
    """What a strict client makes of the bytes it gets."""

    def __init__(self, written):
        self.headers, self.body, self.status, self.complete = {}, b"", 0, False
        parser = httptools.HttpResponseParser(self)
        self.parser = parser
        parser.feed_data(written)

    def on_header(self, name, value):
        if name.lower() != b"x-request-id":
            self.headers[name.lower()] = value

    def on_headers_complete(self):
        self.status = self.parser.get_status_code()

    def on_body(self, piece):
        self.body += piece

    def on_message_complete(self):
        self.complete = True

    def value(self):
        return self.status, self.headers, self.body, self.complete


def cut(data, places):
    marks = sorted({round(place * len(data)) for place in places} | {0, len(data)})
    return [data[a:b] for a, b in pairwise(marks)]


async def pass_through(request, pieces, *, before=None):
    """What the client makes of *pieces*; *before* answers an earlier request."""
    scene = Scene(hold=False)
    if before is not None:
        scene.sends(post())
        scene.engine_connects()
        scene.engine_sends(before)
        assert scene.pool.kept
        scene.socket.written = b""
    scene.sends(request)
    scene.engine_connects()
    for piece in pieces:
        scene.engine_sends(piece)
    if scene.engine is not None and scene.engine.receiver is not None:
        scene.engine_ends()
        scene.explain()
    written = scene.socket.written
    scene.finish()
    return Received(written).value()


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from([post(), post(STREAM)]),
    answers,
    st.lists(st.floats(0, 1), max_size=8),
)
def test_answer_is_the_same_however_it_is_cut(request, answer, places):
    async def run():
        return (
            await pass_through(request, [answer]),
            await pass_through(request, cut(answer, places)),
        )

    whole, pieces = asyncio.run(run())
    assert pieces == whole


LENGTHS = [b"4", b"0", b"11", b"04", b"+4", b" 4", b"4 ", b"4, 4", b"x", b""]


def answer_with(length, body, *, last):
    """An answer whose head has its Content-Length at its end, or not."""
    lines = [b"Content-Type: text/plain\r\n", b"Content-Length: %b\r\n" % length]
    return b"HTTP/1.1 200 OK\r\n%b\r\n%b" % (b"".join(lines[:: 1 if last else -1]), body)


@settings(max_examples=400, deadline=None)
@given(
    st.sampled_from([post(), b"HEAD /x HTTP/1.1\r\nHost: localhost\r\n\r\n"]),
    st.sampled_from(LENGTHS),
    st.sampled_from([b"", b"abc", b"abcd", b"abcde", b"abcdefghijk", b"abcd\r\n\r\nabc"]),
    st.booleans(),
    st.lists(st.floats(0, 1), max_size=2),
)
def test_answer_is_the_same_behind_one_with_the_same_head(request, length, body, last, places):
    async def run():
        before = answer_with(b"5", b"first", last=last)
        answer = answer_with(length, body, last=last)
        return (
            await pass_through(request, [answer]),
            await pass_through(request, cut(answer, places), before=before),
        )

    fresh, kept = asyncio.run(run())
    assert kept == fresh


def test_interim_answer_with_a_length_is_not_remembered_as_an_answer():
    final = answer_with(b"4", b"abcd", last=True)
    hints = b"HTTP/1.1 103 Early Hints\r\nContent-Length: %d\r\n\r\n%b" % (len(final), final)

    async def run():
        return await pass_through(post(), [hints]), await pass_through(
            post(), [hints], before=hints
        )

    fresh, kept = asyncio.run(run())
    assert kept == fresh
    assert fresh[2] == b"abcd"


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=80), st.booleans())
def test_any_bytes_of_an_engine_end_in_an_answer_or_a_cut(junk, begins_well):
    async def run():
        head = b"HTTP/1.1 200 OK\r\n" if begins_well else b""
        return await pass_through(post(), [head + junk])

    status, _, _, _ = asyncio.run(run())
    assert status


def test_request_ids_are_never_given_twice():
    async def run():
        scene = Scene()
        scene.sends(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n" * 100)
        written = scene.socket.written
        scene.finish()
        return re.findall(rb"X-Request-Id: (\S+)", written)

    ids = asyncio.run(run())
    assert len(ids) == len(set(ids)) == 100


def test_connection_has_no_reference_cycle_left_behind():
    async def run():
        scene = Scene(hold=False)
        scene.sends(post())
        scene.engine_connects()
        scene.engine_sends(ANSWERS[0])
        assert scene.client._exchange is None
        assert scene.engines[0].receiver is None
        scene.finish()

    asyncio.run(run())
