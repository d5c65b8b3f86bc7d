"""How far an engine is, as its host tells it: at once, whatever the engine does."""

import asyncio
import contextlib
import json
import socket
import threading

import pytest

from llmd.hosts.protocol import Launch
from llmd.hosts.slots import SlotsWatch, summary
from tests.hosts.conftest import command, gguf, mlx
from tests.hosts.talk import connected


WAIT_S = 10.0
LONG = {"prompt": "a " * 200, "max_tokens": 300, "ignore_eos": True}


async def until(host, holds):
    """Ask *host* until what it tells *holds*; the last answer."""
    async with asyncio.timeout(WAIT_S):
        while not holds(told := await host.pulse()):
            pass
    return told


async def test_other_peoples_server_tells_nothing(hosts):
    host = await hosts.load("exec", options=command())
    assert await host.pulse() == {}


async def test_host_that_has_loaded_nothing_tells_nothing(hosts):
    for kind in ("exec", "llama", "mlx"):
        assert await (await hosts.start(kind)).pulse() == {}


async def test_host_that_is_gone_tells_nothing(hosts):
    host = await hosts.start("exec")
    await host.stop(grace_s=0)
    assert await host.pulse() == {}


async def test_llama_tells_of_each_token_and_when_it_rests(hosts, demo_models):
    host = await hosts.load("llama", options=gguf(demo_models))
    resting = await until(host, lambda told: told["resting"] and told["progress"])
    with connected(host.upstream) as connection:
        asking = threading.Thread(target=connection.post, args=("/v1/completions", LONG))
        asking.start()
        seen = set()
        while asking.is_alive():
            seen.add((await host.pulse())["progress"])
        asking.join()
    assert len(seen) > 3
    after = await until(host, lambda told: told["resting"] and told["progress"])
    assert after["progress"] != resting["progress"]
    assert '"a ' not in str(seen), "numbers, nothing of a prompt"


@pytest.mark.asyncio(loop_scope="module")
async def test_mlx_tells_of_each_token_and_when_it_rests(mlx_host):
    resting = await until(mlx_host, lambda told: told["resting"])
    assert await mlx_host.pulse() == resting, "nothing moves while it rests"
    with connected(mlx_host.upstream) as connection:
        body = {"prompt": "a", "max_tokens": 100}
        asking = threading.Thread(target=connection.post, args=("/v1/completions", body))
        asking.start()
        told = []
        while asking.is_alive():
            told.append(await mlx_host.pulse())
        asking.join()
    assert len({each["progress"] for each in told}) > 3
    assert not all(each["resting"] for each in told)
    assert (await until(mlx_host, lambda told: told["resting"]))["progress"] != resting["progress"]


async def test_mlx_thread_that_hangs_neither_rests_nor_moves(demo_models, short_dir):
    pytest.importorskip("mlx_lm")
    from llmd.hosts.mlx import MlxEngine
    from llmd.hosts.mlx_generate import Inbox

    engine = MlxEngine(short_dir / "u.sock")
    assert engine.pulse() == {}
    engine.load(Launch("demo", "mlx", mlx(demo_models)))
    entered, released = threading.Event(), threading.Event()

    def hang():
        entered.set()
        released.wait()

    engine._generator.requests.put(hang)
    assert entered.wait(WAIT_S)
    first = engine.pulse()
    assert not first["resting"]
    assert engine.pulse() == first
    Inbox(engine._generator._count).put((512, 9_000))
    assert engine.pulse() != first, "a piece of a prompt is done"
    released.set()
    engine._generator.stop_and_join()


# --- a server that is asked for its sequences


@contextlib.contextmanager
def server(path, *answers):
    """Answers one connection after the other with *answers*; None is not answered."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen()
    kept = []

    def serve():
        for answer in answers:
            connection, _ = listener.accept()
            connection.recv(65536)
            if answer is not None:
                connection.sendall(answer)
                connection.close()
            kept.append(connection)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield kept
    finally:
        thread.join(WAIT_S)
        for connection in kept:
            connection.close()
        listener.close()


def ok(content, status=200):
    data = content if isinstance(content, bytes) else json.dumps(content).encode()
    head = b"HTTP/1.1 %d -\r\nContent-Length: %d\r\nConnection: close\r\n\r\n"
    return head % (status, len(data)) + data


BUSY = [{"id_task": 7, "is_processing": True, "next_token": [{"n_decoded": 12}]}]


def test_server_that_does_not_answer_neither_rests_nor_moves(short_dir):
    with server(short_dir / "s", ok([]), None) as kept:
        watch = SlotsWatch(short_dir / "s")
        assert watch.look() == {"progress": "", "resting": True}
        assert watch.wait(WAIT_S)
        first = watch.look()
        assert first == {"progress": "[]", "resting": True}
        for _ in range(3):  # nor is it asked a second time meanwhile
            assert watch.look() == {"progress": "[]", "resting": False}
    kept[1].close()
    assert watch.wait(WAIT_S)


@pytest.mark.parametrize(
    "answer",
    [b"", ok(b"{"), ok([7]), ok({"error": "?"}), ok(9)],
    ids=["nothing", "half", "numbers", "object", "number"],
)
def test_answer_that_makes_no_sense_changes_nothing(short_dir, answer):
    with server(short_dir / "s", ok(BUSY), answer):
        watch = SlotsWatch(short_dir / "s")
        for _ in range(2):
            watch.look()
            assert watch.wait(WAIT_S)
        assert "12" in watch._known["progress"]


def test_server_that_does_not_list_them_is_not_counted(short_dir):
    with server(short_dir / "s", ok({"error": "disabled"}, 501)):
        watch = SlotsWatch(short_dir / "s")
        watch.look()
        assert watch.wait(WAIT_S)
        assert watch._known == {}


def test_server_that_is_gone_is_no_error(short_dir):
    watch = SlotsWatch(short_dir / "nobody")
    watch.look()
    assert watch.wait(WAIT_S)
    assert watch._known == {"progress": "", "resting": True}


@pytest.mark.parametrize(
    "change",
    [
        {"id_task": 8},
        {"n_prompt_tokens_processed": 512},
        {"next_token": [{"n_decoded": 13}]},
    ],
    ids=["another request", "a piece of a prompt", "a token"],
)
def test_each_step_is_another_progress(change):
    assert summary([{**BUSY[0], **change}])["progress"] != summary(BUSY)["progress"]


def test_prompts_are_not_passed_on():
    told = summary([{**BUSY[0], "prompt": "my secret", "params": {"grammar": "my secret"}}])
    assert "secret" not in str(told)
    assert told["resting"] is False
