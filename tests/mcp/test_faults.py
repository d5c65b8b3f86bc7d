"""What goes wrong: engines that die, clients that leave, a daemon that is not there."""

import json
import select
import subprocess
import time

import anyio
import pytest

from tests.mcp.talking import PROGRAM, Told, chat, in_process, over_http, over_stdio, text_of
from tests.system.conftest import running
from tests.system.running import Llmd, free_ports, lay_out, request, unruly


BOTH = pytest.mark.parametrize("transport", [over_stdio, over_http], ids=["stdio", "http"])
KEY = "sesame-1"


@pytest.fixture(scope="module")
def engines():
    """One daemon, with an unruly engine for each fault."""
    slow, fast, dying, broken, long = free_ports(5)
    config = lay_out(
        {
            "slow": unruly(slow, "--chunks", "100000", "--chunk-delay", "0.02", memory="20MiB"),
            "fast": unruly(fast, memory="20MiB", aliases=["quick"]),
            "dying": unruly(dying, "--crash-after", "2", "--chunk-delay", "0.05", memory="20MiB"),
            "broken": unruly(broken, "--crash-at-start", "7", memory="20MiB"),
            "long": unruly(long, "--ready-delay", "60", memory="20MiB"),
        }
    )
    with running(config) as daemon:
        daemon.slow_port = slow
        yield daemon


def stats(daemon):
    """What the slow engine has counted; this question is one of those in flight."""
    if daemon.profile("slow")["state"] != "ready":
        return {"in_flight": 0, "cancelled": 0}
    return json.loads(request(daemon.slow_port, "GET", "/stats")[2])


def wait_until(condition):
    """Until *condition*, which asks another process, holds."""
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        select.select([], [], [], 0.02)


async def until(condition):
    await anyio.to_thread.run_sync(wait_until, condition)


async def begin(tasks, client, arguments):
    """Call the chat tool in *tasks*, and return once its first token was told of."""
    told = Told()

    async def call():
        await client.call_tool("llama_cpp_chat", arguments, progress_callback=told)

    tasks.start_soon(call)
    await until(lambda: any("is writing" in message for message in told.messages))


@BOTH
@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_cancelled_chat_ends_the_engines_work(engines, transport, mode):
    before = stats(engines)["cancelled"]
    async with transport(engines.env, mode=mode) as client:
        async with anyio.create_task_group() as tasks:
            await begin(tasks, client, chat("Go on", "slow"))
            assert stats(engines)["in_flight"] == 2
            tasks.cancel_scope.cancel()
        await until(lambda: stats(engines)["cancelled"] == before + 1)
        answered = await client.call_tool("llama_cpp_chat", chat("Hi", "quick"))
        assert text_of(answered).split() == ["w0", "w1", "w2", "w3", "w4"]


async def test_two_calls_run_at_once(engines):
    async with over_stdio(engines.env) as client, anyio.create_task_group() as tasks:
        await begin(tasks, client, chat("Go on", "slow"))
        answered = await client.call_tool("llama_cpp_chat", chat("Hi", "fast", max_tokens=2))
        assert text_of(answered).split() == ["w0", "w1"]
        assert stats(engines)["in_flight"] == 2
        tasks.cancel_scope.cancel()


async def test_cancelled_load_does_not_hold_the_server(engines):
    async with over_stdio(engines.env) as client:
        told = Told()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(client.call_tool, "llmd_load", {"profile": "long"}, None, told)
            await until(lambda: "long: loading" in " ".join(told.messages))
            tasks.cancel_scope.cancel()
        unloaded = await client.call_tool("llmd_unload", {"profile": "long"})
        assert not unloaded.is_error
    assert engines.profile("long")["state"] == "unloaded"


def test_client_that_hangs_up_ends_its_calls_and_the_server(engines):
    before = stats(engines)["cancelled"]
    arguments = chat("Go on", "slow")
    lines = [
        {"id": 1, "method": "initialize", "params": {
            "protocolVersion": "2025-06-18", "capabilities": {},
            "clientInfo": {"name": "test", "version": "1"}}},
        {"method": "notifications/initialized"},
        {"id": 2, "method": "tools/call", "params": {
            "name": "llama_cpp_chat", "arguments": arguments, "_meta": {"progressToken": "t"}}},
    ]  # fmt: skip
    process = subprocess.Popen(
        [PROGRAM], env=engines.env, text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    for line in lines:
        process.stdin.write(json.dumps({"jsonrpc": "2.0"} | line) + "\n")
    process.stdin.flush()
    said = []
    while not said or "is writing" not in said[-1].get("params", {}).get("message", ""):
        said.append(json.loads(process.stdout.readline()))
    assert said[0]["result"]["serverInfo"]["name"] == "llmd"
    rest, errors = process.communicate(timeout=20)
    assert process.returncode == 0
    assert errors == ""
    assert all(json.loads(line) for line in rest.splitlines())
    wait_until(lambda: stats(engines)["cancelled"] == before + 1)


@BOTH
async def test_engine_that_dies_is_a_tool_error_with_what_it_said(engines, transport):
    async with transport(engines.env) as client:
        answered = await client.call_tool("llama_cpp_chat", chat("Hi", "dying"))
        assert answered.is_error
        assert answered.structured_content["error"]["code"] == "engine_died"
        assert "42" in text_of(answered)
        again = await client.call_tool("llama_cpp_chat", chat("Hi", "fast"))
        assert not again.is_error


async def test_load_that_fails_is_a_tool_error_with_exit_code_and_log(engines):
    async with in_process(engines.env) as client:
        for call in (
            ("llama_cpp_chat", chat("Hi", "broken")),
            ("llmd_load", {"profile": "broken"}),
        ):
            answered = await client.call_tool(*call)
            assert answered.is_error
            assert answered.structured_content["error"]["code"] == "load_failed"
            assert "7" in text_of(answered)
            assert "unruly: giving up" in text_of(answered)


async def test_without_a_daemon_tools_say_how_to_start_it_and_work_once_it_runs(short_dir):
    daemon = Llmd(short_dir, lay_out({"a": unruly(free_ports(1)[0])}))
    async with over_stdio(daemon.env) as client:
        assert len((await client.list_tools()).tools) == 7
        for call in (("llama_cpp_chat", chat("Hi", "a")), ("llmd_status", {})):
            answered = await client.call_tool(*call)
            assert answered.is_error
            assert answered.structured_content["error"]["code"] == "daemon_not_running"
            assert "llmd-ctl start" in text_of(answered)
            assert "llmd serve" in text_of(answered)
        listed = (await client.list_resources()).resources
        assert [str(resource.uri) for resource in listed] == ["llmd://profiles"]
        await anyio.to_thread.run_sync(daemon.start)
        try:
            answered = await client.call_tool("llama_cpp_chat", chat("Hi", "a"))
            assert text_of(answered).startswith("w0 w1")
        finally:
            await anyio.to_thread.run_sync(daemon.stop)
        gone = await client.call_tool("llmd_status")
        assert gone.structured_content["error"]["code"] == "daemon_not_running"


async def test_port_that_wants_a_key_gets_it_from_the_environment(start):
    daemon = start(lay_out({"a": unruly(free_ports(1)[0])}, api_keys=[KEY]))
    async with over_stdio(daemon.env) as client:
        refused = await client.call_tool("llama_cpp_chat", chat("Hi", "a"))
        assert refused.is_error
        assert "LLMD_API_KEY" in text_of(refused)
    async with over_stdio(daemon.env | {"LLMD_API_KEY": KEY}) as client:
        answered = await client.call_tool("llama_cpp_chat", chat("Hi", "a"))
        assert text_of(answered).startswith("w0 w1")
