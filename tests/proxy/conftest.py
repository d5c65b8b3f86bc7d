import asyncio
import contextlib

import pytest
import uvloop

from tests.proxy.doubles import Plane


def pytest_asyncio_loop_factories(config, item):
    """The data plane runs on uvloop, so it is tested on it.

    Handing over leans on what an event loop does when it lets go of a socket: tested on both.
    """
    loops = {"uvloop": uvloop.new_event_loop}
    if item.path.name.startswith("test_handover"):
        loops["asyncio"] = asyncio.new_event_loop
    return loops


@pytest.fixture
async def start(short_dir):
    """Starts a data plane in front of a scripted engine; all are closed and checked at the end."""
    async with contextlib.AsyncExitStack() as stack:

        async def start(script=None, **options):
            plane = Plane(short_dir / f"engine{len(started)}.sock", script, **options)
            started.append(plane)
            return await stack.enter_async_context(plane)

        started = []
        yield start
