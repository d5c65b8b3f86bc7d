"""Who listens on a port, asked without connecting to anybody."""

import os
import socket

import pytest

from llmd.platform.listeners import is_taken, listeners, who_listens


@pytest.fixture
def listening():
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server


def test_program_that_listens_is_found_by_its_port(listening):
    port = listening.getsockname()[1]
    holder = who_listens(port)
    assert holder is not None
    assert holder[1] == os.getpid()
    assert listeners({port, 1}) == {port: holder}


def test_port_is_taken_while_somebody_listens_and_not_afterwards(listening):
    port = listening.getsockname()[1]
    assert is_taken("127.0.0.1", port)
    with socket.create_connection(("127.0.0.1", port)):
        peer, _ = listening.accept()
        peer.close()  # our side waits in TIME_WAIT now
    listening.close()
    assert not is_taken("127.0.0.1", port)
    assert who_listens(port) is None


def test_address_that_is_not_ours_is_not_taken():
    assert not is_taken("192.0.2.1", 80)
