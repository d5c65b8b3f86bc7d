"""A plain HTTP client for a host's upstream: blocking, over a Unix socket or a port."""

import contextlib
import http.client
import json
import socket


class Connection(http.client.HTTPConnection):
    """A connection to an `Upstream`, kept open."""

    def __init__(self, upstream):
        super().__init__(upstream.host, upstream.port or None, timeout=30)
        self.upstream = upstream

    def connect(self):
        if self.upstream.path is None:
            super().connect()
        else:
            self.sock = socket.socket(socket.AF_UNIX)
            self.sock.settimeout(30)
            self.sock.connect(self.upstream.path)

    def ask(self, method, path, body=None, **headers):
        """Send a request; the response, its body not read yet."""
        data = body if isinstance(body, bytes | None) else json.dumps(body).encode()
        self.request(method, path, data, {**self.upstream.headers, **headers})
        return self.getresponse()

    def get(self, path):
        """Status and JSON of a GET."""
        response = self.ask("GET", path)
        return response.status, json.loads(response.read())

    def post(self, path, body):
        """Status and JSON of a POST."""
        response = self.ask("POST", path, body)
        return response.status, json.loads(response.read())

    def chat(self, prompt, **fields):
        """A chat completion's JSON; fails the test unless it is one."""
        status, answer = self.post("/v1/chat/completions", chat(prompt, **fields))
        assert status == 200, answer
        return answer

    def stream(self, prompt, **fields):
        """Everything of a streamed chat completion: comments, objects, and whether it ended."""
        body = chat(prompt, stream=True, **fields)
        response = self.ask("POST", "/v1/chat/completions", body)
        assert response.status == 200, response.read()
        return Streamed(response)


class Streamed:
    """A whole event stream."""

    def __init__(self, response):
        self.headers = response.headers
        lines = response.read().decode().splitlines()
        self.comments = [line for line in lines if line.startswith(":")]
        data = [line.removeprefix("data: ") for line in lines if line.startswith("data: ")]
        self.done = data[-1:] == ["[DONE]"]
        self.objects = [json.loads(text) for text in data if text != "[DONE]"]

    def text(self, name="content"):
        """The deltas' *name*, joined."""
        choices = [choice for part in self.objects for choice in part["choices"]]
        return "".join(choice["delta"].get(name) or "" for choice in choices)


def chat(prompt, **fields):
    """The body of a chat completion."""
    return {"messages": [{"role": "user", "content": prompt}], "temperature": 0, **fields}


@contextlib.contextmanager
def connected(upstream):
    """A connection that is closed at the end."""
    connection = Connection(upstream)
    try:
        yield connection
    finally:
        connection.close()
