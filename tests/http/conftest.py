"""The data plane on uvloop, as in tests/proxy."""

from tests.proxy.conftest import pytest_asyncio_loop_factories, start


__all__ = ["pytest_asyncio_loop_factories", "start"]
