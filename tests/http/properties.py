"""What must hold for any bytes: of a client on their way to an engine, and of an engine back.

Called with drawn bytes, by the tests and by `make fuzz`.
"""

import asyncio
import re

from llmd.errors import LlmdError
from llmd.proxy.gate import Upstream
from llmd.proxy.limits import Limits
from llmd.proxy.outgoing import request_head
from llmd.proxy.request import RequestReader
from tests.http.reading import answer_in, requests_in
from tests.proxy.doubles import post
from tests.proxy.test_plane_random import Scene, cut
from tests.proxy.test_request_reader import read_all


UPSTREAM = Upstream(path="/nowhere")
REASON = re.compile(rb"^(HTTP/\d\.\d \d{3} )([^\r\n]*)", re.MULTILINE)
"""Not passed on: the client gets llmd's own words for a status."""
ABSOLUTE = re.compile(rb"https?://[^/?]*", re.IGNORECASE)


def sent_on(data):
    """What an engine would be sent for *data*: the bytes of each request, until one is refused."""
    reader, within, sent = RequestReader(Limits()), None, []
    reader.feed(data)
    try:
        while True:
            within = within or reader.read_head()
            if within is None or (within.head.minor and b"host" not in within.head.fields):
                return sent  # the guard refuses it
            if not reader.read_body():
                return sent
            sent.append(request_head(within, UPSTREAM) + bytes(within.body))
            within = None
    except LlmdError:
        return sent


def engine_reads_what_the_client_meant(data):
    """Each request that is passed on is one to h11, and the same as in the client's own bytes."""
    meant = requests_in(data, empty_lines=True).messages
    sent = sent_on(data)
    assert len(sent) <= len(meant), "h11 finds fewer requests in what the client sent"
    for ours, theirs in zip(sent, meant, strict=False):
        (read,) = requests_in(ours).messages
        assert requests_in(ours).refused == ""
        method, target = theirs.start
        target = ABSOLUTE.sub(b"", target)
        assert read.start == (method, target if target.startswith((b"/", b"*")) else b"/" + target)
        assert read.body == theirs.body
        passed = [
            h for h in read.headers if h[0] not in (b"host", b"content-length", b"accept-encoding")
        ]
        rest = iter(theirs.headers)
        assert all(header in rest for header in passed), "in their order, none of them new"


def cuts_of_a_request_do_not_matter(data, places):
    """The same requests come out, and a refusal stays one."""
    whole, why = read_all([data])
    pieces, why_in_pieces = read_all(cut(data, places))
    assert pieces == whole
    assert (why is None) == (why_in_pieces is None)


def plain(data):
    """*data* with reasons of any letters; of the same length, for a body may look like a head."""
    return REASON.sub(lambda found: found[1] + b"x" * len(found[2]), data)


async def _back(pieces):
    scene = Scene(hold=False)
    scene.sends(post())
    scene.engine_connects()
    for piece in pieces:
        scene.engine_sends(piece)
    kept = scene.pool.kept
    if scene.engine is not None and scene.engine.receiver is not None:
        scene.engine_ends()
        scene.explain()
    written, closed = scene.socket.written, scene.socket.closing
    scene.finish()
    return written, closed, kept


def client_reads_what_the_engine_meant(data):
    """An answer that reaches the client whole is what h11 finds in the engine's own bytes."""
    written, closed, kept = asyncio.run(_back([data]))
    ours, behind, _ = answer_in(written, to=b"POST", ended=closed)
    theirs, left, why = answer_in(plain(data), to=b"POST")
    assert behind == b""
    if ours is None or (ours.start == 502 and b"engine" in ours.body):
        return
    assert theirs is not None, f"h11 finds none: {why}"
    assert ours.start == theirs.start
    assert not kept or not left.strip(b"\r\n"), "its connection would serve another request"
    if ours.start < 400:
        assert plain(ours.body) == theirs.body
        added = {
            b"x-request-id",
            b"x-llmd-profile",
            b"content-length",
            b"transfer-encoding",
            b"connection",
        }
        rest = iter(theirs.headers)
        assert all(header in rest for header in ours.headers if header[0] not in added)


def cuts_of_an_answer_do_not_matter(data, places):
    """What is whole in one piece is whole in several, and the same."""
    found = []
    for pieces in ([data], cut(data, places)):
        written, closed, _ = asyncio.run(_back(pieces))
        message, _, _ = answer_in(written, to=b"POST", ended=closed)
        if message is not None:
            message.headers = [h for h in message.headers if h[0] != b"x-request-id"]
        found.append(message)
    whole, pieces = found
    for one, other in ((whole, pieces), (pieces, whole)):
        if one is not None and one.start != 502:
            assert other == one
