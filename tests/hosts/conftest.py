"""Hosts for tests: started through the daemon's own `HostProcess`, ended one by one."""

import os
import sys
import tempfile
from pathlib import Path

import pytest
import pytest_asyncio

from llmd.hosts.protocol import Launch
from llmd.runtime.host_process import HostProcess


UNRULY = Path(__file__).parents[1] / "unruly_engine.py"


class Hosts:
    """Starts hosts in one short directory, and ends those that are left."""

    def __init__(self, directory):
        self.directory = directory
        self.started = []

    async def start(self, kind, *, orphan_grace_s=30.0, log="host.log"):
        """A running host that has not loaded anything."""
        host = await HostProcess.start(
            kind,
            directory=self.directory,
            log_path=self.directory / log,
            orphan_grace_s=orphan_grace_s,
        )
        self.started.append(host)
        return host

    async def adopt(self, host, **changes):
        """Take *host* over, as a second daemon would."""
        known = {"pid": host.pid, "kind": host.kind, "instance": host.instance, **changes}
        adopted = HostProcess.found(**known, directory=self.directory, log_path=host.log.path)
        try:
            await adopted.attach(2)
        except BaseException:
            adopted.detach()
            raise
        self.started.append(adopted)
        return adopted

    async def load(self, kind, *, profile="demo", fingerprint="f1", **launch):
        """A host that has loaded; *launch* are fields of `Launch`."""
        host = await self.start(kind)
        await host.load(Launch(profile=profile, kind=kind, **launch), fingerprint)
        return host

    async def end(self):
        """End everything that was started."""
        for host in self.started:
            await host.stop(grace_s=0)


@pytest.fixture
async def hosts(short_dir):
    """Starts hosts; all of them are ended with the test."""
    running = Hosts(short_dir)
    yield running
    await running.end()


def command(*flags, **options):
    """Options of an exec launch for the unruly engine, on a port of its own."""
    argv = [sys.executable, os.fspath(UNRULY), "--port", "{port}", *flags]
    return {"argv": argv, "ready": "/health", **options}


def gguf(demo_models, **options):
    """Options of a llama launch for the demo model."""
    return {
        "model": os.fspath(demo_models / "tiny-f16.gguf"),
        "context": 1024,
        "parallel": 2,
        "prompt_cache_bytes": 16 * 2**20,
        "args": ["--threads", "1"],  # several would spin and wait for each other on a busy machine
        **options,
    }


def mlx(demo_models, **options):
    """Options of an MLX launch for the demo model."""
    return {
        "model": os.fspath(demo_models / "tiny-mlx"),
        "context": 1024,
        "parallel": 3,
        "prompt_cache_bytes": 2**20,
        **options,
    }


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def mlx_host(demo_models):
    """An MLX host with the demo model, shared by a module: it takes seconds to start."""
    with tempfile.TemporaryDirectory(prefix="llmd-", dir="/tmp") as path:
        running = Hosts(Path(path))
        options = mlx(demo_models, args=["--prefill-step-size", "64"])
        yield await running.load("mlx", options=options)
        await running.end()
