"""The whole program, started as a user starts it: `llmd serve` in a process of its own."""

import contextlib
import http.client
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import yaml


BIN = Path(sys.executable).parent

UNRULY = [sys.executable, str(Path(__file__).parents[1] / "unruly_engine.py"), "--port", "{port}"]
GOOD = {"messages": [{"role": "user", "content": "hi"}]}


def unruly(port, *flags, memory="100MiB", **more):
    """A profile that runs the unruly engine with *flags*."""
    return {"engine": "command", "cmd": [*UNRULY, *flags], "port": port, "memory": memory, **more}


def lay_out(profiles, **more):
    """A small configuration of *profiles*."""
    return {"budget": "200MiB", "gateway": None, **more, "profiles": profiles}


def free_ports(count):
    """Ports that nobody listens on, on either address of localhost."""
    sockets = []
    try:
        while len(sockets) < count:
            sock = socket.socket()
            sock.bind(("127.0.0.1", 0))
            sockets.append(sock)
        return [sock.getsockname()[1] for sock in sockets]
    finally:
        for sock in sockets:
            sock.close()


def alive(pids):
    """Those of *pids* that run. Zombies do not: whose parent is gone waits for init."""
    return [p for p in pids if psutil.pid_exists(p) and psutil.Process(p).status() != "zombie"]


class Llmd:
    """A running daemon with its configuration, sockets, logs and state in *directory*."""

    def __init__(self, directory, config):
        self.directory = Path(directory)
        self.config_file = self.directory / "llmd.yaml"
        self.socket = self.directory / "s" / "llmd.sock"
        self.log_file = self.directory / "stderr.log"
        self.env = {
            **os.environ,
            "LLMD_SOCKET": str(self.socket),
            "LLMD_CONFIG": str(self.config_file),
            "LLMD_LOG_DIR": str(self.directory / "log"),
            "LLMD_STATE_DIR": str(self.directory / "state"),
            "LLMD_CACHE_DIR": str(self.directory / "cache"),
        }
        self.write_config(config)
        self.flags = ()
        self.process = None

    def write_config(self, config):
        text = config if isinstance(config, str) else yaml.safe_dump(config, sort_keys=False)
        self.config_file.write_text(text)

    # --- life

    def start(self, timeout=20):
        with self.log_file.open("ab") as stderr:
            self.process = subprocess.Popen(
                [BIN / "llmd", "serve", *self.flags], env=self.env, stdout=stderr, stderr=stderr
            )
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                raise AssertionError(f"llmd ended: {self.log()}")
            with contextlib.suppress(OSError, http.client.HTTPException):
                if self.admin("GET", "/v1/status")[0] == 200:
                    return self
            select.select([], [], [], 0.02)
        raise AssertionError(f"llmd did not start: {self.log()}")

    def stop(self):
        """SIGTERM, and proof that nothing is left."""
        hosts = self.host_pids()
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            status = self.process.wait(40)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise
        gone, alive = psutil.wait_procs(
            [psutil.Process(p) for p in hosts if psutil.pid_exists(p)], 5
        )
        for process in alive:
            process.kill()
        assert not alive, f"hosts outlived their daemon: {alive} {gone}"
        return status

    def kill(self):
        """End it as a crash would; its hosts live on. Returns their process ids."""
        hosts = self.host_pids()
        self.process.kill()
        self.process.wait()
        return hosts

    def host_pids(self):
        """The hosts and what they started, whoever is their parent."""
        found = set()
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if f"--owner={self.socket}" in process.cmdline():
                    found |= {process.pid, *(c.pid for c in process.children(recursive=True))}
        return sorted(found)

    def listening_ports_of_hosts(self):
        """TCP ports that the hosts and their servers have opened."""
        found = [c for pid in self.host_pids() for c in psutil.Process(pid).net_connections("tcp")]
        return [c.laddr.port for c in found if c.status == psutil.CONN_LISTEN]

    def log(self):
        return self.log_file.read_text(errors="replace")[-4000:]

    # --- asking

    def admin(self, method, path, body=None, timeout=60):
        connection = http.client.HTTPConnection("localhost", timeout=timeout)
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.settimeout(timeout)
        with contextlib.closing(connection):
            connection.sock.connect(str(self.socket))
            headers = {"Content-Type": "application/json"} if body is not None else {}
            payload = None if body is None else json.dumps(body)
            connection.request(method, path, payload, headers)
            response = connection.getresponse()
            return response.status, json.loads(response.read() or b"null")

    def status(self):
        return self.admin("GET", "/v1/status")[1]

    def profile(self, name):
        return next(p for p in self.status()["profiles"] if p["name"] == name)

    def ctl(self, *args, stdin="", timeout=60, env=None):
        return subprocess.run(
            [BIN / "llmd-ctl", *args], env={**self.env, **(env or {})}, input=stdin,
            capture_output=True, text=True, timeout=timeout, check=False,
        )  # fmt: skip

    def wait_for(self, condition, timeout=30):
        """Until *condition* of the status holds; for what only a status can tell."""
        deadline = time.monotonic() + timeout
        while not condition(status := self.status()):
            assert time.monotonic() < deadline, status
            select.select([], [], [], 0.05)
        return status


def request(port, method="POST", path="/v1/chat/completions", body=None, headers=None, timeout=120):
    """One request on a connection of its own: status, headers, body."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
    with contextlib.closing(connection):
        payload = body if isinstance(body, bytes | str | None) else json.dumps(body)
        sent = {"Content-Type": "application/json"} if payload is not None else {}
        connection.request(method, path, payload, {**sent, **(headers or {})})
        response = connection.getresponse()
        return response.status, dict(response.getheaders()), response.read()


def ask(port, prompt, timeout=120, **fields):
    """The answer's message to *prompt*, greedily."""
    body = {"messages": [{"role": "user", "content": prompt}], "temperature": 0, **fields}
    status, _, answer = request(port, body=body, timeout=timeout)
    assert status == 200, answer
    return json.loads(answer)["choices"][0]["message"]
