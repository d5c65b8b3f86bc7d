"""What the daemon was given, or a library opened, stays out of the hands of its children.

A listener that a host holds on to keeps its port busy after the daemon has let go of it.
"""

import os
import signal
import socket
import sys
from pathlib import Path

import psutil
import pytest

from llmd.platform.run import run
from llmd.platform.spawn import spawn
from llmd.runtime.host_process import HostProcess


COUNT = "import os; print([fd for fd in os.listdir('/dev/fd') if int(fd) > 2])"
"""Prints one descriptor, which is that of the listing."""


@pytest.fixture
def given():
    """A listener as a service manager passes it, and a descriptor where nobody would look."""
    listener = socket.create_server(("127.0.0.1", 0))
    end, other = os.pipe()
    high = os.dup2(end, 600)
    for fd in (listener.fileno(), high):
        os.set_inheritable(fd, True)  # noqa: FBT003
    yield listener
    for fd in (end, other, high):
        os.close(fd)
    listener.close()


def port_is_free(port):
    """Whether nobody holds a listener on *port* any more."""
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def test_child_holds_no_descriptor_of_a_service_manager(given, tmp_path):
    child = spawn([sys.executable, "-S", "-c", COUNT], env={}, log=tmp_path / "log")
    child.wait(10)
    assert len((tmp_path / "log").read_text().split()) == 1


def test_child_in_our_group_holds_none_either(given, tmp_path):
    child = spawn(
        [sys.executable, "-S", "-c", COUNT], env={}, log=tmp_path / "log", own_session=False
    )
    child.wait(10)
    assert len((tmp_path / "log").read_text().split()) == 1


def test_helper_program_holds_no_descriptor_of_a_service_manager(given):
    assert len(run([sys.executable, "-S", "-c", COUNT], timeout_s=10).output.split()) == 1


def test_port_is_free_once_the_daemon_lets_go_of_it_while_children_live(given, tmp_path):
    port = given.getsockname()[1]
    pause = "import signal; print('up', flush=True); signal.pause()"
    child = spawn([sys.executable, "-S", "-c", pause], env={}, log=tmp_path / "log")
    try:
        while child.wait(0.01) is None and not (tmp_path / "log").read_text():
            pass
        given.close()
        assert port_is_free(port)
    finally:
        child.kill(signal.SIGKILL)
        child.wait(10)


async def test_port_is_free_once_the_daemon_lets_go_of_it_while_a_host_lives(given, short_dir):
    port = given.getsockname()[1]
    host = await HostProcess.start(
        "exec", directory=short_dir, log_path=short_dir / "host.log", orphan_grace_s=30
    )
    try:
        given.close()
        assert port_is_free(port)
        sockets = psutil.Process(host.pid).net_connections(kind="all")
        assert {each.family for each in sockets} <= {socket.AF_UNIX}
    finally:
        await host.stop(grace_s=0)


def test_spawning_leaves_our_own_descriptors_as_they_are(given, tmp_path):
    before = len(list(Path("/dev/fd").iterdir()))
    spawn([sys.executable, "-S", "-c", ""], env={}, log=tmp_path / "log").wait(10)
    run([sys.executable, "-S", "-c", ""], timeout_s=10)
    assert len(list(Path("/dev/fd").iterdir())) == before
    assert os.get_inheritable(given.fileno())
