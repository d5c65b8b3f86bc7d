"""The exec host: starts somebody else's server, waits until it can serve, and ends it.

Options of the launch:

| key | meaning |
|---|---|
| `argv` | program and arguments; the program is looked up on PATH |
| `ready` | path that answers 200 once the server can serve |
| `probe` | `[path, body]`: a request that must succeed after that; optional |
| `headers` | sent with every request, ours and clients'; optional |
| `slots` | path at which a llama.cpp server lists its sequences; optional |
| `saved_prompts_dir` | private directory in which that server saves sequences; optional |
| `token_bytes` | what a token takes in it |
| `stop_grace_s` | seconds between SIGTERM and SIGKILL; default 10 |

In `argv`, in `headers` and in the launch's `env`, `{port}` becomes a free loopback port, `{socket}`
the path of a private Unix socket, and `{key}` a random key. A server whose `argv` has `{socket}` is
spoken to there, any other on the port. It runs in this process's group: what kills the group kills
both.
"""

import contextlib
import http.client
import logging
import os
import random
import secrets
import shutil
import signal
import socket
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar, Final

from llmd.hosts.engine import LoadError
from llmd.hosts.llama_saved import SavedSlots, saved_slots
from llmd.hosts.protocol import Launch
from llmd.hosts.saved_prompts import Allowance
from llmd.hosts.slots import SlotsWatch
from llmd.hosts.sockets import ask
from llmd.platform.spawn import Child, Exit, spawn


_PORTS: Final = range(20_000, 32_000)
"""Below the ports that systems hand out for outgoing connections."""

_FIRST_PAUSE_S: Final = 0.005
_LONGEST_PAUSE_S: Final = 0.015
"""A request waits while nobody knows that the server is ready; asking takes half a millisecond."""
_ANSWER_WITHIN_S: Final = 10.0
_KILLED_WITHIN_S: Final = 5.0
_OUR_TURN_S: Final = 0.2

log = logging.getLogger("llmd.host")


class ExecEngine:
    """See the module; `llmd.hosts.engine.Engine`."""

    holds_interpreter: ClassVar[bool] = False
    on_death: Callable[[str, int], None]

    def __init__(self, upstream: Path) -> None:
        self._socket = upstream
        self._server: Child | None = None
        self._stop_grace_s = 10.0
        self._serving = False
        self._stopping = threading.Event()
        self._slots: SlotsWatch | None = None
        self._saved: SavedSlots | None = None

    def prepare(self) -> None:
        """Nothing to import."""

    def load(self, launch: Launch) -> dict[str, Any]:
        """See `Engine.load`."""
        options = launch.options
        words = {"{socket}": os.fspath(self._socket), "{key}": secrets.token_hex(32)}
        argv = list(options["argv"])
        on_socket = any("{socket}" in word for word in argv)
        words["{port}"] = str(0 if on_socket else free_port())
        env = {**os.environ, **{name: fill(text, words) for name, text in launch.env.items()}}
        argv = [program(argv[0], env), *(fill(word, words) for word in argv[1:])]
        headers = {name: fill(text, words) for name, text in options.get("headers", {}).items()}
        self._stop_grace_s = float(options.get("stop_grace_s", self._stop_grace_s))

        place: Path | int = self._socket if on_socket else int(words["{port}"])
        self._saved = saved_slots(options, place, headers)
        deadline = time.monotonic() + launch.load_timeout_s
        try:
            self._server = server = spawn(argv, env=env, log=None, own_session=False)
        except OSError as error:
            raise LoadError(f"{argv[0]} cannot be started: {error.strerror}") from error
        server.on_exit(self._on_exit)
        asker = _Asker(place, headers)
        ready = str(options["ready"])
        self._await_ready(server, asker, ready, deadline, launch.load_timeout_s)
        if (probe := options.get("probe")) is not None:
            path, body = probe
            status, answer = asker.ask("POST", path, body, deadline - time.monotonic())
            if status != http.HTTPStatus.OK:
                self._raise_if_ended(server)
                raise LoadError(f"the server is ready, but answers {path} with {status}: {answer}")
        if (slots := options.get("slots")) is not None:
            self._slots = SlotsWatch(place, headers, slots)
        if self._saved is not None and not self._saved.restore():
            server.wait(_ANSWER_WITHIN_S)
        self._serving = True
        self._raise_if_ended(server)
        if on_socket:
            return {"path": os.fspath(self._socket), "headers": headers}
        return {"host": "127.0.0.1", "port": place, "headers": headers}

    def progress(self) -> float | None:
        """Unknown."""
        return None

    def status(self) -> dict[str, Any]:
        """See `Engine.status`; the server keeps its own counts."""
        return {"memory": {}, "in_flight": None}

    def pulse(self) -> dict[str, Any]:
        """See `Engine.pulse`; most servers do not tell."""
        return self._slots.look() if self._slots is not None else {}

    def trim(self) -> int:
        """Nothing that is known of any server."""
        return 0

    def save(self, allowance: Allowance) -> None:
        """See `Engine.save`."""
        if self._saved is not None:
            self._saved.save(allowance)

    def stop(self, *, attended: bool) -> None:
        """End the server and reap it; SIGKILL after its grace."""
        self._stopping.set()
        leader = os.getpgrp() == os.getpid()
        if self._server is not None and self._server.exit is None:
            if leader:  # its helpers are in our group as well
                signal.signal(signal.SIGTERM, signal.SIG_IGN)
                os.killpg(0, signal.SIGTERM)
            else:
                self._server.kill(signal.SIGTERM)
            if self._server.wait(self._stop_grace_s) is None:
                self._server.kill(signal.SIGKILL)
                self._server.wait(_KILLED_WITHIN_S)
        if leader and not attended and self._server is not None:
            # Nobody else will end helpers that ignore SIGTERM. This ends us, too.
            with contextlib.suppress(OSError):
                self._socket.unlink()
            os.killpg(0, signal.SIGKILL)

    def _await_ready(
        self, server: Child, asker: "_Asker", path: str, deadline: float, limit_s: float
    ) -> None:
        pause_s, last = _FIRST_PAUSE_S, "nobody listens"
        while True:
            left_s = deadline - time.monotonic()
            if left_s <= 0:
                raise LoadError(
                    f"the server was not ready within load_timeout, {limit_s:g} s: {path}: {last}"
                )
            status, last = asker.ask("GET", path, None, min(left_s, _ANSWER_WITHIN_S))
            if status == http.HTTPStatus.OK:
                return
            server.wait(min(pause_s, left_s))
            self._raise_if_ended(server)
            pause_s = min(pause_s * 1.3, _LONGEST_PAUSE_S)

    def _raise_if_ended(self, server: Child) -> None:
        if server.exit is not None:
            raise LoadError(
                f"the server ended before it was ready: {server.exit}",
                exit_code=exit_status(server.exit),
            )

    def _on_exit(self, ended: Exit) -> None:
        # A SIGTERM for the whole group may reach the server first; ours is on its way then.
        asked = ended.code in (0, 143) or ended.signal == "SIGTERM"
        if self._serving and not self._stopping.wait(_OUR_TURN_S if asked else 0):
            self.on_death(f"the server ended: {ended}", exit_status(ended))


class _Asker:
    """Small requests to the server, each on a connection of its own."""

    def __init__(self, place: Path | int, headers: Mapping[str, str]) -> None:
        self._place = place
        self._headers = headers

    def ask(self, method: str, path: str, body: Any, timeout_s: float) -> tuple[int, str]:
        """The status, 0 when there was no answer, and the beginning of what was said."""
        try:
            status, text = ask(
                self._place, method, path, body,
                headers=self._headers, timeout_s=timeout_s, most_bytes=500,
            )  # fmt: skip
        except (OSError, http.client.HTTPException) as error:
            return 0, str(error) or type(error).__name__
        return status, f"{status} {text}"


def fill(text: str, words: Mapping[str, str]) -> str:
    """*text* with the placeholders that it has replaced; other braces stay."""
    for name, value in words.items():
        text = text.replace(name, value)
    return text


def program(name: str, env: Mapping[str, str]) -> str:
    """The absolute path of a program, by the PATH that it will run with.

    Raises:
        LoadError: There is none.
    """
    found = shutil.which(os.path.expanduser(name), path=env.get("PATH"))  # noqa: PTH111 - a name
    if found is None:
        raise LoadError(f"{name} is not an executable on PATH; give its absolute path")
    return os.path.abspath(found)  # noqa: PTH100 - a venv's link must stay a link


def free_port() -> int:
    """A loopback port that nobody listens on now.

    Raises:
        LoadError: None was found.
    """
    for _ in range(100):
        port = random.choice(_PORTS)  # noqa: S311 - no secret
        with socket.socket() as trial, contextlib.suppress(OSError):
            trial.bind(("127.0.0.1", port))
            return port
    raise LoadError("no free port on 127.0.0.1")


def exit_status(ended: Exit) -> int:
    """*ended* as an exit status of our own, as shells do: 128 + n for signal n; never 0."""
    if ended.signal is not None:
        number = getattr(signal, ended.signal, None)
        return 128 + int(number) if number is not None else 128
    return ended.code or 1
