"""The daemon's log, and its record of decisions.

The log is for whoever mends the daemon: an event name in the past tense (`host.exited`) plus keys,
coloured on a terminal and JSON lines elsewhere, in UTC. The decision records are for whoever
wonders why a profile was evicted: `llmd-ctl events` shows them. Neither ever holds a prompt or an
answer.
"""

import asyncio
import logging
import logging.handlers
import os
import sys
import threading
from collections import deque
from collections.abc import AsyncGenerator, Mapping
from datetime import UTC, datetime
from functools import partial
from io import TextIOWrapper
from pathlib import Path
from typing import Any, Final, Generic, TextIO, TypeVar

import structlog
from structlog.tracebacks import ExceptionDictTransformer

from llmd.config.replace import private_directory


T = TypeVar("T")

EVENTS_KEPT: Final = 2_000
LINES_KEPT: Final = 2_000
FILE_BYTES: Final = 4 * 2**20
FILES_KEPT: Final = 4
_FOLLOWER_LAGS_BY: Final = 1_000


class Ring(Generic[T]):
    """The last *size* items, and whoever follows them.

    A follower that reads slowly never holds up the writer, nor grows: it loses the oldest items
    that it has not read. Items may be put from any thread.
    """

    def __init__(self, size: int, *, lag: int = _FOLLOWER_LAGS_BY) -> None:
        self._items: deque[T] = deque(maxlen=size)
        self._lag = lag
        self._followers: set[_Follower[T]] = set()

    def put(self, item: T) -> None:
        """Keep *item*, and wake the followers."""
        self._items.append(item)
        for follower in tuple(self._followers):
            follower.put(item)

    def recent(self, count: int | None = None) -> list[T]:
        """The last *count* items (all, when None), oldest first."""
        items = list(self._items)
        return items if count is None else items[max(0, len(items) - count) :]

    async def follow(self, count: int = 0) -> AsyncGenerator[T, None]:
        """The last *count* items, then each new one; without end, and without polling.

        Nothing is missed in between, unless the reader lags. It must be closed (`aclose`) or
        cancelled to be forgotten.
        """
        follower = _Follower[T](self._lag, asyncio.get_running_loop())
        self._followers.add(follower)
        try:
            for item in self.recent(count):
                yield item
            while True:
                yield await follower.get()
        finally:
            self._followers.discard(follower)


class _Follower(Generic[T]):
    """One reader's share: a bounded queue on one event loop."""

    def __init__(self, lag: int, loop: asyncio.AbstractEventLoop) -> None:
        self._waiting: deque[T] = deque(maxlen=lag)
        self._loop = loop
        self._thread = threading.get_ident()
        self._changed = asyncio.Event()

    def put(self, item: T) -> None:
        self._waiting.append(item)
        if threading.get_ident() == self._thread:
            self._changed.set()
        elif not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._changed.set)

    async def get(self) -> T:
        while not self._waiting:
            self._changed.clear()
            await self._changed.wait()
        return self._waiting.popleft()


class EventLog:
    """The last decisions, each with its reason and numbers."""

    def __init__(self, size: int = EVENTS_KEPT) -> None:
        self._ring: Ring[dict[str, Any]] = Ring(size)

    def record(self, name: str, fields: Mapping[str, Any]) -> None:
        """Keep a decision: *name* in the past tense (`profile.evicted`), *fields* JSON-ready."""
        self._ring.put({"time": _now(), "name": name, **fields})

    def recent(self, count: int | None = None) -> list[dict[str, Any]]:
        """The last *count* records, oldest first."""
        return self._ring.recent(count)

    def follow(self, count: int = 0) -> AsyncGenerator[dict[str, Any], None]:
        """The last *count* records, then each new one."""
        return self._ring.follow(count)


class LineLog:
    """The last lines of the daemon's log, as they were written, for `llmd-ctl logs`."""

    def __init__(self, size: int = LINES_KEPT) -> None:
        self._ring: Ring[str] = Ring(size)

    def write(self, line: str) -> None:
        """Keep a line."""
        self._ring.put(line)

    def recent(self, count: int | None = None) -> list[str]:
        """The last *count* lines, oldest first."""
        return self._ring.recent(count)

    def follow(self, count: int = 0) -> AsyncGenerator[str, None]:
        """The last *count* lines, then each new one."""
        return self._ring.follow(count)


def configure(
    level: str, *, log_file: Path | None, stream: TextIO | None = None, quiet: bool = False
) -> LineLog:
    """Set up structlog and the standard library's logging; returns the lines written from now on.

    Args:
        level: `debug`, `info`, `warning` or `error`.
        log_file: Also written there, as JSON lines: 0600, rotated at 4 MiB, four older ones kept.
            One that cannot be written is a warning.
        stream: Where the log goes, by default stderr: for people on a terminal, else JSON lines.
        quiet: Only warnings go there: launchd appends them to a file that it never rotates.

    May be called again; the earlier set-up is replaced.
    """
    stream = sys.stderr if stream is None else stream
    shared: list[structlog.types.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
    ]
    # Tracebacks without the variables in them: those are what clients say.
    for_people = partial(
        structlog.dev.ConsoleRenderer,
        pad_event_to=24,
        exception_formatter=structlog.dev.plain_traceback,
    )
    plain = _formatter(shared, for_people(colors=False))
    as_json = _formatter(
        shared,
        structlog.processors.ExceptionRenderer(ExceptionDictTransformer(show_locals=False)),
        _what_first,
        structlog.processors.JSONRenderer(),
    )
    coloured = for_people(colors=not os.environ.get("NO_COLOR"))

    lines = LineLog()
    handlers: list[logging.Handler] = [logging.StreamHandler(stream), _RingHandler(lines)]
    if quiet:
        handlers[0].setLevel(logging.WARNING)
    handlers[0].setFormatter(_formatter(shared, coloured) if stream.isatty() else as_json)
    handlers[1].setFormatter(plain)
    unwritable = ""
    if log_file is not None:
        try:
            private_directory(log_file.parent)
            handlers.append(_PrivateFileHandler(log_file))
            handlers[2].setFormatter(as_json)
        except OSError as error:
            unwritable = f"{log_file}: {error.strerror}"
    logging.raiseExceptions = False  # a full disk costs lines, and no traceback for each of them

    root = logging.getLogger()
    for old in root.handlers[:]:
        if getattr(old, "of_llmd", False):
            root.removeHandler(old)
            old.close()
    for handler in handlers:
        handler.of_llmd = True  # type: ignore[attr-defined]
        root.addHandler(handler)
    root.setLevel(level.upper())
    # asyncio says at this level which selector it uses; aiohttp and others have nothing to add.
    logging.getLogger("asyncio").setLevel(max(logging.INFO, root.level))

    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )
    if unwritable:
        remedy = "logs go to stderr; mend its owner and mode, or set LLMD_LOG_DIR, then restart"
        structlog.get_logger("llmd.log").warning("log.unwritable", file=unwritable, remedy=remedy)
    return lines


def _formatter(
    shared: list[structlog.types.Processor], *renderers: structlog.types.Processor
) -> structlog.stdlib.ProcessorFormatter:
    """A formatter for our lines and for those of libraries, which come through `logging`."""
    return structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=shared,
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *renderers],
    )


def _what_first(
    _logger: Any, _method: str, line: structlog.types.EventDict
) -> structlog.types.EventDict:
    """When and what, then the keys: people read these lines, too."""
    first = {key: line.pop(key) for key in ("timestamp", "level", "event") if key in line}
    return {**first, **line}


class _RingHandler(logging.Handler):
    """Keeps formatted lines in a `LineLog`; a traceback is several."""

    def __init__(self, lines: LineLog) -> None:
        super().__init__()
        self._lines = lines

    def emit(self, record: logging.LogRecord) -> None:
        for line in self.format(record).splitlines():
            self._lines.write(line)


class _PrivateFileHandler(logging.handlers.RotatingFileHandler):
    """A rotated file that only its owner may read; rotation keeps the mode."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, maxBytes=FILE_BYTES, backupCount=FILES_KEPT, encoding="utf-8")

    def _open(self) -> TextIOWrapper:
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
        fd = os.open(self.baseFilename, flags, 0o600)
        os.fchmod(fd, 0o600)
        return open(fd, "a", encoding="utf-8", errors="replace")  # noqa: PTH123


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
