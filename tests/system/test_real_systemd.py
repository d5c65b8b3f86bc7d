"""Our side of systemd's protocols against a real one; where there is none, `test_service_manager`.

What is asserted of systemd itself is what llmd relies on.
"""

import sys
import tempfile
import threading

import pytest

from tests.conftest import ROOT
from tests.system.real_systemd import RealSystemd, missing
from tests.system.running import free_ports
from tests.system.tiny_service import ask


pytestmark = pytest.mark.skipif(missing() is not None, reason=str(missing()))

SERVICE = """[Unit]
Wants=tiny.socket
After=tiny.socket
StartLimitIntervalSec=0
[Service]
Type=notify
NotifyAccess=main
ExecStart={python} -m tests.system.tiny_service %t/tiny/admin.sock
Environment=PYTHONPATH={root} TINY_NOTES={directory}/notes
EnvironmentFile=-{directory}/environment
KillMode=process
TimeoutStopSec=3
WatchdogSec=2
FileDescriptorStoreMax=16
Restart=on-failure
RestartSec=0
RestartPreventExitStatus=78
"""

SOCKET = """[Unit]
StartLimitIntervalSec=0
[Socket]
ListenStream=127.0.0.1:{port}
ListenStream=[::1]:{port}
ListenStream=%t/tiny/admin.sock
BindIPv6Only=ipv6-only
RemoveOnStop=true
"""


@pytest.fixture(scope="module")
def systemd():
    with (
        tempfile.TemporaryDirectory(prefix="llmd-", dir="/tmp") as directory,
        RealSystemd(directory) as systemd,
    ):
        yield systemd


@pytest.fixture
def port(systemd):
    """A port of the tiny service, which is installed, listened for, and not running yet."""
    [port] = free_ports(1)
    terms = {"python": sys.executable, "root": ROOT, "directory": systemd.directory, "port": port}
    (systemd.units / "tiny.service").write_text(SERVICE.format(**terms))
    (systemd.units / "tiny.socket").write_text(SOCKET.format(**terms))
    (systemd.directory / "environment").write_text("")
    systemd.systemctl("daemon-reload")
    systemd.systemctl("start", "tiny.socket")
    yield port
    systemd.systemctl("stop", "tiny.service", "tiny.socket", check=False)


def state(systemd):
    names = ("ActiveState", "MainPID", "NRestarts", "NFileDescriptorStore", "StatusText")
    return systemd.show("tiny.service", *names)


def test_a_connection_starts_the_service_which_gets_every_socket(systemd, port):
    assert state(systemd)["ActiveState"] == "inactive"
    found = ask(port)
    assert found["ports"] == [port]
    assert found["sockets"] == 3  # on both addresses, and the admin socket
    assert found["variables"] == []
    assert ask(port, "look", "::1")["pid"] == found["pid"]
    now = state(systemd)
    assert (now["MainPID"], now["ActiveState"]) == (str(found["pid"]), "active")
    assert now["StatusText"] == f"serving [{port}]"


def test_a_killed_service_gets_back_what_it_stored_and_nobody_is_refused(systemd, port):
    before = ask(port, "store")
    systemd.systemctl("kill", "--signal=KILL", "tiny.service")
    after = ask(before["stored"])  # waits in the backlog of a socket that only systemd has
    assert after["pid"] != before["pid"]
    assert after["ports"] == sorted([port, before["stored"]])
    assert state(systemd)["NRestarts"] == "1"


def test_sockets_stored_twice_come_back_once(systemd, port):
    ask(port, "keep")
    systemd.systemctl("restart", "tiny.service")
    assert ask(port, "keep")["sockets"] == 3
    assert state(systemd)["NFileDescriptorStore"] == "3"
    systemd.systemctl("restart", "tiny.service")
    assert ask(port)["sockets"] == 3


def test_what_is_discarded_does_not_come_back(systemd, port):
    stored = ask(port, "store")["stored"]
    ask(port, "discard")
    systemd.systemctl("restart", "tiny.service")
    assert ask(port)["ports"] == [port]
    with pytest.raises(ConnectionRefusedError):
        ask(stored)


def test_a_stop_ends_what_was_stored(systemd, port):
    stored = ask(port, "store")["stored"]
    systemd.systemctl("stop", "tiny.service")
    with pytest.raises(ConnectionRefusedError):
        ask(stored)
    assert ask(port)["ports"] == [port]  # the socket unit starts it again


def test_a_new_image_of_the_same_process_goes_on_as_the_service(systemd, port):
    before = ask(port, "again")
    after = ask(port)
    assert after == before
    now = state(systemd)
    assert (now["MainPID"], now["NRestarts"]) == (str(before["pid"]), "0")
    assert now["ActiveState"] == "active"


def test_a_service_that_no_longer_turns_is_replaced(systemd, port):
    before = ask(port, "hang")
    assert ask(port)["pid"] != before["pid"]
    assert systemd.show("tiny.service", "NRestarts") == {"NRestarts": "1"}


@pytest.mark.parametrize(
    ("command", "job"),
    [
        pytest.param(["restart", "tiny.service"], "restart", id="a restart"),
        pytest.param(["stop", "tiny.service"], "stop", id="a stop"),
        pytest.param(["kill", "--kill-who=main", "tiny.service"], None, id="a signal by hand"),
    ],
)
def test_the_service_can_ask_why_it_is_told_to_end(systemd, port, command, job):
    before = ask(port)
    systemd.systemctl(*command)
    pause = threading.Event()
    for _ in range(100):  # a signal by hand is not waited for
        if ask(port)["pid"] != before["pid"]:
            break
        pause.wait(0.05)
    jobs = (systemd.directory / "notes").read_text().splitlines()
    kinds = [line.split()[2] for line in jobs if line.split()[1] == "tiny.service"]
    assert kinds == ([job] if job else [])


def test_time_asked_for_while_stopping_is_given(systemd, port):
    (systemd.directory / "environment").write_text("TINY_LINGERS_S=4")
    ask(port)
    systemd.systemctl("stop", "tiny.service")
    assert systemd.show("tiny.service", "Result") == {"Result": "success"}


@pytest.mark.parametrize(("status", "restarts"), [(0, 0), (3, 1), (78, 0)])
def test_only_a_failure_that_may_pass_is_tried_again(systemd, port, status, restarts):
    ask(port)
    systemd.systemctl("stop", "tiny.socket")  # which would start it again; the service has its own
    ask(port, f"exit {status}")
    if restarts:
        systemd.systemctl("start", "tiny.service")  # returns when it is ready
    assert systemd.show("tiny.service", "NRestarts") == {"NRestarts": str(restarts)}
    assert (state(systemd)["MainPID"] != "0") == bool(restarts)
