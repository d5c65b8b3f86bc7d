"""Web pages for a real browser: their server, a name that is rebound, and the browser itself."""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
HERE = Path(__file__).parent
WAIT_S = 60


class Pages:
    """Serves the page with its attempts under any name, and keeps what it reports.

    Attributes:
        port: Of the pages.
        rebound: A port that leads to the pages, until a page asks for `/rebind`; then to llmd.
    """

    def __init__(self):
        self._reports = {}
        self._reported = threading.Condition()
        self.victim = None
        """The port that `rebound` leads to in the end."""
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                if self.path == "/rebind":
                    outer.rebound.leads_to = outer.victim
                file = HERE / self.path.partition("?")[0].lstrip("/")
                known = file.suffix in {".html", ".js"} and file.parent == HERE and file.exists()
                kind = "text/javascript" if file.suffix == ".js" else "text/html"
                self._answer(file.read_bytes() if known else b"", kind)

            def do_POST(self):
                text = self.rfile.read(int(self.headers["Content-Length"]))
                with outer._reported:
                    outer._reports.update(json.loads(text))
                    outer._reported.notify_all()
                self._answer(b"", "text/plain")

            def _answer(self, body, kind):
                self.send_response(200)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.send_header("Access-Control-Allow-Origin", "*")
                self.send_header("Connection", "close")
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_args):
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self._server.server_address[1]
        self.rebound = Forwarder(self.port)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self):
        self._server.shutdown()
        self._server.server_close()
        self.rebound.close()

    def report(self, *names):
        """What the page with *names* found, once it has all of them."""
        with self._reported:
            complete = self._reported.wait_for(lambda: set(names) <= self._reports.keys(), WAIT_S)
            assert complete, f"only {sorted(self._reports)} came, of {names}"
            return {name: self._reports.pop(name) for name in names}


class Forwarder:
    """Bytes from one port to another that may change: what a rebound name does to a browser."""

    def __init__(self, leads_to):
        self.leads_to = leads_to
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self):
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client):
        # Browsers connect ahead of need: where a connection leads is decided when it is used.
        client.recv(1, socket.MSG_PEEK)
        with client, socket.create_connection(("127.0.0.1", self.leads_to)) as server:
            back = threading.Thread(target=_pump, args=(server, client), daemon=True)
            back.start()
            _pump(client, server)
            back.join()


def _pump(source, sink):
    with contextlib.suppress(OSError):
        while piece := source.recv(65536):
            sink.sendall(piece)
    for sock in (source, sink):
        with contextlib.suppress(OSError):
            sock.shutdown(socket.SHUT_RDWR)


@contextlib.contextmanager
def browsing(url):
    """A headless browser at *url*; every name ending in `.example` is this machine."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        process = subprocess.Popen(
            [
                BROWSER, "--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run",
                "--disable-dev-shm-usage", "--disable-background-networking",
                f"--user-data-dir={profile}",
                "--host-resolver-rules=MAP *.example 127.0.0.1", url,
            ],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
        try:
            yield
        finally:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
