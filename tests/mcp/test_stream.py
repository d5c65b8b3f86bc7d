"""Answers that no daemon of ours gives, and a daemon that gives none."""

import asyncio
import socket
import threading
from contextlib import asynccontextmanager

import anyio
import pytest

from llmd.admin.asking import CutShortError, PortClosedError
from llmd.admin.client import AnsweredError
from llmd.mcp.chat import Answer, _stream
from llmd.mcp.daemon import Daemon
from llmd.mcp.progress import Progress
from tests.mcp.talking import Told
from tests.system.running import free_ports


HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"
CHUNK = b'data: {"choices": [{"delta": {"content": "Par"}}]}\n\n'
DONE = b"data: [DONE]\n\n"


@asynccontextmanager
async def answering(*pieces):
    """A port that answers the first request with *pieces*, each in a packet of its own."""

    async def answer(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0)
        writer.close()
        await writer.wait_closed()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        yield server.sockets[0].getsockname()


async def stream(address):
    answer = Answer("code")
    told = Told()
    await _stream(address, {"model": "code"}, answer, Progress(told))
    return answer, told


async def test_events_may_be_cut_anywhere():
    whole = HEAD + b": keepalive 1/2\n\n" + CHUNK + CHUNK + DONE
    async with answering(*(whole[at : at + 7] for at in range(0, len(whole), 7))) as address:
        answer, told = await stream(address)
    assert answer.content == "ParPar"
    assert told.messages[0] == "code reads the prompt: 1 of 2 tokens"


@pytest.mark.parametrize(
    ("pieces", "error", "said"),
    [
        pytest.param((HEAD, CHUNK), CutShortError, "was cut short", id="an end without its end"),
        pytest.param((HEAD, b"data: {oops\n"), CutShortError, "no JSON", id="no JSON"),
        pytest.param((b"SSH-2.0-x\r\n\r\n",), CutShortError, "broke", id="no HTTP"),
        pytest.param((HEAD, CHUNK, b'data: {"error": {"message": "died", "code": "x"}}\n'),
                     AnsweredError, "died", id="an error in the stream"),
        pytest.param((b"HTTP/1.1 500 -\r\nConnection: close\r\n\r\n<h1>Oh</h1>",),
                     AnsweredError, "the port answered 500: <h1>Oh</h1>", id="no llmd at all"),
    ],
)  # fmt: skip
async def test_answer_that_went_wrong_is_never_taken_for_a_whole_one(pieces, error, said):
    async with answering(*pieces) as address:
        with pytest.raises(error) as caught:
            await stream(address)
    assert said in caught.value.message


async def test_closed_port_says_where_to_look():
    with pytest.raises(PortClosedError) as caught:
        await stream(("127.0.0.1", free_ports(1)[0]))
    assert caught.value.remedy == "see `llmd-ctl status`"


async def test_cancelled_caller_does_not_wait_for_a_daemon_that_is_silent(short_dir):
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(short_dir / "s"))
    listener.listen()
    gave_up = threading.Event()

    def hang_up():
        gave_up.set()
        listener.accept()[0].close()

    timer = threading.Timer(10, hang_up)
    timer.start()
    try:
        with anyio.move_on_after(0.05):
            await Daemon(short_dir / "s").ask(lambda client: client.unload("code"))
        assert not gave_up.is_set()
    finally:
        timer.cancel()
        timer.join()
        if not gave_up.is_set():
            hang_up()
        listener.close()
