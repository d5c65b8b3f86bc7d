"""An engine itself, asked past the daemon."""

import contextlib
import http.client
import json
import socket


def engine_of(daemon):
    """The socket of the one llama.cpp engine that *daemon* has loaded."""
    return next(path for path in daemon.socket.parent.iterdir() if _listens(path))


def straight(path, body, to="/v1/chat/completions"):
    """Ask the engine that listens on the socket *path*: status and body."""
    connection = http.client.HTTPConnection("localhost", timeout=30)
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.settimeout(30)
    with contextlib.closing(connection):
        connection.sock.connect(str(path))
        connection.request("POST", to, json.dumps(body), {"Content-Type": "application/json"})
        response = connection.getresponse()
        return response.status, response.read()


def _listens(path):
    if not path.is_socket() or path.name == "llmd.sock":
        return False
    with contextlib.suppress(OSError, http.client.HTTPException):
        return straight(path, {"content": "a"}, "/tokenize")[0] == 200
    return False
