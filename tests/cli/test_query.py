"""`llmd-ctl query` against a port that answers from a script."""

import contextlib
import json
import os
import pty
import queue
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator

import pytest

from tests.cli.conftest import COMMAND


def event(delta: dict | None = None, **fields) -> bytes:
    choices = [] if delta is None else [{"index": 0, "delta": delta, "finish_reason": None}]
    return b"data: " + json.dumps({"choices": choices} | fields).encode() + b"\n\n"


DONE = b"data: [DONE]\n\n"
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"


class ScriptedPort:
    """Accepts one connection, keeps its request, says `answer`, and hangs up unless `linger`."""

    def __init__(self) -> None:
        self.answer = HEAD + DONE
        self.linger = False
        self.requests: queue.Queue[tuple[dict[str, str], dict]] = queue.Queue()
        self.client_left = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def close(self) -> None:
        if self._thread.is_alive():  # it waits for a connection: have one
            socket.create_connection(("127.0.0.1", self.port)).close()
        self._thread.join(10)
        self._listener.close()

    def _serve(self) -> None:
        peer, _ = self._listener.accept()
        with peer, peer.makefile("rb") as stream:
            if not stream.readline():
                return
            headers = {}
            while line := stream.readline().decode().strip():
                name, _, value = line.partition(":")
                headers[name.lower()] = value.strip()
            body = json.loads(stream.read(int(headers["content-length"])))
            self.requests.put((headers, body))
            peer.sendall(self.answer)
            if self.linger:
                with contextlib.suppress(ConnectionResetError):
                    assert stream.read() == b""
                self.client_left.set()


@pytest.fixture
def port(daemon) -> Iterator[ScriptedPort]:
    """The port of `code`."""
    scripted = ScriptedPort()
    code = daemon.operator.by_name["code"]
    daemon.operator._set("code", port=scripted.port)
    assert code.port != scripted.port
    daemon.operator.ports[scripted.port] = {}
    yield scripted
    scripted.close()


def test_answer_is_streamed_and_reasoning_stays_out_of_a_pipe(ctl, port):
    port.answer = (
        HEAD
        + b": loading code, 40 %\n\n"
        + event({"role": "assistant", "content": ""})
        + event({"reasoning_content": "Let me think."})
        + event({"content": "Hello "})
        + event({"content": "wörld"})
        + event(usage={"prompt_tokens": 12, "completion_tokens": 3})
        + DONE
    )
    done = ctl("query", "-p", "code", "-v", "Say", "hello")
    assert (done.returncode, done.stdout) == (0, "Hello wörld\n")
    assert done.stderr.startswith("code: prompt of 12 tokens, 3 tokens")
    assert len(done.stderr.splitlines()) == 1
    headers, body = port.requests.get(timeout=10)
    assert headers["content-type"] == "application/json"
    assert "authorization" not in headers
    assert body == {
        "model": "code",
        "messages": [{"role": "user", "content": "Say hello"}],
        "stream": True,
        "stream_options": {"include_usage": True},
    }


def test_options_reach_the_port(ctl, port):
    done = ctl(
        *("query", "-p", "coder", "--system", "Be brief.", "--max-tokens", "5"),
        *("--temperature", "0", "Hi"),
        LLMD_API_KEY="sesame",
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    headers, body = port.requests.get(timeout=10)
    assert headers["authorization"] == "Bearer sesame"
    assert body["model"] == "code"
    assert body["messages"][0] == {"role": "system", "content": "Be brief."}
    assert (body["max_tokens"], body["temperature"]) == (5, 0.0)


@pytest.mark.parametrize(
    ("text", "stdin", "prompt"),
    [
        pytest.param(["Sum", "up:"], "the text\n", "Sum up:\n\nthe text", id="text and pipe"),
        pytest.param([], "only this", "only this", id="pipe alone"),
        pytest.param(["only that"], "", "only that", id="text alone"),
        pytest.param(["--", "--json"], "", "--json", id="a text that looks like an option"),
    ],
)
def test_pipe_is_added_below_the_text(ctl, port, text, stdin, prompt):
    assert ctl("query", "-p", "code", *text, stdin=stdin).returncode == 0
    assert port.requests.get(timeout=10)[1]["messages"][-1]["content"] == prompt


def test_json_is_the_ports_own_document(ctl, port):
    document = {"choices": [{"message": {"content": "Hi"}}], "usage": {"total_tokens": 3}}
    text = json.dumps(document).encode()
    port.answer = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(text) + text
    done = ctl("--json", "query", "-p", "code", "Hi")
    assert (done.returncode, json.loads(done.stdout)) == (0, document)
    assert "stream" not in port.requests.get(timeout=10)[1]


def test_only_ready_profile_is_asked_when_none_is_named(ctl, daemon, port):
    daemon.operator._set("chat", state="unloaded")
    assert ctl("query", "Hi").returncode == 0
    assert port.requests.get(timeout=10)[1]["model"] == "code"


@pytest.mark.usefixtures("daemon")
def test_several_ready_profiles_must_be_chosen_from(ctl):
    done = ctl("query", "Hi")
    assert done.returncode == 2
    assert "say with -p whom to ask: code, code6, chat, raw" in done.stderr


ERROR = {"error": {"message": "the engine died (look)", "type": "server_error", "remedy": "look"}}
DENIED = {"error": {"message": "a key is needed", "code": "unauthorized"}}


@pytest.mark.parametrize(
    ("answer", "stdout", "stderr"),
    [
        pytest.param(
            HEAD + event({"content": "Hel"}) + b"data: " + json.dumps(ERROR).encode() + b"\n\n",
            "Hel\n",
            "llmd-ctl: the engine died; look\n",
            id="an error in the stream",
        ),
        pytest.param(
            HEAD + event({"content": "Hel"}),
            "Hel\n",
            "llmd-ctl: the answer was cut short; `llmd-ctl logs PROFILE` may tell why\n",
            id="no end",
        ),
        pytest.param(
            HEAD + b"data: {oops\n\n",
            "",
            "llmd-ctl: the stream holds what is no JSON: {oops\n",
            id="no JSON",
        ),
        pytest.param(
            b"HTTP/1.1 503 No\r\n\r\n" + json.dumps(ERROR).encode(),
            "",
            "llmd-ctl: the engine died; look\n",
            id="an error instead",
        ),
        pytest.param(
            b"HTTP/1.1 401 No\r\n\r\n" + json.dumps(DENIED).encode(),
            "",
            "llmd-ctl: a key is needed; put a key into LLMD_API_KEY\n",
            id="no key",
        ),
        pytest.param(
            b"HTTP/1.1 502 Bad\r\n\r\n<h1>Bad\ngateway</h1>",
            "",
            "llmd-ctl: the port answered 502: <h1>Bad gateway</h1>\n",
            id="no error object",
        ),
    ],
)
def test_failure_is_one_line_and_status_1(ctl, port, answer, stdout, stderr):
    port.answer = answer
    done = ctl("query", "-p", "code", "Hi")
    assert (done.returncode, done.stdout, done.stderr) == (1, stdout, stderr)


def test_port_that_hangs_up_is_one_line(ctl, port):
    port.answer = b""
    done = ctl("query", "-p", "code", "Hi")
    assert done.returncode == 1
    assert done.stderr.startswith(f"llmd-ctl: the connection to port {port.port} broke: ")


def test_closed_port_is_one_line(ctl, port):
    port.close()
    done = ctl("query", "-p", "code", "Hi")
    assert done.returncode == 1
    assert done.stderr == (
        f"llmd-ctl: nobody listens on 127.0.0.1 port {port.port}; see `llmd-ctl status`\n"
    )


@pytest.mark.parametrize(
    "answer", [HEAD + event({"content": "He\n"}), b""], ids=["begun", "waiting"]
)
def test_ctrl_c_closes_the_connection(start, port, answer):
    port.answer, port.linger = answer, True
    process = start("query", "-p", "code", "Hi")
    port.requests.get(timeout=10)
    if answer:
        assert process.stdout.readline() == "He\n"
    process.send_signal(signal.SIGINT)
    assert process.wait(10) == 130
    assert "Traceback" not in process.stderr.read()
    assert port.client_left.wait(10)


def test_on_a_terminal_reasoning_is_dim_and_waiting_is_told(environment, port):
    port.answer = (
        HEAD
        + b": loading code, 40 %\n\n"
        + event({"reasoning_content": "Hm."})
        + event({"content": "Yes."})
        + DONE
    )
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [*COMMAND, "query", "-p", "code", "Well?"],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env=environment | {"TERM": "xterm"},
    ) as process:
        os.close(theirs)
        shown = b""
        while b"Yes." not in shown:
            shown += os.read(ours, 4096)
        assert process.wait(10) == 0
    os.close(ours)
    text = shown.decode()
    assert "\r\x1b[Kloading code, 40 %\r\x1b[K" in text
    assert "\x1b[2mHm.\x1b[0m\r\n\r\nYes." in text
