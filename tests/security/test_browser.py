"""Hostile web pages in a real browser, against a running daemon. `make test-browser`."""

import contextlib
import re

import pytest

from tests.security.pages import BROWSER, HERE, Pages, browsing
from tests.system.conftest import running
from tests.system.running import free_ports, lay_out, unruly


pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(BROWSER is None, reason="NO BROWSER: apt-get install chromium"),
]

_TABLE = re.compile(r"^const (ATTEMPTS|REBOUND) = \{(.*?)^\};", re.DOTALL | re.MULTILINE)
TABLES = {
    table: re.findall(r'^  "([^"]+)":', rows, re.MULTILINE)
    for table, rows in _TABLE.findall((HERE / "attempts.js").read_text())
}


@pytest.fixture(scope="module")
def pages():
    with contextlib.closing(Pages()) as served:
        yield served


@pytest.fixture(scope="module")
def daemon(pages):
    """One profile on a port of its own and on the gateway; one page may use it."""
    port, gateway = free_ports(2)
    config = lay_out(
        {"a": unruly(port)},
        gateway={"port": gateway},
        cors_origins=[f"http://trusted.example:{pages.port}"],
    )
    with running(config) as started:
        started.port, started.gateway, pages.victim = port, gateway, port
        yield started


def visit(pages, daemon, site, table, *, port=None, more=""):
    """What the page of *site* found with each attempt of *table*."""
    query = f"port={daemon.port}&gateway={daemon.gateway}&pages={pages.port}{more}"
    with browsing(f"http://{site}.example:{port or pages.port}/page.html?{query}"):
        return pages.report(*TABLES[table])


def never_used(daemon):
    """Whether no engine was ever started."""
    profile = daemon.profile("a")
    return (profile["loads"], profile["state"], daemon.host_pids()) == (0, "unloaded", [])


def test_hostile_page_reads_nothing_and_loads_nothing(pages, daemon):
    found = visit(pages, daemon, "evil", "ATTEMPTS")

    assert {name: read for name, read in found.items() if read is not None} == {}
    assert never_used(daemon)


def test_page_whose_name_is_rebound_reads_refusals_and_loads_nothing(pages, daemon):
    found = visit(
        pages, daemon, "rebound", "REBOUND", port=pages.rebound.port, more="&rebind=1"
    )  # fmt: skip

    # It is the same origin to the browser, so answers can be read: they must say no.
    assert {name: read for name, read in found.items() if read and "forbidden" not in read} == {}
    assert found["rebound: GET models"].startswith("403 "), "or else nothing was tried"
    assert never_used(daemon)


def test_page_that_the_configuration_names_uses_the_port_in_json_alone(pages, daemon):
    found = visit(pages, daemon, "trusted", "ATTEMPTS")

    for name in ("POST JSON, with a preflight", "POST JSON to localhost", "POST JSON to ::1"):
        assert found[name].startswith("200 "), name
        assert "w0 w1" in found[name], name
    assert "[DONE]" in found["POST JSON as a stream"]
    assert found["GET models"].startswith("200 ")
    assert found["Ollama's list"].startswith("200 ")
    for name in ("POST text, without a preflight", "POST text that says JSON", "Ollama's chat"):
        assert found[name].startswith("415 "), name
    for name in ("a sandbox", "a sandbox, no-cors", "a form", "a frame", "WebSocket"):
        assert found[name] is None, name
