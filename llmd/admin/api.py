"""The admin API's routes: what each request means, and what it answers.

    curl --unix-socket "$(llmd-ctl --json status | jq -r .socket_path)" http://localhost/v1/status

A client that hangs up ends its own streams (events, logs). It does not undo a command: a load,
unload or reload goes on, because an administrator asked for it; only the report is lost.
"""

import asyncio
import math
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import AbstractContextManager, suppress
from typing import Any, Final, Protocol, TypeVar

import msgspec

from llmd.admin import wire
from llmd.admin.failures import error_body
from llmd.admin.names import find_profile
from llmd.admin.operator import Operator
from llmd.admin.web import web
from llmd.errors import InvalidRequestError, TooLargeError


T = TypeVar("T")
S = TypeVar("S", bound=wire.Wire)
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

MAX_BODY_BYTES: Final = 64 * 1024
DEFAULT_LINES: Final = 200
MAX_LINES: Final = 100_000
_MAX_STAGES_WAITING: Final = 64
_FLAGS: Final = {"1": True, "true": True, "": True, "0": False, "false": False}


class Commands(Protocol):
    """What handlers need of the server that runs them."""

    def begin(self, work: Coroutine[Any, Any, T]) -> asyncio.Future[T]:
        """Run *work* to its end, whatever becomes of the client that asked for it."""

    def streaming(self) -> AbstractContextManager[None]:
        """The calling handler streams: it is cancelled when the server closes, and may finish."""

    @property
    def closing(self) -> bool:
        """The server closes: a cancelled stream says good-bye instead of breaking off."""


class AdminApi:
    """The handlers. Errors are raised, and rendered by the server."""

    def __init__(self, operator: Operator, commands: Commands) -> None:
        self._operator = operator
        self._commands = commands

    def routes(self) -> list[tuple[str, str, Handler]]:
        """The whole API: method, path, handler."""
        return [
            ("GET", "/v1/status", self.status),
            ("GET", "/v1/profiles", self.profiles),
            ("POST", "/v1/profiles/{profile}/load", self.load),
            ("POST", "/v1/profiles/{profile}/unload", self.unload),
            ("POST", "/v1/profiles/{profile}/pin", self.pin),
            ("POST", "/v1/profiles/{profile}/unpin", self.unpin),
            ("GET", "/v1/profiles/{profile}/plan", self.plan),
            ("GET", "/v1/profiles/{profile}/logs", self.profile_logs),
            ("GET", "/v1/logs", self.daemon_logs),
            ("GET", "/v1/events", self.events),
            ("POST", "/v1/unload", self.unload_all),
            ("POST", "/v1/reload", self.reload),
            ("POST", "/v1/restart", self.restart),
            ("POST", "/v1/stop", self.stop),
            ("GET", "/metrics", self.metrics),
        ]

    # --- reading ---------------------------------------------------------------------------------

    async def status(self, _request: web.Request) -> web.StreamResponse:
        """Everything, now."""
        return _json(self._operator.status())

    async def profiles(self, _request: web.Request) -> web.StreamResponse:
        """The profiles, in file order."""
        return _json(wire.Profiles(profiles=tuple(self._operator.profiles())))

    async def plan(self, request: web.Request) -> web.StreamResponse:
        """What a load would do."""
        return _json(self._operator.plan(self._profile(request)))

    async def metrics(self, _request: web.Request) -> web.StreamResponse:
        """Prometheus text."""
        return web.Response(
            body=self._operator.metrics().encode(),
            headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"},
        )

    async def events(self, request: web.Request) -> web.StreamResponse:
        """Decision records, one JSON object per line."""
        options = _stream_options(request)
        records = self._operator.events(**options)
        return await self._stream(request, wire.NDJSON, records, msgspec.json.encode)

    async def profile_logs(self, request: web.Request) -> web.StreamResponse:
        """The log of a profile's host, as text."""
        return await self._logs(request, self._profile(request))

    async def daemon_logs(self, request: web.Request) -> web.StreamResponse:
        """The daemon's own log, as text."""
        return await self._logs(request, None)

    async def _logs(self, request: web.Request, name: str | None) -> web.StreamResponse:
        lines = self._operator.logs(name, **_stream_options(request))
        return await self._stream(
            request, "text/plain", lines, lambda line: line.encode(errors="replace")
        )

    # --- commands --------------------------------------------------------------------------------

    async def load(self, request: web.Request) -> web.StreamResponse:
        """Make a profile resident; a client that accepts NDJSON is told how far it is."""
        name = self._profile(request)
        wanted = await _body(request, wire.LoadRequest)
        if wanted.ttl_s is not None and wanted.ttl_s != "never" and not wanted.ttl_s > 0:
            raise InvalidRequestError(
                "`ttl_s` must be more than 0", param="ttl_s", remedy='or write "never"'
            )
        ttl_s = math.inf if wanted.ttl_s == "never" else wanted.ttl_s
        feed = _ProgressFeed()
        work = self._operator.load(name, pin=wanted.pin, ttl_s=ttl_s, progress=feed.put)
        if wire.NDJSON not in request.headers.get("Accept", ""):
            return _json(await self._carry_out(work))
        settled = self._commands.begin(_settle(work, feed))
        events = _load_events(settled, feed)
        return await self._stream(request, wire.NDJSON, events, msgspec.json.encode)

    async def unload(self, request: web.Request) -> web.StreamResponse:
        """Drain and unload one profile."""
        name = self._profile(request)
        await _body(request, wire.NoOptions)
        return _json(await self._carry_out(self._operator.unload(name)))

    async def unload_all(self, request: web.Request) -> web.StreamResponse:
        """Drain and unload every resident."""
        await _body(request, wire.NoOptions)
        return _json(await self._carry_out(self._operator.unload_all()))

    async def pin(self, request: web.Request) -> web.StreamResponse:
        """Keep a profile from being evicted."""
        return await self._set_pinned(request, pinned=True)

    async def unpin(self, request: web.Request) -> web.StreamResponse:
        """Let a profile be evicted again."""
        return await self._set_pinned(request, pinned=False)

    async def _set_pinned(self, request: web.Request, *, pinned: bool) -> web.StreamResponse:
        name = self._profile(request)
        await _body(request, wire.NoOptions)
        self._operator.pin(name, pinned=pinned)
        return _json(wire.PinReport(profile=name, pinned=pinned))

    async def reload(self, request: web.Request) -> web.StreamResponse:
        """Apply the configuration file again."""
        await _body(request, wire.NoOptions)
        return _json(await self._carry_out(self._operator.reload()))

    async def restart(self, request: web.Request) -> web.StreamResponse:
        """Begin to drain and re-execute."""
        await _body(request, wire.NoOptions)
        return _json(await self._carry_out(self._operator.restart()), status=202)

    async def stop(self, request: web.Request) -> web.StreamResponse:
        """Begin to drain and exit."""
        await _body(request, wire.NoOptions)
        pid = self._operator.status().pid
        self._operator.stop()
        return _json(wire.StopReport(pid=pid), status=202)

    # --- shared ----------------------------------------------------------------------------------

    def _profile(self, request: web.Request) -> str:
        """The name of the profile that the path means."""
        return find_profile(request.match_info["profile"], self._operator.profiles()).name

    async def _carry_out(self, work: Coroutine[Any, Any, T]) -> T:
        return await asyncio.shield(self._commands.begin(work))

    async def _stream(
        self,
        request: web.Request,
        content_type: str,
        items: AsyncIterator[T],
        encode: Callable[[T], bytes],
    ) -> web.StreamResponse:
        """Answer with one line for each item, as it comes.

        The headers go out at once, so that a follower knows it is connected before anything
        happens. An error after that becomes the last line. A client that hangs up cancels the
        handler; a server that closes ends the stream, so that the end differs from a cut.
        """
        response = web.StreamResponse(headers={"Content-Type": f"{content_type}; charset=utf-8"})
        with self._commands.streaming(), suppress(ConnectionError):
            await response.prepare(request)
            try:
                async for item in items:
                    await response.write(encode(item) + b"\n")
            except asyncio.CancelledError:
                if not self._commands.closing:
                    raise
            except ConnectionError:
                raise
            except Exception as error:  # noqa: BLE001  # rendered, and logged when unexpected
                body = error_body(error)
                await response.write(msgspec.json.encode(body) + b"\n")
            finally:
                close = getattr(items, "aclose", None)
                if close is not None:
                    await close()
            await response.write_eof()
        return response


class _ProgressFeed:
    """Carries progress from a load to its follower.

    A follower that reads slowly gets the newest fraction of each stage, so that what waits is
    bounded however long the load.
    """

    def __init__(self) -> None:
        self._waiting: deque[tuple[str, float | None]] = deque(maxlen=_MAX_STAGES_WAITING)
        self._changed = asyncio.Event()
        self._closed = False

    def put(self, stage: str, fraction: float | None) -> None:
        """Say how far it is."""
        if self._waiting and self._waiting[-1][0] == stage:
            self._waiting.pop()
        self._waiting.append((stage, fraction))
        self._changed.set()

    def close(self) -> None:
        """Nothing follows."""
        self._closed = True
        self._changed.set()

    async def __aiter__(self) -> AsyncIterator[tuple[str, float | None]]:
        while True:
            while self._waiting:
                yield self._waiting.popleft()
            if self._closed:
                return
            await self._changed.wait()
            self._changed.clear()


async def _settle(
    work: Coroutine[Any, Any, wire.LoadReport], feed: _ProgressFeed
) -> wire.LoadEvent:
    """How the load ended."""
    try:
        return wire.LoadEvent(event="done", report=await work)
    except Exception as error:  # noqa: BLE001  # rendered, and logged when unexpected
        return wire.LoadEvent(event="error", error=error_body(error).error)
    finally:
        feed.close()


async def _load_events(
    settled: asyncio.Future[wire.LoadEvent], feed: _ProgressFeed
) -> AsyncIterator[wire.LoadEvent]:
    """Progress, then how it ended."""
    async for stage, fraction in feed:
        yield wire.LoadEvent(event="progress", stage=stage, fraction=fraction)
    yield await asyncio.shield(settled)


def _json(answer: wire.Wire, *, status: int = 200) -> web.Response:
    return web.Response(
        body=msgspec.json.encode(answer) + b"\n", status=status, content_type=wire.JSON
    )


async def _body(request: web.Request, kind: type[S]) -> S:
    """The request's body as *kind*; none at all stands for an empty object.

    Raises:
        InvalidRequestError: It is no JSON, or does not fit.
        TooLargeError: It is larger than any command needs.
    """
    try:
        text = await request.read()
    except web.HTTPRequestEntityTooLarge as error:
        raise TooLargeError(f"the body is larger than {MAX_BODY_BYTES} bytes") from error
    try:
        return msgspec.json.decode(text or b"{}", type=kind)
    except msgspec.ValidationError as error:
        raise InvalidRequestError(f"the body does not fit: {error}") from error
    except msgspec.DecodeError as error:
        raise InvalidRequestError(f"the body is no JSON: {error}") from error


def _stream_options(request: web.Request) -> dict[str, Any]:
    """`follow` and `lines` of the query string.

    Raises:
        InvalidRequestError: A value makes no sense, or there is something else.
    """
    for key in request.query:
        if key not in {"follow", "lines"}:
            raise InvalidRequestError(
                f"no parameter is called {key[:80]!r}",
                param=key[:80],
                remedy="there are follow and lines",
            )
    follow = request.query.get("follow", "0").lower()
    if follow not in _FLAGS:
        raise InvalidRequestError("`follow` is 0 or 1", param="follow")
    lines = request.query.get("lines", str(DEFAULT_LINES))
    numeric = lines.isascii() and lines.isdigit() and len(lines) <= len(str(MAX_LINES))
    if not numeric or int(lines) > MAX_LINES:
        raise InvalidRequestError(f"`lines` is a number from 0 to {MAX_LINES}", param="lines")
    return {"follow": _FLAGS[follow], "lines": int(lines)}
