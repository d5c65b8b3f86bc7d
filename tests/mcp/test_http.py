"""Streamable HTTP is for this machine, and for those who may use its models."""

import json
import os
import subprocess
from urllib.parse import urlsplit

import psutil
import pytest
from mcp import Client

from tests.mcp.talking import PROGRAM, serving_http
from tests.system.running import request


PING = {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {
    "protocolVersion": "2025-06-18", "capabilities": {},
    "clientInfo": {"name": "test", "version": "1"}}}  # fmt: skip
ACCEPT = {"Accept": "application/json, text/event-stream"}


@pytest.fixture
def env(short_dir, monkeypatch):
    monkeypatch.setenv("LLMD_SOCKET", str(short_dir / "s"))
    return dict(os.environ)


def knock(url, **headers):
    port = urlsplit(url).port
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return request(port, path="/mcp", body=PING, headers=ACCEPT | named)[0]


def test_only_this_machines_names_and_no_web_page_get_in(env):
    with serving_http(env) as url:
        port = urlsplit(url).port
        assert knock(url) == 200
        assert knock(url, Host=f"localhost:{port}", Origin=f"http://localhost:{port}") == 200
        assert knock(url, Host=f"rebound.example:{port}") == 421
        assert knock(url, Host=f"localhost.rebound.example:{port}") == 421
        assert knock(url, Host="localhost:1") == 421
        assert knock(url, Origin="https://page.example") == 403
        assert knock(url, Origin="http://localhost:3000") == 403
        assert knock(url, Origin="null") == 403
        assert knock(url, Content_Type="text/plain") == 400  # what a page may send unasked


def test_it_listens_on_loopback_alone(env):
    with serving_http(env) as url:
        port = urlsplit(url).port
        addresses = {
            connection.laddr.ip
            for connection in psutil.net_connections("tcp")
            if connection.status == psutil.CONN_LISTEN and connection.laddr.port == port
        }
    assert addresses
    assert addresses <= {"127.0.0.1", "::1"}


async def test_with_a_key_clients_must_have_it_too(env):
    with serving_http(env | {"LLMD_API_KEY": "sesame-1"}) as url:
        assert knock(url) == 401
        assert knock(url, Authorization="Bearer sesame-2") == 401
        assert knock(url, Authorization="Bearer sesame-1") == 200


def test_port_in_use_is_said_and_nothing_else(env):
    with serving_http(env) as url:
        port = str(urlsplit(url).port)
        done = subprocess.run(
            [PROGRAM, "--http", port], env=env, capture_output=True, text=True, timeout=20,
            check=False,
        )  # fmt: skip
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith(f"llmd-mcp: cannot listen on 127.0.0.1 port {port}: ")
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("args", "status", "said"),
    [
        (["--help"], 0, "http://127.0.0.1:PORT/mcp"),
        (["--version"], 0, "llmd-mcp "),
        (["--http", "many"], 2, "many"),
        (["--prot"], 2, "--prot"),
    ],
)
def test_command_line(env, args, status, said):
    done = subprocess.run(
        [PROGRAM, *args], env=env, capture_output=True, text=True, timeout=20, check=False
    )
    assert done.returncode == status
    assert said in done.stdout + done.stderr
    assert "Traceback" not in done.stderr


async def test_many_clients_are_served_at_once(env):
    with serving_http(env) as url:
        async with Client(url) as one, Client(url, mode="legacy") as other:
            for client in (one, other):
                answered = await client.call_tool("llmd_status")
                assert json.dumps(answered.structured_content).count("daemon_not_running") == 1
