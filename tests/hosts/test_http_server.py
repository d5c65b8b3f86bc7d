"""The plumbing of a host's own HTTP server."""

import socket
import threading

import pytest

from llmd.hosts.http_server import serve


class Listener:
    """Has two connections to accept, and is closed then."""

    def __init__(self):
        self.clients, self.connections = zip(*(socket.socketpair() for _ in range(2)), strict=True)
        self._accepted = iter(self.connections)

    def accept(self):
        connection = next(self._accepted, None)
        if connection is None:
            raise OSError("closed")
        return connection, ""


def test_connection_that_no_thread_can_be_had_for_is_closed_and_the_next_one_is_served(
    monkeypatch, caplog
):
    """A machine that is short of memory has some again later; a deaf host would stay deaf."""
    refusals = ["can't start new thread"]
    start = threading.Thread.start

    def start_or_refuse(thread):
        if refusals:
            raise RuntimeError(refusals.pop())
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", start_or_refuse)
    listener = Listener()
    with pytest.raises(OSError, match="closed"):
        serve(listener, lambda connection: connection.sendall(b"here"))
    said = []
    for client in listener.clients:
        with client:
            client.settimeout(10)
            said.append(client.recv(10))
    assert said == [b"", b"here"]
    assert "can't start new thread" in caplog.text
