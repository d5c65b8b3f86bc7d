import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.admin.fake_operator import Served, served
from tests.cli.on_disk import home


__all__ = ["home"]  # a fixture of several files


Ctl = Callable[..., subprocess.CompletedProcess[str]]

COMMAND = (sys.executable, "-m", "llmd.cli.main")


@pytest.fixture
def short_dir() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix="llmd-t-", dir="/tmp"))
    yield path
    shutil.rmtree(path)


@pytest.fixture
def daemon(short_dir: Path) -> Iterator[Served]:
    with served(short_dir / "s") as running:
        yield running


@pytest.fixture
def environment(short_dir: Path) -> dict[str, str]:
    """The environment of `llmd-ctl`: its own socket and configuration, 80 columns, no colours."""
    kept = {key: os.environ[key] for key in ("PATH", "HOME", "LANG") if key in os.environ}
    return kept | {
        "LLMD_SOCKET": str(short_dir / "s"),
        "LLMD_CONFIG": str(short_dir / "llmd.yaml"),
        "PYTHONIOENCODING": "utf-8",
        "TZ": "UTC",
    }


@pytest.fixture
def ctl(environment: dict[str, str]) -> Ctl:
    """Run `llmd-ctl` as a process of its own, to its end."""

    def run(*args: str, stdin: str = "", **env: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*COMMAND, *args],
            input=stdin,
            env=environment | env,
            capture_output=True,
            text=True,
            timeout=20,
            check=False,
        )

    return run


@pytest.fixture
def start(environment: dict[str, str]) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start `llmd-ctl` and go on; it is ended with the test."""
    running: list[subprocess.Popen[str]] = []

    def begin(*args: str, **env: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [*COMMAND, *args],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment | env,
            text=True,
        )
        running.append(process)
        return process

    yield begin
    for process in running:
        with process:
            process.kill()
