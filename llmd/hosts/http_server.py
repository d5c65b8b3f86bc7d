"""The plumbing of a host's own HTTP server: threads, hang-ups, and framing of HTTP/1.1."""

import contextlib
import logging
import selectors
import socket
import threading
from collections.abc import Callable
from typing import Any, Literal, Protocol


log = logging.getLogger("llmd.host")


def serve(listener: socket.socket, handle: Callable[[socket.socket], None]) -> None:
    """Accept connections for ever and call *handle* for each on a thread of its own."""

    def converse(connection: socket.socket) -> None:
        with contextlib.closing(connection):
            try:
                handle(connection)
            except (ConnectionError, TimeoutError):
                pass
            except Exception:
                log.exception("connection failed")

    while True:
        connection, _ = listener.accept()
        thread = threading.Thread(target=converse, args=(connection,), name="http", daemon=True)
        try:
            thread.start()
        except RuntimeError as error:  # no memory for one more; there may be some again later
            log.error("connection refused: %s", error)
            connection.close()


class HangupWatcher:
    """Tells when a client closes its connection while nobody reads from it.

    One thread for all connections, asleep unless one of them has something to say. A client that
    closes only its sending side counts as gone.
    """

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._lock = threading.Lock()
        # An empty selector of some platforms returns at once; this one never becomes readable.
        self._idle, self._held = socket.socketpair()
        self._selector.register(self._idle, selectors.EVENT_READ, None)
        threading.Thread(target=self._run, name="hangups", daemon=True).start()

    @contextlib.contextmanager
    def watching(self, connection: socket.socket, on_hangup: Callable[[], None]) -> Any:
        """Call *on_hangup*, from another thread, if *connection* is closed within the block."""
        with self._lock:
            self._selector.register(connection, selectors.EVENT_READ, on_hangup)
        try:
            yield
        finally:
            self._forget(connection)

    def _forget(self, connection: socket.socket) -> bool:
        with self._lock, contextlib.suppress(KeyError, ValueError):
            self._selector.unregister(connection)
            return True
        return False

    def _run(self) -> None:
        while True:
            for key, _ in self._selector.select():
                connection: socket.socket = key.fileobj  # type: ignore[assignment]
                # Either it is gone, or it sent its next request early: then its end cannot be
                # told from here any more. In both cases this has to be the last look.
                if key.data is None or not self._forget(connection):
                    continue
                if _closed(connection):
                    key.data()


def _closed(connection: socket.socket) -> bool:
    try:
        return not connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
    except BlockingIOError:
        return False
    except OSError:
        return True


class Output(Protocol):
    """Where a `Reply` goes."""

    def write(self, data: bytes, /) -> Any:
        """Pass *data* on."""


class Reply:
    """Stands in for a handler's output while code writes to it that knows only HTTP/1.0.

    What is to be told differently is kept: the body of an error for `error`, of an answer for
    `answer`. A stream is framed as chunks; the rest passes.
    """

    def __init__(self, output: Output) -> None:
        self._output = output
        self._mode: Literal["plain", "chunked", "error", "answer"] = "plain"
        self.status = 0
        self.error = bytearray()
        self.answer = bytearray()

    @property
    def streaming(self) -> bool:
        """Whether chunks are being written."""
        return self._mode == "chunked"

    @property
    def failed(self) -> bool:
        """Whether `error` holds the body of a response that was not sent."""
        return self._mode == "error"

    @property
    def withheld(self) -> bool:
        """Whether `answer` holds the body of a response that was not sent."""
        return self._mode == "answer"

    def begin_answer(self) -> None:
        """Keep what follows, an answer."""
        self._mode = "answer"

    def begin_chunks(self) -> None:
        """Frame what follows."""
        self._mode = "chunked"

    def begin_error(self, status: int) -> None:
        """Keep what follows, an error."""
        self._mode, self.status = "error", status

    def write(self, data: bytes) -> int:
        """Pass *data* on, in whatever way the mode asks for."""
        match self._mode:
            case "error":
                self.error += data
            case "answer":
                self.answer += data
            case "chunked" if data:
                self._output.write(b"%x\r\n%b\r\n" % (len(data), data))
            case "chunked":
                pass
            case _:
                self._output.write(data)
        return len(data)

    def flush(self) -> None:
        """Nothing is held back."""

    def end_chunks(self) -> None:
        """Write the end of a stream."""
        self._mode = "plain"
        self._output.write(b"0\r\n\r\n")


def read_body(stream: Any, headers: Any) -> bytes:
    """The body of a request, by its length or in chunks.

    Raises:
        ValueError: Its framing is broken; the connection cannot be used any more.
    """
    if "chunked" in headers.get("Transfer-Encoding", "").lower():
        return _read_chunks(stream)
    length = int(headers.get("Content-Length") or 0)
    body: bytes = stream.read(length)
    if len(body) != length:
        raise ConnectionResetError("the body ended early")
    return body


def _read_chunks(stream: Any) -> bytes:
    body = bytearray()
    while size := int(stream.readline(1024).partition(b";")[0], 16):
        body += stream.read(size)
        stream.readline(8)
    while stream.readline(65536) not in (b"\r\n", b"\n", b""):
        pass
    return bytes(body)
