"""The admin API, served on its Unix socket."""

import asyncio
import os
import sys
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, Self, TypeVar

import llmd
from llmd.admin import wire
from llmd.admin.api import MAX_BODY_BYTES, AdminApi
from llmd.admin.failures import guard, render_failures, request_id
from llmd.admin.operator import Operator
from llmd.admin.socket import BACKLOG, ControlSocket
from llmd.admin.web import web
from llmd.errors import ShuttingDownError


_KEEP_FILE: Final[dict[str, Any]] = {"cleanup_socket": False} if sys.version_info >= (3, 13) else {}
"""The socket's file is `ControlSocket`'s business."""

T = TypeVar("T")

_GOODBYE_S: Final = 5.0
"""What a handler that is still at work gets when the server closes."""


class AdminServer:
    """Serves *operator* on *control*; an async context manager.

        control = ControlSocket(path)     # first of all: it refuses a second daemon
        async with AdminServer(operator, control):
            ...

    On exit it stops listening, ends streams properly, gives other handlers a moment, cancels what
    commands remain, removes the socket file and releases its lock.
    """

    def __init__(
        self, operator: Operator, control: ControlSocket, *, uid: int | None = None
    ) -> None:
        """Prepare; nothing is served yet. *uid* may talk to us, by default our own."""
        self._control = control
        self._commands = asyncio.TaskGroup()
        self._running: set[asyncio.Task[None]] = set()
        self._streams: set[asyncio.Task[Any]] = set()
        self._closing = False
        app = web.Application(
            middlewares=[render_failures, guard(os.getuid() if uid is None else uid)],
            client_max_size=MAX_BODY_BYTES,
        )
        app.router.add_routes(
            web.route(method, path, handler)
            for method, path, handler in AdminApi(operator, self).routes()
        )
        app.on_response_prepare.append(_sign)
        self._runner = web.AppRunner(
            app, access_log=None, handler_cancellation=True, shutdown_timeout=_GOODBYE_S
        )

    @property
    def path(self) -> Path:
        """Where it listens."""
        return self._control.path

    @property
    def closing(self) -> bool:
        """The server closes: a cancelled stream says good-bye instead of breaking off."""
        return self._closing

    async def __aenter__(self) -> Self:
        await self._commands.__aenter__()
        await self._runner.setup()
        await _ControlSite(self._runner, self._control).start()
        return self

    async def __aexit__(self, *_error: object) -> None:
        self._closing = True
        try:
            for stream in self._streams:
                stream.cancel()
            await self._runner.cleanup()
        finally:
            self._control.close()
            for task in self._running:
                task.cancel()
            # Without the error of the body, which would come out wrapped in a group.
            await self._commands.__aexit__(None, None, None)

    def begin(self, work: Coroutine[Any, Any, T]) -> asyncio.Future[T]:
        """Run *work* to its end, whatever becomes of the client that asked for it.

        Its exception belongs to whoever awaits the future; when nobody does any more it is dropped,
        and never ends the group.

        Raises:
            ShuttingDownError: The server closes.
        """
        if self._closing:
            work.close()
            raise ShuttingDownError("llmd is stopping", remedy="start it again with `llmd serve`")
        outcome: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        outcome.add_done_callback(lambda done: done.cancelled() or done.exception())

        async def run() -> None:
            try:
                outcome.set_result(await work)
            except asyncio.CancelledError:
                outcome.cancel()
                raise
            except Exception as error:  # noqa: BLE001  # raised where it is awaited
                outcome.set_exception(error)

        task = self._commands.create_task(run())
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return outcome

    @contextmanager
    def streaming(self) -> Iterator[None]:
        """The calling handler streams: it is cancelled when the server closes, and may finish."""
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("only a handler streams")
        self._streams.add(task)
        try:
            yield
        finally:
            self._streams.discard(task)


class _ControlSite(web.BaseSite):
    """A site on a socket that is bound already; aiohttp's own would go through `create_server`."""

    def __init__(self, runner: web.AppRunner, control: ControlSocket) -> None:
        super().__init__(runner, backlog=BACKLOG)
        self._control = control

    @property
    def name(self) -> str:
        return f"http://unix:{self._control.path}:"

    async def start(self) -> None:
        await super().start()
        protocols = self._runner.server
        if protocols is None:
            raise RuntimeError("the runner is not set up")
        self._server = await asyncio.get_running_loop().create_unix_server(
            # A duplicate: the server closes what it is given, and another image may need it.
            protocols,
            sock=self._control.sock.dup(),
            backlog=self._backlog,
            **_KEEP_FILE,
        )


async def _sign(_request: web.Request, response: web.StreamResponse) -> None:
    """Every answer names its sender, the sender's version, and the request's number."""
    response.headers["Server"] = "llmd"
    response.headers[wire.VERSION_HEADER] = llmd.__version__
    response.headers[wire.REQUEST_ID_HEADER] = request_id.get()
