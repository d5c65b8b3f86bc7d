"""The control loop of a host: one thread, one selector, and the engine's work beside it."""

import contextlib
import logging
import os
import queue
import selectors
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any, Final, NoReturn

from llmd.hosts.engine import Engine, LoadError
from llmd.hosts.protocol import MAX_LINE_BYTES, PROTOCOL, Launch, State, decode, encode
from llmd.hosts.saved_prompts import Allowance
from llmd.hosts.sockets import listen, same_user


_PROGRESS_EVERY_S: Final = 0.25
_SEND_TIMEOUT_S: Final = 5.0

log = logging.getLogger("llmd.host")


class _Peer:
    """A connected daemon and what it has sent of its next line."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self.received = bytearray()

    def send(self, message: dict[str, Any]) -> None:
        with contextlib.suppress(OSError):  # it hung up; the selector will say so
            self.connection.sendall(encode(message))


class Host:
    """Serves the control socket until told to stop, orphaned, or the engine has ended.

    All state is read and written on the thread of `run`. The engine's slow work is done by one
    worker thread, which hands its results back through `post`.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        kind: str,
        control: Path,
        instance: str,
        orphan_grace_s: float,
    ) -> None:
        self._engine = engine
        engine.on_death = self.engine_died
        self._kind = kind
        self._control = control
        self._instance = instance
        self._orphan_grace_s = orphan_grace_s
        self._state: State = "idle"
        self._profile: str | None = None
        self._fingerprint: str | None = None
        self._upstream: dict[str, Any] | None = None
        self._error: str | None = None
        self._loading_for: tuple[_Peer, Any] | None = None
        self._awaiting: list[tuple[_Peer, Any]] = []
        """Who asked to be told when nothing is being prepared or loaded."""
        self._alone_since = time.monotonic()
        self._peers: set[_Peer] = set()
        self._posted: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._jobs: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._selector = selectors.DefaultSelector()
        self._wake_in, self._wake_out = socket.socketpair()
        for end in (self._wake_in, self._wake_out):
            end.settimeout(0)

    def post(self, callback: Callable[[], None]) -> None:
        """Have *callback* run on the control loop; from any thread."""
        self._posted.put(callback)
        with contextlib.suppress(BlockingIOError):  # full of wake-ups already
            self._wake_out.send(b"\0")

    def engine_died(self, reason: str, exit_code: int) -> None:
        """End this process with *exit_code*, because there is nothing left to serve; any thread."""
        self.post(lambda: self._exit(exit_code, reason))

    def run(self) -> NoReturn:
        """Serve until the end; the process exits inside."""
        listener = listen(self._control)
        self._selector.register(listener, selectors.EVENT_READ, None)
        self._selector.register(self._wake_in, selectors.EVENT_READ, None)
        signal.set_wakeup_fd(self._wake_out.fileno(), warn_on_full_buffer=False)
        signal.signal(signal.SIGTERM, self._on_signal)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        threading.Thread(target=self._work, name="work", daemon=True).start()
        while True:
            for key, _ in self._selector.select(self._patience_s()):
                if key.fileobj is listener:
                    self._accept(listener)
                elif key.data is None:
                    self._drain_wakes()
                else:
                    self._receive(key.data)
            self._report_progress()
            if not self._peers and self._orphaned_in_s() <= 0:
                self._exit(0, f"no daemon for {self._orphan_grace_s:g} s")

    # --- the loop's own ---------------------------------------------------------------------

    def _patience_s(self) -> float | None:
        """How long to sleep at most; None when only an event can bring work."""
        limits = []
        if not self._peers:
            limits.append(max(self._orphaned_in_s(), 0.0))
        if self._loading_for is not None:
            limits.append(_PROGRESS_EVERY_S)
        return min(limits, default=None)

    def _orphaned_in_s(self) -> float:
        return self._alone_since + self._orphan_grace_s - time.monotonic()

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        self._posted.put(lambda: self._exit(0, "SIGTERM"))  # the wake-up descriptor is written to

    def _drain_wakes(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while len(self._wake_in.recv(4096)) == 4096:
                pass
        with contextlib.suppress(queue.Empty):
            while True:
                self._posted.get_nowait()()

    def _accept(self, listener: socket.socket) -> None:
        connection, _ = listener.accept()
        if not same_user(connection):
            connection.close()
            return
        connection.settimeout(_SEND_TIMEOUT_S)
        peer = _Peer(connection)
        self._peers.add(peer)
        self._selector.register(connection, selectors.EVENT_READ, peer)

    def _receive(self, peer: _Peer) -> None:
        try:
            data = peer.connection.recv(65536)
        except OSError:
            data = b""
        peer.received += data
        if not data or len(peer.received) > MAX_LINE_BYTES:
            self._drop(peer)
            return
        while (end := peer.received.find(b"\n")) >= 0:
            line = bytes(peer.received[:end])
            del peer.received[: end + 1]
            try:
                self._answer(peer, decode(line))
            except ValueError:
                self._drop(peer)
                return

    def _drop(self, peer: _Peer) -> None:
        self._selector.unregister(peer.connection)
        peer.connection.close()
        self._peers.discard(peer)
        self._alone_since = time.monotonic()

    def _exit(self, code: int, reason: str) -> NoReturn:
        """End the process here and now: the kernel frees faster than any destructor."""
        self._state = "stopping"
        log.info("ending with status %d: %s", code, reason)
        # First: stopping an engine that nobody attends to may end this process, too.
        with contextlib.suppress(OSError):
            self._control.unlink()
        if self._upstream and "path" in self._upstream:
            with contextlib.suppress(OSError):
                Path(self._upstream["path"]).unlink()
        try:
            self._engine.stop(attended=bool(self._peers))
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)

    # --- requests ---------------------------------------------------------------------------

    def _answer(self, peer: _Peer, request: dict[str, Any]) -> None:
        number = request.get("id")
        match request.get("op"):
            case "hello":
                peer.send({"id": number, "ok": True, **self._hello()})
            case "status":
                peer.send({"id": number, "ok": True, **self._status()})
            case "pulse":
                peer.send({"id": number, "ok": True, **self._engine.pulse()})
            case "settled":
                self._awaiting.append((peer, number))
                self._tell_settled()
            case "prepare":
                self._prepare(peer, number)
            case "load":
                self._load(peer, number, request)
            case "trim":
                self._run(peer, number, lambda: {"freed_bytes": self._engine.trim()})
            case "save":
                self._save(peer, number, request)
            case "stop":
                peer.send({"id": number, "ok": True})
                self._exit(0, "asked to stop")
            case other:
                peer.send({"id": number, "ok": False, "error": f"no such operation: {other!r}"})

    def _hello(self) -> dict[str, Any]:
        return {
            "protocol": PROTOCOL,
            "instance": self._instance,
            "kind": self._kind,
            "pid": os.getpid(),
            "profile": self._profile,
            "fingerprint": self._fingerprint,
            "state": self._state,
            "upstream": self._upstream,
            "error": self._error,
        }

    def _tell_settled(self) -> None:
        if self._state in ("preparing", "loading"):
            return
        told, self._awaiting = self._awaiting, []
        for peer, number in told:
            peer.send({"id": number, "ok": True, **self._hello()})

    def _status(self) -> dict[str, Any]:
        return {"state": self._state, "error": self._error, **self._engine.status()}

    def _prepare(self, peer: _Peer, number: Any) -> None:
        if self._state in ("prepared", "ready"):
            peer.send({"id": number, "ok": True})
            return
        if self._state != "idle":
            self._refuse(peer, number, "prepare")
            return
        self._state = "preparing"

        def prepare() -> dict[str, Any]:
            self._engine.prepare()
            return {}

        def prepared(_: dict[str, Any]) -> None:
            if self._state == "preparing":
                self._state = "prepared"

        self._run(peer, number, prepare, prepared)

    def _load(self, peer: _Peer, number: Any, request: dict[str, Any]) -> None:
        if self._state not in ("idle", "preparing", "prepared"):
            self._refuse(peer, number, "load")
            return
        try:
            launch = Launch.from_wire(request["launch"])
        except (KeyError, TypeError) as error:
            peer.send({"id": number, "ok": False, "error": f"not a launch: {error!r}"})
            return
        self._state, self._profile = "loading", launch.profile
        self._fingerprint = request.get("fingerprint")
        self._loading_for = (peer, number)
        if self._engine.holds_interpreter:
            # No handler of ours could run before the load is over; the kernel's can.
            signal.signal(signal.SIGTERM, signal.SIG_DFL)

        def load() -> dict[str, Any]:
            os.environ.update(launch.env)
            return {"upstream": self._engine.load(launch)}

        def loaded(answer: dict[str, Any]) -> None:
            self._state, self._upstream = "ready", answer["upstream"]

        self._run(peer, number, load, loaded)

    def _save(self, peer: _Peer, number: Any, request: dict[str, Any]) -> None:
        if self._state != "ready":
            self._refuse(peer, number, "save")
            return
        try:
            allowance = Allowance(int(request["limit_bytes"]), float(request["within_s"]))
        except (KeyError, TypeError, ValueError) as error:
            peer.send({"id": number, "ok": False, "error": f"not an allowance: {error!r}"})
            return

        def save() -> dict[str, Any]:
            self._engine.save(allowance)
            return {"prompts": allowance.prompts, "bytes": allowance.bytes}

        self._run(peer, number, save)

    def _refuse(self, peer: _Peer, number: Any, op: str) -> None:
        peer.send({"id": number, "ok": False, "error": f"cannot {op} while {self._state}"})

    def _run(
        self,
        peer: _Peer,
        number: Any,
        job: Callable[[], dict[str, Any]],
        done: Callable[[dict[str, Any]], None] | None = None,
    ) -> None:
        """Do *job* on the worker and answer; *done* runs on the loop, before the answer is sent."""

        def work() -> None:
            try:
                answer = job()
            except LoadError as error:
                self.post(lambda e=error: failed(str(e), e.exit_code))  # type: ignore[misc]
            except BaseException as error:
                log.exception("%s failed", number)
                text = f"{type(error).__name__}: {error}"
                self.post(lambda: failed(text, None))
            else:
                self.post(lambda: succeeded(answer))

        def succeeded(answer: dict[str, Any]) -> None:
            self._end_of_load(peer, number)
            if done is not None:
                done(answer)
            peer.send({"id": number, "ok": True, **answer})
            self._tell_settled()

        def failed(error: str, exit_code: int | None) -> None:
            self._end_of_load(peer, number)
            if self._state in ("preparing", "loading"):
                self._state, self._error = "failed", error
                log.error("%s", error)
            peer.send({"id": number, "ok": False, "error": error, "exit_code": exit_code})
            self._tell_settled()

        self._jobs.put(work)

    def _work(self) -> None:
        while True:
            self._jobs.get()()

    def _end_of_load(self, peer: _Peer, number: Any) -> None:
        if self._loading_for == (peer, number):
            self._loading_for = None
            signal.signal(signal.SIGTERM, self._on_signal)

    def _report_progress(self) -> None:
        if self._loading_for is None:
            return
        fraction = self._engine.progress()
        if fraction is not None:
            peer, number = self._loading_for
            peer.send(
                {
                    "id": number,
                    "event": "progress",
                    "fraction": round(fraction, 3),
                    "stage": "weights",
                }
            )
