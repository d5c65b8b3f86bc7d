"""Ports that go on in another image: held, settled, handed over, adopted, or released again."""

import asyncio
import contextlib
import resource
import socket

import pytest

from llmd.proxy.limits import Limits
from tests.proxy.doubles import PATIENCE_S, Client, bytes_held, post, silent_client, until


HEALTH = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"


# --- idle connections ----------------------------------------------------------------------------


async def test_idle_connection_serves_on_after_a_hand_over(start):
    plane = await start()
    client = await plane.client()
    assert (await client.post()).status == 200

    for _ in range(3):
        await plane.hand_over()
        assert plane.listener.connections == 1
        assert (await client.post()).status == 200


async def test_client_that_has_not_sent_anything_is_handed_over(start):
    plane = await start()
    client = await silent_client(plane)

    await plane.hand_over()

    assert (await client.post()).status == 200


async def test_head_that_is_not_complete_is_handed_over_with_its_bytes(start):
    plane = await start()
    client = await plane.client()
    request = post()
    await client.send(request[:30])
    await until(lambda: bytes_held(plane) == 30)

    await plane.hand_over()
    await client.send(request[30:])

    assert (await client.response()).status == 200


async def test_client_hears_nothing_of_a_hand_over(start):
    plane = await start()
    client = await plane.client()
    await client.post()
    plane.listener.hold()
    assert await plane.listener.settle(PATIENCE_S)

    standing = plane.listener.hand_over()

    plane.gone.clear()
    await plane.gone.wait()  # the original descriptor is closed
    (sock, unread), *others = standing.clients
    assert (unread, others) == (b"", [])
    sock.settimeout(PATIENCE_S)
    sock.sendall(b"nothing but this")
    sock.close()
    assert await client.rest() == (b"nothing but this", True)
    for listening in standing.listening:
        listening.close()


async def test_nothing_that_is_handed_over_is_inheritable(start):
    plane = await start()
    await silent_client(plane)
    plane.listener.hold()
    assert await plane.listener.settle(PATIENCE_S)

    standing = plane.listener.hand_over()

    sockets = [*standing.listening, *(sock for sock, _ in standing.clients)]
    assert [sock.get_inheritable() for sock in sockets] == [False, False]
    await plane.take_over(standing)


async def test_client_that_hung_up_meanwhile_is_dropped(start):
    plane = await start()
    clients = [await silent_client(plane) for _ in range(3)]
    plane.listener.hold()
    assert await plane.listener.settle(PATIENCE_S)
    standing = plane.listener.hand_over()

    clients[0].hang_up()
    clients[1].close()
    await plane.take_over(standing)

    assert (await clients[2].post()).status == 200
    await until(lambda: plane.listener.connections == 1)


async def test_descriptor_that_is_no_connection_any_more_is_dropped(start):
    plane = await start()
    sock = socket.socket()
    sock.close()

    await plane.listener.adopt(sock)

    assert plane.listener.connections == 0


# --- what has begun ------------------------------------------------------------------------------


async def test_waiting_request_is_served_before_the_port_settles(start):
    plane = await start(hold=True)
    client = await plane.client()
    await client.send(post())
    await plane.gate.until(lambda: plane.gate.waiting_tickets)
    plane.listener.hold()
    settling = asyncio.ensure_future(plane.listener.settle(PATIENCE_S))

    await plane.gate.grant()

    response = await client.response()
    assert (response.status, response.headers.get("connection")) == (200, None)
    assert await settling
    assert plane.listener.connections == 1


async def test_request_whose_body_is_coming_has_begun(start):
    plane = await start()
    client = await plane.client()
    request = post()
    await client.send(request[:-3])
    await until(lambda: [c for c in plane.listener._connections if c._stage == "body"])

    plane.listener.hold()
    assert not await plane.listener.settle(0.01)
    await client.send(request[-3:])

    assert (await client.response()).status == 200
    assert await plane.listener.settle(PATIENCE_S)


async def test_request_that_was_read_behind_another_is_handed_over_unparsed(start):
    plane = await start(hold=True)
    client = await plane.client()
    await client.send(post(b'{"model":"first"}') + post(b'{"model":"second"}') + HEALTH[:20])
    await plane.gate.until(lambda: plane.gate.waiting_tickets)

    plane.listener.hold()
    await plane.gate.grant()
    assert (await client.response()).status == 200
    assert plane.gate.arrived == [(plane.listener.port, "first")]
    await plane.hand_over()
    await plane.gate.grant()
    await client.send(HEALTH[20:])

    assert (await client.response()).body == b'{"ok":true}'
    assert (await client.response()).json["ready"]
    assert [model for _, model in plane.gate.arrived] == ["first", "second"]


async def test_request_with_connection_close_is_answered_from_what_was_handed_over(start):
    plane = await start()
    client = await silent_client(plane)
    plane.listener.hold()
    await client.send(HEALTH[:-2] + b"Connection: close\r\n\r\n")
    await until(lambda: bytes_held(plane))

    await plane.hand_over()

    response = await client.response()
    assert (response.status, response.headers["connection"]) == (200, "close")
    assert await client.rest() == (b"", True)


async def test_answer_is_written_to_its_last_byte_before_the_port_settles(start):
    body = bytes(range(256)) * 2**15  # 8 MiB, more than the kernel takes at once

    async def script(side):
        await side.request()
        await side.answer(body)

    plane = await start(script)
    client = await plane.client()
    await client.send(post())
    # What the client has read of the head shows that the answer is on its way.
    await client.head()
    plane.listener.hold()
    assert not await plane.listener.settle(0.05)
    standing = plane.listener.hand_over()
    assert standing.clients == ()
    await plane.take_over(standing)

    plane.listener.hold()
    settling = asyncio.ensure_future(plane.listener.settle(PATIENCE_S))
    async with asyncio.timeout(PATIENCE_S):
        assert await client.reader.readexactly(len(body)) == body

    assert await settling
    assert plane.listener.connections == 1


async def test_settle_counts_an_answer_of_which_only_the_end_is_unsent(start):
    """Less than the high-water mark: nobody would have paused for it."""
    plane = await start()
    client = await plane.client()
    await client.get("/health")
    (connection,) = plane.listener._connections
    written = 0
    # Exactly until the kernel takes no more.
    while not connection._transport.get_write_buffer_size():
        connection._transport.write(b"x" * 1000)
        written += 1000
    assert not connection.write_paused

    plane.listener.hold()

    assert not connection.at_rest
    settling = asyncio.ensure_future(plane.listener.settle(PATIENCE_S))
    assert not await plane.listener.settle(0)
    assert len(await client.reader.readexactly(written)) == written
    assert await settling


async def test_refused_client_that_still_sends_has_to_be_gone(start):
    plane = await start(limits=Limits(max_body_bytes=10))
    client = await plane.client()
    assert (await client.post(b"x" * 11)).status == 413

    plane.listener.hold()
    assert not await plane.listener.settle(0)
    client.close()

    assert await plane.listener.settle(PATIENCE_S)
    assert plane.listener.connections == 0


# --- what has not begun --------------------------------------------------------------------------


async def test_held_port_begins_no_request(start):
    plane = await start()
    client = await silent_client(plane)

    plane.listener.hold()
    plane.listener.hold()
    await client.send(post() + post())
    await until(lambda: bytes_held(plane) == 2 * len(post()))

    assert await plane.listener.settle(PATIENCE_S)
    assert plane.gate.arrived == []


@pytest.mark.parametrize("handed_over", [True, False])
async def test_held_connection_is_not_read_without_bound(start, handed_over):
    plane = await start(limits=Limits(max_pipelined_bytes=1000))
    client = await silent_client(plane)
    body = b"{%b}" % (b" " * 2**24)

    plane.listener.hold()
    client.writer.write(post(body))
    await until(lambda: bytes_held(plane) > 1000)
    for _ in range(100):
        await asyncio.sleep(0)
    assert bytes_held(plane) < 2**20
    await (plane.hand_over() if handed_over else plane.listener.release())

    assert (await client.response()).status == 200
    assert plane.engine.requests[0].body == body


async def test_new_connections_wait_for_the_next_listener(start):
    plane = await start()
    plane.listener.hold()
    clients = [await plane.client() for _ in range(20)]
    for client in clients:
        await client.send(post())
    assert await plane.listener.settle(PATIENCE_S)
    assert plane.listener.connections == 0

    await plane.hand_over()

    for client in clients:
        assert (await client.response()).status == 200


@pytest.mark.asyncio(loop_factories=["uvloop"])  # asyncio's loop drops such a connection itself
@pytest.mark.parametrize("turns", range(5))
async def test_connection_that_is_just_being_accepted_is_not_lost(start, turns):
    plane = await start()
    # Blocking, so that it is known in which turn of the event loop the port hears of it.
    sock = socket.create_connection(("127.0.0.1", plane.listener.port))
    for _ in range(turns):
        await asyncio.sleep(0)

    await plane.hand_over()

    sock.settimeout(0)
    client = Client(*await asyncio.open_connection(sock=sock))
    assert (await client.get("/health")).status == 200
    client.close()


async def test_clock_does_not_run_against_a_client_that_nobody_listens_to(start):
    plane = await start(limits=Limits(head_timeout_s=0.02, keep_alive_s=0.02))
    client = await plane.client()
    await client.get("/health")
    (connection,) = plane.listener._connections
    rung = asyncio.Event()
    ring = connection.alarm.ring

    def noticed():
        ring()
        rung.set()

    connection.alarm.ring = noticed
    plane.listener.hold()
    await client.send(HEALTH)
    async with asyncio.timeout(PATIENCE_S):
        await rung.wait()
    await plane.listener.release()

    assert (await client.response()).status == 200


async def test_held_connection_that_stays_silent_is_closed(start):
    plane = await start(limits=Limits(head_timeout_s=PATIENCE_S, keep_alive_s=0.05))
    client = await plane.client()
    await client.get("/health")

    plane.listener.hold()

    assert await client.rest() == (b"", True)


# --- released again ------------------------------------------------------------------------------


async def test_released_port_goes_on_with_what_was_left_unread(start):
    plane = await start()
    client = await silent_client(plane)
    plane.listener.hold()
    newcomer = await plane.client()
    await client.send(post())
    await newcomer.send(post())
    await until(lambda: bytes_held(plane))

    await plane.listener.release()
    await plane.listener.release()

    assert (await client.response()).status == 200
    assert (await newcomer.response()).status == 200
    assert len(plane.listener._servers) == 1


async def test_released_connection_has_its_write_limits_back(start):
    plane = await start()
    client = await silent_client(plane)
    (connection,) = plane.listener._connections
    before = connection._transport.get_write_buffer_limits()

    plane.listener.hold()
    await plane.listener.release()

    assert connection._transport.get_write_buffer_limits() == before
    assert (await client.post()).status == 200


async def test_listener_can_take_back_what_nobody_took_over(start):
    plane = await start()
    client = await silent_client(plane)
    plane.listener.hold()
    await client.send(post())
    await until(lambda: bytes_held(plane))
    assert await plane.listener.settle(PATIENCE_S)
    standing = plane.listener.hand_over()

    await plane.take_over(standing)

    assert (await client.response()).status == 200
    assert (await (await plane.client()).post()).status == 200


async def test_hand_over_without_descriptors_changes_nothing(start):
    plane = await start()
    clients = [await silent_client(plane) for _ in range(3)]
    plane.listener.hold()
    assert await plane.listener.settle(PATIENCE_S)

    with contextlib.ExitStack() as stack:
        used = fill_descriptors(stack)
        used.pop().close()
        with pytest.raises(OSError, match="Too many open files"):
            plane.listener.hand_over()
        stack.enter_context(socket.socket())  # no duplicate was left open

    await plane.listener.release()
    for client in clients:
        assert (await client.post()).status == 200


def fill_descriptors(stack):
    """Sockets on every descriptor that this process may still have, until *stack* is closed."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    stack.callback(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
    used = [stack.enter_context(socket.socket())]
    resource.setrlimit(resource.RLIMIT_NOFILE, (used[0].fileno() + 2, hard))
    with contextlib.suppress(OSError):
        while True:
            used.append(stack.enter_context(socket.socket()))
    return used


# --- limits --------------------------------------------------------------------------------------


async def test_adopted_connections_count_but_are_not_refused(start):
    plane = await start(limits=Limits(max_connections=2))
    clients = [await silent_client(plane) for _ in range(2)]
    await plane.hand_over()

    newcomer = await plane.client()
    assert (await newcomer.response()).error["code"] == "too_many_connections"
    newcomer.hang_up()

    plane.limits = Limits(max_connections=1)
    await plane.hand_over()
    for client in clients:
        assert (await client.post()).status == 200


async def test_adopted_connection_that_stays_silent_is_closed(start):
    plane = await start(limits=Limits(head_timeout_s=PATIENCE_S, keep_alive_s=0.05))
    client = await plane.client()
    await client.get("/health")

    await plane.hand_over()

    assert await client.rest() == (b"", True)


async def test_adopted_head_that_does_not_end_is_told(start):
    plane = await start(limits=Limits(head_timeout_s=0.05))
    client = await silent_client(plane)
    plane.listener.hold()
    await client.send(b"GET / HTTP/1.1\r\n")
    await until(lambda: bytes_held(plane))

    await plane.hand_over()

    assert (await client.response()).status == 408


# --- a real stop ---------------------------------------------------------------------------------


async def test_held_port_can_still_be_drained(start):
    plane = await start()
    idle, asking = await silent_client(plane), await silent_client(plane)
    plane.listener.hold()
    await asking.send(post())
    await until(lambda: bytes_held(plane))

    plane.listener.stop_accepting()
    assert await plane.listener.drain(PATIENCE_S)

    assert await idle.rest() == (b"", True)
    response = await asking.response()
    assert (response.status, response.headers["connection"]) == (200, "close")


async def test_socket_of_a_service_manager_listens_on_after_the_port_is_closed(start):
    plane = await start()
    with socket.create_server(("127.0.0.1", 0)) as managers:
        await plane.hand_over()
        listener = plane._make_listener()
        await listener.start(sockets=[managers.dup()])
        port = listener.port

        listener.hold()
        listener.stop_accepting()
        listener.close()

        client = Client(*await asyncio.open_connection("127.0.0.1", port))
        managers.settimeout(PATIENCE_S)
        accepted, _ = managers.accept()
        accepted.close()
        assert await client.rest() == (b"", True)
        client.close()
