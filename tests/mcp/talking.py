"""`llmd-mcp` in a process of its own, and the SDK's own client in front of it."""

import contextlib
import subprocess
from pathlib import Path
from urllib.parse import urlsplit

from mcp import Client, StdioServerParameters

from llmd.mcp.daemon import Daemon
from llmd.mcp.server import build
from tests.system.running import BIN


PROGRAM = BIN / "llmd-mcp"


@contextlib.asynccontextmanager
async def over_stdio(env, *args, mode="auto"):
    """A client of `llmd-mcp` on pipes; "legacy" shakes hands as clients did before 2026."""
    server = StdioServerParameters(command=str(PROGRAM), args=list(args), env=dict(env))
    async with Client(server, mode=mode, read_timeout_seconds=60) as client:
        yield client


@contextlib.asynccontextmanager
async def over_http(env, *args, mode="auto"):
    """A client of `llmd-mcp --http`."""
    with serving_http(env, *args) as url:
        async with Client(url, mode=mode, read_timeout_seconds=60) as client:
            yield client


@contextlib.asynccontextmanager
async def in_process(env):
    """A client of the same server without a process between: for what no transport changes."""
    server = build(Daemon(Path(env["LLMD_SOCKET"])))
    async with Client(server, read_timeout_seconds=60) as client:
        yield client


@contextlib.contextmanager
def serving_http(env, *args):
    """`llmd-mcp --http` on a free port; its address. Ended by SIGTERM, as a person would."""
    process = subprocess.Popen(
        [PROGRAM, *args, "--http", "0"], env=dict(env), stderr=subprocess.PIPE, text=True
    )
    try:
        url = process.stderr.readline().split()[-1]
        assert urlsplit(url).hostname == "127.0.0.1", url
        yield url
    finally:
        process.terminate()
        _, said = process.communicate(timeout=20)
    assert "Traceback" not in said, said


class Told:
    """Remembers the progress of a call, and signals its first word."""

    def __init__(self, event=None):
        self.numbers = []
        self.messages = []
        self._event = event

    async def __call__(self, progress, total, message):
        self.numbers.append(progress)
        self.messages.append(message)
        if self._event is not None:
            self._event.set()


def text_of(result):
    assert len(result.content) == 1
    return result.content[0].text


def chat(prompt, profile="code", **more):
    return {"profile": profile, "messages": [{"role": "user", "content": prompt}], **more}
