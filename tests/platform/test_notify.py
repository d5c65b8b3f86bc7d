import os
import socket

import pytest
from structlog.testing import capture_logs

from llmd.platform.notify import Notifier


@pytest.fixture
def listener(short_dir):
    """The service manager's end."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(str(short_dir / "notify"))
        sock.settimeout(5)
        yield sock


@pytest.fixture
def notifier(listener):
    return Notifier({"NOTIFY_SOCKET": listener.getsockname()})


def heard(listener):
    return listener.recv(4096).decode()


MESSAGES = [
    pytest.param(lambda n: n.ready(), "READY=1", id="ready"),
    pytest.param(lambda n: n.ready("5 ports"), "READY=1\nSTATUS=5 ports", id="ready, with a line"),
    pytest.param(lambda n: n.stopping(), "STOPPING=1", id="stopping"),
    pytest.param(lambda n: n.watchdog(), "WATCHDOG=1", id="watchdog"),
    pytest.param(lambda n: n.status("a\nREADY=1"), "STATUS=a READY=1", id="a status of one line"),
    pytest.param(lambda n: n.status("\udc80"), "STATUS=?", id="a status that is no text"),
    pytest.param(lambda n: n.extend(1.5), "EXTEND_TIMEOUT_USEC=1500000", id="more time"),
    pytest.param(lambda n: n.discard("x"), "FDSTOREREMOVE=1\nFDNAME=x", id="discard"),
]


@pytest.mark.parametrize(("say", "expected"), MESSAGES)
def test_what_the_service_manager_hears(notifier, listener, say, expected):
    say(notifier)
    assert heard(listener) == expected


def test_a_reload_says_when_it_began(notifier, listener):
    notifier.reloading()
    first, second = heard(listener).split("\n")
    assert first == "RELOADING=1"
    assert second.removeprefix("MONOTONIC_USEC=").isdecimal()


def test_stored_sockets_arrive_open(notifier, listener):
    with socket.create_server(("127.0.0.1", 0)) as one, socket.socket() as two:
        notifier.store("ports", [one, two])
        message, fds, _, _ = socket.recv_fds(listener, 4096, 10)
        assert message == b"FDSTORE=1\nFDNAME=ports"
        with socket.socket(fileno=fds[0]) as first, socket.socket(fileno=fds[1]):
            assert first.getsockname() == one.getsockname()


def test_more_sockets_than_fit_one_message_are_stored_in_several(notifier, listener):
    with socket.socket() as sock:
        notifier.store("many", [sock] * 300)
    counts = []
    for _ in range(2):
        _, fds, _, _ = socket.recv_fds(listener, 4096, 300)
        counts.append(len(fds))
        for fd in fds:
            os.close(fd)
    assert counts == [253, 47]


@pytest.mark.skipif(not hasattr(socket, "AF_UNIX") or os.uname().sysname != "Linux", reason="Linux")
def test_an_abstract_address_is_understood():
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind("")  # the kernel names it
        listener.settimeout(5)
        name = listener.getsockname().decode()
        assert name.startswith("\0")
        Notifier({"NOTIFY_SOCKET": f"@{name[1:]}"}).ready()
        assert heard(listener) == "READY=1"


def test_children_do_not_inherit_the_way_to_the_service_manager():
    taken = {"NOTIFY_SOCKET": "/s", "WATCHDOG_USEC": "1", "WATCHDOG_PID": "2"}
    environ = {**taken, "PATH": "/bin"}
    assert Notifier.from_environ(environ).environ == taken
    assert environ == {"PATH": "/bin"}


OWN = str(os.getpid())
WATCHDOGS = [
    pytest.param({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": OWN}, 15.0, id="ours: at half"),
    pytest.param({"WATCHDOG_USEC": "30000000"}, 15.0, id="anybody's"),
    pytest.param({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}, None, id="another's"),
    pytest.param({"WATCHDOG_USEC": "0", "WATCHDOG_PID": OWN}, None, id="switched off"),
    pytest.param({"WATCHDOG_USEC": "soon", "WATCHDOG_PID": OWN}, None, id="nonsense"),
    pytest.param({}, None, id="none"),
]


@pytest.mark.parametrize(("environ", "expected"), WATCHDOGS)
def test_how_often_the_watchdog_wants_to_hear(environ, expected):
    assert Notifier.from_environ(dict(environ)).watchdog_s == expected


@pytest.mark.parametrize("address", ["", "/nowhere/at/all", "vsock:2:1234", "/" + 200 * "x"])
def test_without_anybody_to_hear_nothing_happens(address):
    with capture_logs() as logs, socket.socket() as sock:
        notifier = Notifier({"NOTIFY_SOCKET": address})
        notifier.ready("up")
        notifier.reloading()
        notifier.store("x", [sock])
        notifier.stopping()
    assert len(logs) == bool(address)


def test_a_service_manager_that_does_not_read_holds_nobody_up(notifier, listener):
    with capture_logs() as logs:
        for _ in range(2000):  # more than any queue holds
            notifier.watchdog()
    assert [(entry["event"], entry["message"]) for entry in logs] == [
        ("notification.dropped", "WATCHDOG=1")
    ]
    assert heard(listener) == "WATCHDOG=1"


def test_a_closed_socket_is_not_stored_and_does_no_harm(notifier, listener):
    sock = socket.socket()
    sock.close()
    with capture_logs() as logs:
        notifier.store("gone", [sock])
        notifier.ready()
    assert [entry["event"] for entry in logs] == ["notification.dropped"]
    assert heard(listener) == "READY=1"
