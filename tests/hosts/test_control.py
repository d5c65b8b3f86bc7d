"""The host program and its control socket, with the exec host as the quickest."""

import asyncio
import json
import os
import sys

import pytest

from llmd.hosts.protocol import MAX_LINE_BYTES, Launch, decode, encode
from llmd.platform.spawn import Exit, spawn
from llmd.runtime.control import (
    ControlClient,
    ControlLostError,
    ControlRefusedError,
    socket_path,
)
from llmd.runtime.host_process import HostFailedError
from tests.hosts.conftest import command


def control_of(host, directory):
    return socket_path(directory, host.instance, "c")


@pytest.fixture
async def host(hosts):
    return await hosts.start("exec")


@pytest.fixture
async def client(host, short_dir):
    """A second connection to the host, beside the daemon's."""
    connected = await ControlClient.connect(control_of(host, short_dir))
    yield connected
    connected.close()


async def test_hello_says_who_it_is(host, client):
    hello = await client.request("hello")
    assert hello == {
        "protocol": 1,
        "instance": host.instance,
        "kind": "exec",
        "pid": host.pid,
        "profile": None,
        "fingerprint": None,
        "state": "idle",
        "upstream": None,
        "error": None,
    }


async def test_prepare_may_be_asked_twice(client):
    await client.request("prepare")
    await client.request("prepare")
    assert (await client.request("status"))["state"] == "prepared"


async def test_status_is_answered_while_a_load_runs(host, client):
    launch = Launch("lab", "exec", command("--never-ready"), {}, 60)
    loading = asyncio.ensure_future(host.load(launch, "f1"))
    while (await client.request("status"))["state"] != "loading":
        pass
    hello = await client.request("hello")
    assert (hello["profile"], hello["fingerprint"]) == ("lab", "f1")
    await host.stop(grace_s=5)
    with pytest.raises(HostFailedError):
        await loading


async def test_loaded_host_takes_no_second_load(host, client):
    await host.load(Launch("lab", "exec", command()), "f1")
    again = Launch("other", "exec", command()).to_wire()
    with pytest.raises(ControlRefusedError, match="cannot load while ready"):
        await client.request("load", launch=again, fingerprint="f2")
    assert (await client.request("hello"))["profile"] == "lab"


async def test_failed_host_stays_to_tell_why(host, client):
    with pytest.raises(HostFailedError):
        await host.load(Launch("lab", "exec", command("--crash-at-start", "4")), "f1")
    hello = await client.request("hello")
    assert hello["state"] == "failed"
    assert "exit status 4" in hello["error"]
    with pytest.raises(ControlRefusedError, match="cannot load while failed"):
        await client.request("load", launch=Launch("lab", "exec").to_wire())


@pytest.mark.parametrize(
    ("request_", "error"),
    [
        pytest.param({"op": "dance"}, "no such operation", id="unknown operation"),
        pytest.param({}, "no such operation", id="no operation"),
        pytest.param({"op": "load"}, "not a launch", id="load of nothing"),
        pytest.param({"op": "load", "launch": {"colour": 1}}, "not a launch", id="odd launch"),
    ],
)
async def test_request_that_makes_no_sense_is_refused(client, request_, error):
    op = request_.pop("op", None)
    with pytest.raises(ControlRefusedError, match=error):
        await client.request(op, **request_)
    assert (await client.request("status"))["state"] == "idle"


@pytest.mark.parametrize(
    "line",
    [
        pytest.param(b"not json\n", id="not JSON"),
        pytest.param(b"[1]\n", id="not an object"),
        pytest.param(b"x" * (MAX_LINE_BYTES + 1), id="endless line"),
    ],
)
async def test_peer_that_breaks_the_protocol_is_dropped_alone(host, client, short_dir, line):
    path = os.fspath(control_of(host, short_dir))
    reader, writer = await asyncio.open_unix_connection(path, limit=2**22)
    writer.write(line)
    with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
        await reader.readexactly(1)
    writer.close()
    assert (await client.request("status"))["state"] == "idle"


async def test_requests_may_come_in_pieces_and_together(host, short_dir):
    reader, writer = await asyncio.open_unix_connection(os.fspath(control_of(host, short_dir)))
    lines = encode({"id": 1, "op": "status"}) + encode({"id": 2, "op": "status"})
    writer.write(lines[:5])
    await writer.drain()
    writer.write(lines[5:])
    answers = [decode(await reader.readline())["id"] for _ in range(2)]
    assert answers == [1, 2]
    writer.close()


async def test_stop_is_answered_before_the_end(host, client):
    assert await client.request("stop") == {}
    assert await asyncio.wait_for(host.exited, 10) == Exit(code=0)
    with pytest.raises(ControlLostError):
        await client.request("status")


async def test_host_without_a_daemon_ends_itself_and_its_server(hosts):
    host = await hosts.start("exec", orphan_grace_s=0.2)
    await host.load(Launch("lab", "exec", command("--children", "1")), "f1")
    host.detach()
    await asyncio.wait_for(host.exited, 10)  # reaped: its group is gone as well
    assert "no daemon" in "\n".join(host.log.tail())


async def test_host_that_nobody_ever_spoke_to_ends_itself(short_dir):
    argv = [sys.executable, "-m", "llmd.hosts", "--kind", "exec", "--instance", "x"]
    sockets = ["--control", short_dir / "c.sock", "--upstream", short_dir / "u.sock"]
    child = spawn([*argv, *sockets, "--orphan-grace", "0.1"], env=os.environ, log=short_dir / "log")
    ended = await asyncio.to_thread(child.wait, 20)
    assert ended == Exit(code=0)
    assert not list(short_dir.glob("*.sock"))


async def test_daemon_within_the_grace_keeps_the_host(hosts):
    host = await hosts.start("exec", orphan_grace_s=2.0)
    host.detach()
    adopted = await hosts.adopt(host)
    assert (await adopted.status())["state"] == "idle"


def test_launch_survives_the_wire():
    launch = Launch("p", "mlx", {"context": 5}, {"A": "b"}, 3.0)
    assert Launch.from_wire(json.loads(encode(launch.to_wire()))) == launch
