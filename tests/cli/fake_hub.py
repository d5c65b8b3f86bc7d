"""A model hub on localhost: as much of its API as a download needs, and what can go wrong."""

import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit


REVISION = "c0ffee" + 34 * "0"


class FakeHub:
    """Repositories by name, their files by path.

    Attributes:
        refuse: Status and error code that every request of a repository is answered with.
        break_after: So many bytes of a file, then the connection ends; once for each entry.
        stall_after: So many bytes, then nothing until the server is closed.
        ignore_ranges: Every answer is the whole file.
        elsewhere: Files come from this other host, by a redirect.
        requests: Path, range and authorization of what was asked for.
        sent: Set when a stalled answer has begun.
    """

    def __init__(self) -> None:
        self.repositories: dict[str, dict[str, bytes]] = {}
        self.lies: dict[str, str] = {}
        self.refuse: dict[str, tuple[int, str]] = {}
        self.break_after: list[int] = []
        self.stall_after: int | None = None
        self.ignore_ranges = False
        self.elsewhere = ""
        self.requests: list[tuple[str, str | None, str | None]] = []
        self.sent = threading.Event()
        self.closing = threading.Event()
        self.url = ""

    def add(self, name: str, files: dict[str, bytes]) -> None:
        self.repositories[name] = files

    @property
    def ranges(self) -> list[tuple[str, str | None]]:
        """Which files were asked for, and from where on."""
        return [
            (path.rpartition("/")[2], ranged)
            for path, ranged, _ in self.requests
            if "/resolve/" in path or path.startswith("/cdn/")
        ]

    def info(self, name: str) -> dict[str, object]:
        siblings = []
        for path, content in self.repositories[name].items():
            entry: dict[str, object] = {"rfilename": path, "size": len(content)}
            git = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
            entry["blobId"] = git
            if path.endswith((".gguf", ".safetensors")):
                sha256 = self.lies.get(path) or hashlib.sha256(content).hexdigest()
                entry["lfs"] = {"size": len(content), "sha256": sha256, "pointerSize": 134}
            siblings.append(entry)
        return {"id": name, "sha": REVISION, "siblings": siblings}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: FakeHub

    def log_message(self, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        headers = self.headers
        self.hub.requests.append((path, headers.get("Range"), headers.get("Authorization")))
        api = re.fullmatch(r"/api/models/([^/]+/[^/]+)", path)
        file = re.fullmatch(r"/(?:cdn/)?([^/]+/[^/]+)/resolve/([0-9a-f]+)/(.+)", path)
        name = (api or file or [None, ""])[1]
        if name in self.hub.refuse:
            self._refuse(*self.hub.refuse[name])
        elif name not in self.hub.repositories:
            self._refuse(401, "")
        elif api:
            self._answer(200, json.dumps(self.hub.info(name)).encode())
        elif file and self.hub.elsewhere and not path.startswith("/cdn/"):
            self._answer(302, b"", Location=f"{self.hub.elsewhere}/cdn{self.path}")
        elif file:
            self._file(self.hub.repositories[name][file[3]])

    def _file(self, content: bytes) -> None:
        start = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range") or "")
        begin = int(start[1]) if start and not self.hub.ignore_ranges else 0
        rest = content[begin:]
        self.send_response(206 if begin else 200)
        if begin:
            self.send_header("Content-Range", f"bytes {begin}-{len(content) - 1}/{len(content)}")
        self.send_header("Content-Length", str(len(rest)))
        self.end_headers()
        if self.hub.break_after:
            self.wfile.write(rest[: self.hub.break_after.pop(0)])
            self.close_connection = True
        elif self.hub.stall_after is not None:
            self.wfile.write(rest[: self.hub.stall_after])
            self.wfile.flush()
            self.hub.sent.set()
            self.hub.closing.wait(20)
            self.close_connection = True
        else:
            self.wfile.write(rest)

    def _refuse(self, status: int, code: str) -> None:
        self._answer(status, b"{}", **({"X-Error-Code": code} if code else {}))

    def _answer(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        for header, value in headers.items():
            self.send_header(header, value)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@contextmanager
def hub_running() -> Iterator[FakeHub]:
    hub = FakeHub()
    handler = type("Handler", (_Handler,), {"hub": hub})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = True
        server.block_on_close = False
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        hub.url = f"http://127.0.0.1:{server.server_port}"
        try:
            yield hub
        finally:
            hub.closing.set()
            server.shutdown()
            thread.join()
