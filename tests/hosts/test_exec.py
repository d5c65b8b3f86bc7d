"""The exec host: other people's servers, on ports and sockets of their own."""

import sys

import pytest

from llmd.hosts.engine import LoadError
from llmd.hosts.exec import exit_status, fill, free_port, program
from llmd.hosts.protocol import Launch
from llmd.platform.spawn import Exit
from llmd.runtime.host_process import HostFailedError
from tests.hosts.conftest import UNRULY, command
from tests.hosts.talk import connected


async def test_server_on_a_port_is_ready_when_it_says_so(hosts):
    host = await hosts.load("exec", options=command("--ready-delay", "0.2"))
    assert host.upstream.path is None
    with connected(host.upstream) as connection:
        assert connection.get("/health") == (200, {"status": "ok"})


async def test_server_on_a_private_socket(hosts):
    argv = [sys.executable, str(UNRULY), "--socket", "{socket}"]
    host = await hosts.load("exec", options={"argv": argv, "ready": "/v1/models"})
    assert host.upstream.path.endswith(".sock")
    with connected(host.upstream) as connection:
        assert connection.chat("hi")["model"] == "unruly"


async def test_random_key_keeps_others_out(hosts):
    options = command(
        "--key", "{key}", ready="/v1/models", headers={"Authorization": "Bearer {key}"}
    )
    host = await hosts.load("exec", options=options)
    assert len(host.upstream.headers["Authorization"]) > 30
    with connected(host.upstream) as connection:
        assert connection.get("/v1/models")[0] == 200
    with connected(type(host.upstream)(port=host.upstream.port)) as stranger:
        assert stranger.get("/v1/models")[0] == 401


async def test_key_may_come_through_the_environment(hosts):
    code = (
        "import os, sys; os.execv(sys.executable, [sys.executable, *sys.argv[1:], os.environ['K']])"
    )
    argv = [sys.executable, "-c", code, str(UNRULY), "--port", "{port}", "--key"]
    headers = {"Authorization": "Bearer {key}"}
    options = {"argv": argv, "ready": "/v1/models", "headers": headers}
    host = await hosts.load("exec", options=options, env={"K": "{key}"})
    with connected(host.upstream) as connection:
        assert connection.get("/v1/models")[0] == 200


async def test_probe_must_succeed_too(hosts):
    host = await hosts.start("exec")
    options = command("--status", "500", probe=["/v1/completions", {"prompt": "a"}])
    with pytest.raises(HostFailedError, match="answers /v1/completions with 500"):
        await host.load(Launch("lab", "exec", options), "f1")


async def test_server_that_never_gets_ready_is_told_with_its_last_answer(hosts):
    host = await hosts.start("exec")
    launch = Launch("lab", "exec", command("--never-ready"), {}, 1.0)
    with pytest.raises(HostFailedError):
        await host.load(Launch(**{**launch.to_wire(), "load_timeout_s": 0.3}), "f1")


async def test_program_that_is_not_there_is_named(hosts):
    host = await hosts.start("exec")
    options = {"argv": ["no-such-server", "{port}"], "ready": "/"}
    with pytest.raises(HostFailedError, match="no-such-server is not an executable on PATH"):
        await host.load(Launch("lab", "exec", options), "f1")


def test_program_is_looked_up_on_the_path_it_will_run_with(tmp_path):
    tool = tmp_path / "tool"
    tool.write_text("#!/bin/sh\n")
    tool.chmod(0o700)
    assert program("tool", {"PATH": str(tmp_path)}) == str(tool)
    with pytest.raises(LoadError):
        program("tool", {"PATH": "/nowhere"})


def test_placeholders_are_filled_and_other_braces_kept():
    assert fill('{"a": "{port}", "b": "{c}"}', {"{port}": "80"}) == '{"a": "80", "b": "{c}"}'


def test_free_port_can_be_bound():
    assert 20_000 <= free_port() < 32_000


@pytest.mark.parametrize(
    ("ended", "status"),
    [(Exit(code=3), 3), (Exit(code=0), 1), (Exit(signal="SIGKILL"), 137), (Exit(), 1)],
)
def test_end_of_a_server_becomes_a_status_that_is_not_success(ended, status):
    assert exit_status(ended) == status
