import shutil
import tempfile
from collections.abc import Iterator
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
