import http.client
import os
import shutil
import socket
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from llmd.admin.client import AdminClient
from tests.admin.fake_operator import Served, served


@pytest.fixture
def short_dir() -> Iterator[Path]:
    """A private directory whose name leaves room for a socket's."""
    path = Path(tempfile.mkdtemp(prefix="llmd-t-", dir="/tmp"))
    yield path
    shutil.rmtree(path)


@pytest.fixture
def server(short_dir: Path) -> Iterator[Served]:
    with served(short_dir / "s") as running:
        yield running


@pytest.fixture
def client(server: Served) -> AdminClient:
    return AdminClient(server.path)


class Raw(http.client.HTTPConnection):
    """HTTP as anybody could speak it to the socket."""

    def __init__(self, path):
        super().__init__("localhost", timeout=10)
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(10)
        self.sock.connect(os.fspath(self.path))


@pytest.fixture
def ask(server: Served) -> Callable[..., tuple[http.client.HTTPResponse, bytes]]:
    """One request, with any headers; its answer and the answer's body."""

    def ask(method, path, body=None, **headers):
        connection = Raw(server.path)
        headers = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request(method, path, body, headers)
        response = connection.getresponse()
        text = response.read()
        connection.close()
        return response, text

    return ask
