import ctypes
import errno
import json
import os
import socket
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from llmd.platform import activation, darwin_launchd
from llmd.platform.activation import Inherited, inherited


ADMIN = Path("/nowhere/llmd.sock")


@pytest.fixture
def held():
    """The service manager's sockets; closed with the test."""
    with ExitStack() as stack:
        yield stack.enter_context


@pytest.fixture
def given(monkeypatch):
    """Passes sockets to this process, from some descriptor on; closes what was inherited."""
    taken = []

    def given(sockets, *, admin=ADMIN, **changes):
        first = max(int(name) for name in os.listdir("/dev/fd")) + 10  # noqa: PTH208 - names
        for number, sock in enumerate(sockets, first):
            os.dup2(sock.fileno(), number, inheritable=True)
        monkeypatch.setattr(activation, "FIRST_FD", first)
        environ = {
            "LISTEN_PID": str(os.getpid()),
            "LISTEN_FDS": str(len(sockets)),
            "LISTEN_FDNAMES": ":".join("x" * len(sockets)),
            **changes,
        }
        with capture_logs() as logs:
            found = inherited([], admin, environ)
        assert environ == {}
        taken.append(found)
        left = [fd for fd in range(first, first + len(sockets)) if is_open(fd)]
        return found, left, [(entry["event"], entry["reason"]) for entry in logs]

    yield given
    for found in taken:
        for sock in every(found):
            sock.close()


def is_open(fd):
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


def every(found: Inherited):
    one = [found.admin] if found.admin else []
    return [sock for sockets in found.ports.values() for sock in sockets] + one


def tcp(address="127.0.0.1", port=0):
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    return socket.create_server((address, port), family=family)


def unix(path):
    sock = socket.socket(socket.AF_UNIX)
    sock.bind(str(path))
    sock.listen()
    return sock


def port_of(sock):
    return sock.getsockname()[1]


def test_sockets_are_sorted_by_what_they_are_bound_to(held, given, short_dir):
    four = held(tcp())
    six, other = held(tcp("::1", port_of(four))), held(tcp())
    path = short_dir / "llmd.sock"
    admin = held(unix(path))
    found, _, dropped = given([admin, four, other, six], admin=path)
    names = {port: [s.getsockname()[0] for s in found.ports[port]] for port in found.ports}
    assert names == {port_of(four): ["127.0.0.1", "::1"], port_of(other): ["127.0.0.1"]}
    assert found.admin.getsockname() == str(path)
    assert dropped == []


def test_what_is_inherited_is_passed_on_to_nobody_and_never_blocks(held, given):
    found, _, _ = given([held(tcp())])
    [sock] = every(found)
    assert not sock.get_inheritable()
    assert not sock.getblocking()
    with pytest.raises(BlockingIOError):
        sock.accept()


def test_a_connection_made_before_is_accepted(held, given):
    listener = held(tcp())
    client = held(socket.create_connection(listener.getsockname()))
    client.sendall(b"early")
    found, _, _ = given([listener])
    [sock] = every(found)
    accepted = held(sock.accept()[0])
    accepted.settimeout(5)
    assert accepted.recv(10) == b"early"


def test_the_admin_socket_is_known_through_a_link(held, given, short_dir):
    (short_dir / "real").mkdir()
    (short_dir / "link").symlink_to("real")
    sock = held(unix(short_dir / "real" / "s"))
    found, _, _ = given([sock], admin=short_dir / "link" / "s")
    assert found.admin is not None


def test_an_address_that_is_held_twice_is_kept_once(held, given):
    sock = held(tcp())
    found, left, dropped = given([sock, sock])
    assert len(every(found)) == len(left) == 1
    assert dropped == [("socket.dropped", "held twice")]


def useless(held, short_dir):
    bound = held(socket.socket())
    bound.bind(("127.0.0.1", 0))
    datagram = held(socket.socket(type=socket.SOCK_DGRAM))
    datagram.bind(("127.0.0.1", 0))
    stranger = held(unix(short_dir / "stranger"))
    file = held((short_dir / "file").open("w"))
    return {
        "a file": (file, "not a socket"),
        "a port that nobody listens on": (bound, "not a listening stream socket"),
        "a datagram socket": (datagram, "not a listening stream socket"),
        "a Unix socket elsewhere": (stranger, "not the admin socket"),
    }


USELESS = [
    "a file", "a port that nobody listens on", "a datagram socket", "a Unix socket elsewhere"
]  # fmt: skip


@pytest.mark.parametrize("kind", USELESS)
def test_what_is_no_use_is_closed_and_said(held, given, short_dir, kind):
    thing, reason = useless(held, short_dir)[kind]
    good = held(tcp())
    found, left, dropped = given([thing, good])
    assert [s.getsockname() for s in every(found)] == [good.getsockname()]
    assert len(left) == 1
    assert dropped == [("socket.dropped", reason)]


NOT_OURS = [
    pytest.param({"LISTEN_PID": "1"}, id="meant for another process"),
    pytest.param({"LISTEN_PID": ""}, id="meant for nobody"),
    pytest.param({"LISTEN_FDS": "many"}, id="no number"),
    pytest.param({"LISTEN_FDS": "-1"}, id="a negative number"),
]


@pytest.mark.parametrize("changes", NOT_OURS)
def test_descriptors_that_are_not_ours_stay_as_they_are(held, given, changes):
    sock = held(tcp())
    found, left, dropped = given([sock], **changes)
    for fd in left:
        os.close(fd)
    assert every(found) == dropped == []
    assert len(left) == 1


def test_a_promise_of_more_descriptors_than_there_are_ends_where_they_end(held, given):
    found, _, _ = given([held(tcp())], LISTEN_FDS="1000000000000")
    assert len(every(found)) == 1


def test_a_file_that_this_process_opened_is_not_taken_for_a_passed_one(held, monkeypatch):
    own = held(tcp())  # not inheritable, as all that Python opens
    monkeypatch.setattr(activation, "FIRST_FD", own.fileno())
    environ = {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "1"}
    assert every(inherited([], ADMIN, environ)) == []
    assert is_open(own.fileno())


def test_without_a_service_manager_there_is_nothing():
    assert inherited([8081], ADMIN, {"PATH": "/bin"}) == Inherited({}, None)


def test_a_fresh_process_takes_descriptors_from_3_on(held):
    code = (
        "import json, os; from pathlib import Path; from llmd.platform.activation import inherited;"
        "os.environ['LISTEN_PID'] = str(os.getpid()); found = inherited([], Path('/x'));"
        "names = [n for n in os.environ if n.startswith('LISTEN_')];"
        "print(json.dumps([list(found.ports), names]))"
    )
    sock = held(tcp())
    out, into = os.pipe()
    pid = os.posix_spawn(
        sys.executable,
        [sys.executable, "-c", code],
        {**os.environ, "LISTEN_FDS": "1", "LISTEN_FDNAMES": "x"},
        file_actions=[(os.POSIX_SPAWN_DUP2, sock.fileno(), 3), (os.POSIX_SPAWN_DUP2, into, 1)],
    )
    os.close(into)
    with os.fdopen(out) as answer:
        assert json.load(answer) == [[port_of(sock)], []]
    assert os.waitpid(pid, 0)[1] == 0


class FakeLaunchd:
    """libSystem, as far as it is used: hands sockets out by name, each name once."""

    def __init__(self, sockets):
        self.sockets = sockets
        self.asked = []
        self.freed = []

    def launch_activate_socket(self, name, fds, count):
        self.asked.append(name.decode())
        found = self.sockets.get(name.decode(), errno.ENOENT)
        if isinstance(found, int):
            return found
        self.sockets[name.decode()] = errno.EALREADY
        self.array = (ctypes.c_int * len(found))(*(os.dup(s.fileno()) for s in found))
        for fd in self.array:
            os.set_inheritable(fd, 1)
        fds._obj.contents = self.array
        count._obj.value = len(found)
        return 0

    def free(self, pointer):
        self.freed.append(ctypes.addressof(pointer.contents))


@pytest.fixture
def mac(monkeypatch):
    """A Mac whose launchd holds some sockets."""

    def mac(sockets):
        launchd = FakeLaunchd(sockets)
        monkeypatch.setattr(darwin_launchd, "_libsystem", lambda: launchd)
        monkeypatch.setattr(activation.sys, "platform", "darwin")
        return launchd

    return mac


def test_launchd_is_asked_for_every_port_and_the_admin_socket(held, mac, short_dir):
    four = held(tcp())
    six, path = held(tcp("::1", port_of(four))), short_dir / "llmd.sock"
    port = port_of(four)
    launchd = mac({f"port-{port}": [four, six], "admin": [held(unix(path))]})
    found = inherited([port, 1], path, {})
    socks = [held(sock) for sock in every(found)]
    assert launchd.asked == [f"port-{port}", "port-1", "admin"]
    assert [s.getsockname()[0] for s in found.ports[port]] == ["127.0.0.1", "::1"]
    assert found.admin.getsockname() == str(path)
    assert not any(s.get_inheritable() or s.getblocking() for s in socks)
    assert len(launchd.freed) == 2


@pytest.mark.parametrize(
    "number",
    [
        pytest.param(errno.ENOENT, id="a port that the plist does not name"),
        pytest.param(errno.ESRCH, id="a terminal"),
        pytest.param(errno.EALREADY, id="an image that took them before"),
    ],
)
def test_launchd_without_sockets_for_us_is_no_error(mac, number):
    mac({"port-8081": number, "admin": number})
    assert every(inherited([8081], ADMIN, {})) == []


def test_launchd_failing_otherwise_is_an_error_that_names_the_socket(mac):
    mac({"port-8081": errno.EMFILE})
    with pytest.raises(OSError, match="port-8081: Too many open files"):
        inherited([8081], ADMIN, {})
