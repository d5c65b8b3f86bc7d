import contextlib
import tempfile
from pathlib import Path

import pytest
import yaml

from tests.conftest import ROOT
from tests.system.running import Llmd, free_ports


PORTS = (8080, 8081, 8082, 8083, 8084)


@contextlib.contextmanager
def running(config):
    """A daemon on *config*, in a short private directory; ended and checked at exit."""
    with tempfile.TemporaryDirectory(prefix="llmd-", dir="/tmp") as path:
        daemon = Llmd(path, config)
        daemon.start()
        try:
            yield daemon
        finally:
            status = daemon.stop()
            left = {file.name for file in (Path(path) / "s").iterdir()}
            assert status == 0, daemon.log()
            assert left <= {"llmd.sock.lock"}, f"sockets left behind: {left}"


def demo_config(demo_models):
    """The shipped demo, on free ports: the configuration, and port by playbook port."""
    config = yaml.safe_load((ROOT / "etc" / "demo.yaml").read_text())
    ports = dict(zip(PORTS, free_ports(len(PORTS)), strict=True))
    config["models_dirs"] = [str(demo_models)]
    config["gateway"]["port"] = ports[8080]
    for profile in config["profiles"].values():
        profile["port"] = ports[profile["port"]]
    return config, ports


@pytest.fixture(scope="module")
def demo(demo_models):
    """The demo, running; `demo.ports` maps the playbook's ports to the real ones."""
    config, ports = demo_config(demo_models)
    with running(config) as daemon:
        daemon.ports = ports
        yield daemon


@pytest.fixture
def start():
    """Starts daemons on configurations of the test's own; ends them with it."""
    with contextlib.ExitStack() as stack:
        yield lambda config: stack.enter_context(running(config))
