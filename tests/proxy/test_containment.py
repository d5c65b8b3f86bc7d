"""A bug in the data plane: it ends the request that met it, and is told without a word of it."""

import asyncio

import pytest
import structlog

from llmd.proxy import arrival
from llmd.proxy import client as clients
from llmd.proxy import exchange as exchanges
from llmd.proxy.exchange import Exchange
from llmd.proxy.limits import Limits
from llmd.proxy.rate import Rate
from llmd.proxy.relay import Relay
from llmd.proxy.request import RequestReader
from tests.proxy.doubles import STREAM, post


SECRET = "what somebody said"


@pytest.fixture
def told():
    with structlog.testing.capture_logs() as lines:
        yield lines


class Bug:
    """Breaks one call of a method, and leaves the others as they are."""

    def __init__(self, monkeypatch, owner, name):
        self.original = getattr(owner, name)
        self.met = False
        bug = self

        def broken(*args, **kwargs):
            if not bug.met:
                bug.met = True
                raise KeyError(SECRET)
            return bug.original(*args, **kwargs)

        monkeypatch.setattr(owner, name, broken)


@pytest.fixture
def bug(monkeypatch):
    return lambda owner, name: Bug(monkeypatch, owner, name)


async def streams(side):
    while await side.request():
        await side.stream_head()
        await side.chunk(b"data: 1\n\n")
        await side.chunk(b"data: [DONE]\n\n")
        await side.send(b"0\r\n\r\n")


def check(plane, told):
    assert plane.gate.out == set()
    (line,) = told
    assert (line["event"], line["bug"], line["port"]) == (
        "request.failed",
        "KeyError",
        plane.listener.port,
    )
    assert SECRET not in repr(told)
    assert any(__file__ in place for place in line["places"])
    return line


@pytest.mark.parametrize(
    ("owner", "name"),
    [
        (Exchange, "start"),
        (Exchange, "_settle"),
        (arrival, "look"),
        (clients, "understand"),
        (exchanges, "prepare"),
        (exchanges, "request_head"),
        (Relay, "collects"),
        (Relay, "head"),
        (RequestReader, "read_body"),
    ],
    ids=str,
)
async def test_bug_before_the_answer_has_begun_is_a_500(start, told, bug, owner, name):
    plane = await start()
    client, other = await plane.client(), await plane.client()
    await other.post()
    bug(owner, name)

    response = await client.post()

    assert (response.status, response.error["code"]) == (500, "internal_error")
    assert "llmd-ctl logs" in response.error["remedy"]
    assert response.headers["connection"] == "close"
    assert check(plane, told)["request_id"] == response.headers["x-request-id"]
    assert (await other.post()).status == 200


@pytest.mark.parametrize(
    ("owner", "name"), [(Relay, "piece"), (Relay, "ended_well"), (Rate, "piece"), (Rate, "tell")]
)
async def test_bug_within_an_answer_breaks_it_off(start, told, bug, owner, name):
    plane = await start(streams)
    plane.listener._service.on_rate = lambda profile, rate: None
    other = await plane.client()
    await other.post(STREAM)
    met = bug(owner, name)

    client = await plane.client()
    await client.send(post(STREAM))
    received, regular = await client.rest()

    assert met.met
    assert not (received.endswith(b"0\r\n\r\n") and regular and name != "tell")
    check(plane, told)
    assert (await other.post(STREAM)).complete


async def test_bug_in_a_head_closes_the_connection(start, told, bug):
    plane = await start()
    bug(RequestReader, "read_head")
    client = await plane.client()

    await client.send(post())

    assert (await client.rest())[0] == b""
    assert check(plane, told)["request_id"] == "-"
    assert (await (await plane.client()).post()).status == 200


async def test_bug_of_one_client_does_not_hit_the_one_whose_leaving_made_room(start, told, bug):
    """A place is granted in the middle of what another request's end sets going."""
    plane = await start(hold=True)
    first, second = await plane.client(), await plane.client()
    await first.send(post())
    await plane.gate.until(lambda: len(plane.gate.waiting_tickets) == 1)
    await second.send(post())
    await plane.gate.until(lambda: len(plane.gate.waiting_tickets) == 2)
    leave = plane.gate.leave

    def leave_and_grant(ticket, *, served):
        leave(ticket, served=served)
        if len(plane.gate.waiting_tickets) == 1:
            bug(Exchange, "_settle")
            _, _, settled = plane.gate.waiting_tickets.pop()
            settled(plane.gate.lease(2))

    plane.gate.leave = leave_and_grant
    await plane.gate.grant()

    assert (await first.response()).status == 200
    assert (await second.response()).status == 500
    check(plane, told)


async def test_bug_of_one_alarm_does_not_silence_the_others(start, told, bug):
    plane = await start(hold=True, limits=Limits(comment_s=0.02))
    clients = [await plane.client() for _ in range(3)]
    bug(Relay, "comment")
    for client in clients:
        await client.send(post(STREAM))
    await plane.gate.until(lambda: told)
    plane.gate.hold = False
    while plane.gate.waiting_tickets:
        await plane.gate.grant()

    statuses = sorted([(await client.response()).status for client in clients])

    assert statuses == [200, 200, 500]
    check(plane, told)


async def test_bug_in_the_explanation_of_a_death_is_contained(start, told, bug):
    async def script(side):
        await side.request()

    plane = await start(script)
    bug(Exchange, "_answer_error")
    client = await plane.client()

    assert (await client.post()).status == 500
    check(plane, told)


async def test_bug_while_a_connection_is_made_is_contained(start, told, bug):
    plane = await start()
    bug(exchanges, "request_head")
    client = await plane.client()

    assert (await client.post()).status == 500
    await asyncio.gather(*plane.tasks)
    check(plane, told)
