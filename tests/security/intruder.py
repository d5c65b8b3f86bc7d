"""What a process of another user tries; prints one JSON object: what it got, by attempt.

Its argument is what it aims at, as JSON: `sockets`, `ports`, `directories`, `files`, `pids`, and
`spare`, where it may put a link.
"""

import contextlib
import json
import os
import socket
import sys
from pathlib import Path


BODY = b'{"messages": [{"role": "user", "content": "Hello"}]}'
QUESTION = (
    b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
    b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (len(BODY), BODY)
)


def dial(family, address):
    """What is answered at *address*: the first line."""
    with socket.socket(family) as sock:
        sock.settimeout(10)
        sock.connect(address)
        sock.sendall(QUESTION)
        return sock.recv(4096).split(b"\r\n")[0].decode(errors="replace")


def names(directory):
    return [name for _, _, files in os.walk(directory, onerror=_raise) for name in files]


def _raise(error):
    raise error


def memory(pid):
    with Path(f"/proc/{pid}/mem").open("rb"):
        return "opened"


def attempts(victim):
    for path in victim["sockets"]:
        yield f"connect {path}", lambda path=path: dial(socket.AF_UNIX, path)
        yield f"unlink {path}", lambda path=path: Path(path).unlink() or "gone"
    for port in victim["ports"]:
        yield f"connect {port}", lambda port=port: dial(socket.AF_INET, ("127.0.0.1", port))
    for directory in victim["directories"]:
        yield f"list {directory}", lambda directory=directory: names(directory)
        yield (
            f"write {directory}",
            lambda directory=directory: Path(directory, "planted").write_text("") or "written",
        )
    for path in victim["files"]:
        yield f"read {path}", lambda path=path: Path(path).read_bytes().decode("latin-1")[:40]
        yield f"link {path}", lambda path=path: os.link(path, victim["spare"]) or "linked"
    for pid in victim["pids"]:
        yield f"environ {pid}", lambda pid=pid: Path(f"/proc/{pid}/environ").read_text()[:40]
        yield f"descriptors {pid}", lambda pid=pid: len([*Path(f"/proc/{pid}/fd").iterdir()])
        yield f"memory {pid}", lambda pid=pid: memory(pid)
        yield f"signal {pid}", lambda pid=pid: os.kill(pid, 0) or "signalled"


def main():
    got = {}
    for name, attempt in attempts(json.loads(sys.argv[1])):
        with contextlib.suppress(OSError):
            got[name] = attempt()
    sys.stdout.write(json.dumps(got))


main()
