"""What one image passes to the next, through a real `exec`."""

import os
import socket
import subprocess
import sys
import textwrap

import pytest

from llmd.platform.activation import Inherited
from llmd.proxy.listener import Standing
from llmd.runtime import handover
from llmd.runtime.handover import Handover


def run_image(program):
    """Run a program that begins with a handover to open; its output."""
    text = textwrap.dedent(program)
    done = subprocess.run(
        [sys.executable, "-c", text], capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


FIRST = """
    import os, socket, sys, tempfile
    from llmd.platform.spawn import become
    from llmd.proxy.listener import Standing
    from llmd.runtime import handover
    from llmd.runtime.handover import Handover
    if len(sys.argv) == 1:
        listening = socket.create_server(("127.0.0.1", 0))
        client = socket.create_connection(listening.getsockname())
        served, _ = listening.accept()
        client.sendall(b"later")
        admin = socket.socket(socket.AF_UNIX)
        lock = os.open(tempfile.gettempdir(), os.O_RDONLY)
        port = listening.getsockname()[1]
        os.set_inheritable(client.fileno(), True)
        left = Handover(
            standing={port: Standing((listening,), ((served, b"GET / "),))},
            managed=frozenset({port}), admin=admin, lock=lock, manager="systemd", restarts=3,
            config="profiles: 1",
        )
        env = {**os.environ, **handover.write(left)}
        words = [sys.executable, "-c", os.environ["PROGRAM"], str(client.fileno())]
        become(words, env=env)
"""

SECOND = """
    left = handover.read()
    ((port, standing),) = left.standing.items()
    (listening,), ((served, unread),) = standing.listening, standing.clients
    assert listening.getsockname()[1] == port
    assert (unread, served.recv(10)) == (b"GET / ", b"later")
    assert (left.managed, left.manager, left.restarts) == ({port}, "systemd", 3)
    assert left.config == "profiles: 1"
    assert left.admin.family == socket.AF_UNIX
    assert os.fstat(left.lock)
    kept = [listening.fileno(), served.fileno(), left.admin.fileno(), left.lock]
    assert not any(os.get_inheritable(fd) for fd in kept)
    assert handover.VARIABLE not in os.environ
    assert handover.read() is None
    served.sendall(b"answer")
    print(socket.socket(fileno=int(sys.argv[1])).recv(10))
"""


def images(second):
    """Two images of one process: the program runs itself again by `exec`."""
    program = textwrap.dedent(FIRST) + textwrap.dedent(second)
    return f"import os\nos.environ['PROGRAM'] = {program!r}\nexec(os.environ['PROGRAM'])\n"


def test_sockets_clients_and_unread_bytes_arrive_in_the_next_image():
    assert run_image(images(SECOND)) == "b'answer'\n"


def test_what_cannot_be_read_is_closed_so_that_its_ports_are_free():
    second = """
        os.pwrite(int(os.environ[handover.VARIABLE]), b"?", 0)
        before = len(os.listdir("/dev/fd"))
        assert handover.read() is None
        print(before - len(os.listdir("/dev/fd")))
    """
    # The letter, the listener, its client at both ends, the admin socket, the lock.
    assert run_image(images(second)).splitlines()[-1] == "6"


def test_letter_for_another_process_is_not_for_us():
    variables = handover.write(Handover())
    program = "from llmd.runtime import handover; print(handover.read())"
    done = subprocess.run(
        [sys.executable, "-c", program], env={**os.environ, **variables},
        capture_output=True, text=True, close_fds=False, check=True,
    )  # fmt: skip
    os.close(int(variables[handover.VARIABLE]))
    assert done.stdout.splitlines()[-1] == "None"


@pytest.mark.parametrize("text", ["", "x", "-1"])
def test_variable_that_names_nothing_is_no_handover(text):
    assert handover.read({handover.VARIABLE: text}) is None


def test_what_a_service_manager_opened_has_the_same_shape():
    with socket.create_server(("127.0.0.1", 0)) as sock, socket.socket(socket.AF_UNIX) as admin:
        left = Handover.of_manager(Inherited({8081: [sock]}, admin), "systemd")
        assert left.standing == {8081: Standing((sock,), ())}
        assert (left.managed, left.manager, left.restarts) == ({8081}, "systemd", 0)
        assert (left.admin, left.admin_managed, left.lock) == (admin, True, None)
    assert not Handover.of_manager(Inherited(), None).admin_managed
