"""Ports: opened on addresses or on given sockets, drained, closed."""

import asyncio
import errno
import socket

import pytest

from llmd.proxy.guard import Guard
from llmd.proxy.limits import Limits
from llmd.proxy.listener import PortListener
from tests.proxy.doubles import PATIENCE_S, Client, post


def has_ipv6():
    try:
        with socket.socket(socket.AF_INET6) as sock:
            sock.bind(("::1", 0))
    except OSError:
        return False
    return True


needs_ipv6 = pytest.mark.skipif(not has_ipv6(), reason="no ::1 here")


@needs_ipv6
async def test_port_is_open_on_both_loopback_addresses(start):
    plane = await start(hosts=("127.0.0.1", "::1"))

    for host in ("127.0.0.1", "::1"):
        client = await plane.client(host)
        assert (await client.get("/health")).status == 200
    assert plane.listener.port > 0


async def test_given_sockets_are_listened_on(start):
    plane = await start()
    sock = socket.socket()
    sock.bind(("127.0.0.1", 0))
    listener = PortListener(0, plane.gate, Guard(), plane.pool)

    await listener.start(sockets=[sock])

    assert listener.port == sock.getsockname()[1]
    client = Client(*await asyncio.open_connection("127.0.0.1", listener.port))
    assert (await client.post()).status == 200
    client.close()
    listener.close()
    assert await listener.drain(PATIENCE_S)


async def test_given_socket_that_cannot_listen_is_an_os_error(start):
    plane = await start()
    listener = PortListener(0, plane.gate, Guard(), plane.pool)

    with (
        socket.create_connection(("127.0.0.1", plane.listener.port)) as connected,
        pytest.raises(OSError, match=r"."),
    ):
        await listener.start(sockets=[connected])


async def test_taken_port_is_an_os_error_and_leaves_nothing_open(start):
    plane = await start()
    listener = PortListener(plane.listener.port, plane.gate, Guard(), plane.pool)

    with pytest.raises(OSError, match=r".") as caught:
        await listener.start(hosts=("127.0.0.1",))

    assert caught.value.errno == errno.EADDRINUSE
    listener.close()


async def test_port_that_somebody_holds_on_all_addresses_is_taken(start):
    plane = await start(hosts=("0.0.0.0",))
    listener = PortListener(plane.listener.port, plane.gate, Guard(), plane.pool)

    with pytest.raises(OSError, match=r".") as caught:
        await listener.start(hosts=("127.0.0.1",))

    assert caught.value.errno == errno.EADDRINUSE


@needs_ipv6
async def test_port_taken_on_one_address_is_freed_on_the_other(start):
    plane = await start()
    listener = PortListener(plane.listener.port, plane.gate, Guard(), plane.pool)

    with pytest.raises(OSError, match=r"."):
        await listener.start(hosts=("::1", "127.0.0.1"))

    with socket.socket(socket.AF_INET6) as sock:
        sock.bind(("::1", plane.listener.port))


async def test_nothing_ticks_while_nobody_is_connected(start):
    plane = await start(limits=Limits(upstream_idle_s=0.01))
    assert not plane.listener.timer_running
    client = await plane.client()
    await client.get("/health")
    assert plane.listener.timer_running

    client.close()
    await plane.gone.wait()

    assert not plane.listener.timer_running


async def test_drain_closes_idle_connections_at_once(start):
    plane = await start()
    client = await plane.client()
    await client.get("/health")

    plane.listener.stop_accepting()

    assert await plane.listener.drain(PATIENCE_S)
    assert await client.rest() == (b"", True)
    with pytest.raises(ConnectionError):
        await plane.client()


async def test_drain_lets_a_request_finish_and_closes_behind_it(start):
    plane = await start(hold=True)
    client = await plane.client()
    await client.send(post() + post())
    await plane.gate.until(lambda: plane.gate.waiting_tickets)
    assert plane.listener.busy == 1

    draining = asyncio.ensure_future(plane.listener.drain(PATIENCE_S))
    await plane.gate.grant()

    response = await client.response()
    assert (response.status, response.headers["connection"]) == (200, "close")
    assert await client.rest() == (b"", True)
    assert await draining
    assert len(plane.gate.arrived) == 1


async def test_drain_waits_for_a_request_that_is_being_sent(start):
    plane = await start()
    client = await plane.client()
    request = post()
    await client.send(request[:-3])
    # The other connection's answer comes after the first one's bytes were read.
    assert (await (await plane.client()).get("/health")).status == 200
    assert [c for c in plane.listener._connections if c._stage == "body"]

    draining = asyncio.ensure_future(plane.listener.drain(PATIENCE_S))
    await client.send(request[-3:])

    assert (await client.response()).headers["connection"] == "close"
    assert await draining


async def test_drain_gives_up_in_time_and_close_ends_the_rest(start):
    plane = await start(hold=True)
    client = await plane.client()
    await client.send(post())
    await plane.gate.until(lambda: plane.gate.waiting_tickets)

    assert not await plane.listener.drain(0.05)
    plane.listener.close()

    assert (await client.rest())[0] == b""
    await plane.gate.until(lambda: plane.gate.left == [(1, False)])
    assert await plane.listener.drain(PATIENCE_S)


async def test_close_is_idempotent(start):
    plane = await start()

    plane.listener.close()
    plane.listener.close()
    plane.listener.stop_accepting()


async def test_replaced_terms_hold_for_further_requests_of_open_connections(start):
    plane = await start()
    client = await plane.client()
    assert (await client.post()).status == 200

    plane.listener.replace_terms(Guard(api_keys=["k"]), Limits())

    assert (await client.post()).status == 401
