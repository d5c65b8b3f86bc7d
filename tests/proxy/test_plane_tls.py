"""Remotes behind TLS."""

import asyncio
import shutil
import ssl
import subprocess

import pytest

from llmd.proxy.gate import Upstream
from tests.proxy.doubles import STREAM, post


pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl")


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """A certificate for localhost that nobody but these tests trusts."""
    path = tmp_path_factory.mktemp("tls")
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1",
         "-nodes", "-days", "1", "-subj", "/CN=localhost",
         "-addext", "subjectAltName=DNS:localhost",
         "-keyout", path / "key.pem", "-out", path / "cert.pem"],
        check=True, capture_output=True,
    )  # fmt: skip
    return path


@pytest.fixture
async def remote(start, certificate):
    """A data plane whose upstream is the scripted engine behind TLS, with a prefix and a key."""
    servers = []

    async def remote(script=None, *, trusted=True):
        plane = await start(script)
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(certificate / "cert.pem", certificate / "key.pem")
        server = await asyncio.start_server(plane.engine.serve, "127.0.0.1", 0, ssl=context)
        servers.append(server)
        port = server.sockets[0].getsockname()[1]
        plane.gate.upstream = Upstream(
            host="localhost", port=port, tls=True, prefix="/api/v1", headers={"Authorization": "K"}
        )
        if trusted:
            plane.pool._tls = ssl.create_default_context(cafile=certificate / "cert.pem")
        return plane

    yield remote
    for server in servers:
        server.close()


async def test_remote_gets_requests_under_its_own_name_and_path(remote):
    plane = await remote()
    client = await plane.client()

    for _ in range(2):
        assert (await client.post()).body == b'{"ok":true}'

    seen = plane.engine.requests[0]
    assert seen.line == "POST /api/v1/chat/completions HTTP/1.1"
    assert seen.headers["host"] == [f"localhost:{plane.gate.upstream.port}"]
    assert seen.headers["authorization"] == ["K"]
    assert plane.engine.connections == 1


async def test_remote_that_cannot_be_trusted_is_a_502_that_says_so(remote):
    plane = await remote(trusted=False)
    client = await plane.client()

    response = await client.post()

    assert response.status == 502
    assert "certificate" in response.error["message"].lower()
    assert plane.engine.requests == []


async def test_hang_up_reaches_a_remote(remote):
    async def script(side):
        await side.request()
        await side.stream_head()
        await side.chunk(b"data: 1\n\n")
        await side.until_closed()

    plane = await remote(script)
    client = await plane.client()
    await client.send(post(STREAM))
    await client.head()
    assert await client.chunk() == b"data: 1\n\n"

    client.hang_up()

    await plane.engine.until(lambda: plane.engine.closed)
    assert plane.gate.left == [(1, False)]
