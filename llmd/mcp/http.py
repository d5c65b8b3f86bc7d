"""Streamable HTTP: the MCP server on a loopback port, for clients that do not start programs."""

import contextlib
import hmac
import os
import socket
from collections.abc import Iterator
from typing import Any, Final

import uvicorn
from mcp.server.lowlevel import Server
from mcp.server.transport_security import TransportSecuritySettings
from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from llmd.admin.asking import API_KEY_VARIABLE
from llmd.errors import PortInUseError


PATH: Final = "/mcp"
_LOOPBACK: Final = ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1"))
_MAX_BODY_BYTES: Final = 64 * 2**20
"""As large as the daemon's own `max_body`: a conversation may hold pictures."""
_CLOSE_S: Final = 1
"""Given to open streams at the end, in seconds."""


@contextlib.contextmanager
def bound(port: int) -> Iterator[list[socket.socket]]:
    """Sockets on *port* of the loopback addresses that this machine has; 0 picks a free one.

    Raises:
        PortInUseError: Somebody else listens there, or may not.
    """
    with contextlib.ExitStack() as stack:
        sockets: list[socket.socket] = []
        for family, host in _LOOPBACK:
            try:
                sock = stack.enter_context(socket.socket(family, socket.SOCK_STREAM))
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                sock.bind((host, port))
                sock.listen()  # now, so that whoever is told the address can use it
            except OSError as error:
                if sockets and family == socket.AF_INET6:
                    break  # no IPv6 here
                raise PortInUseError(
                    f"cannot listen on {host} port {port}: {error.strerror}",
                    remedy="choose another with `--http PORT`",
                ) from error
            sockets.append(sock)
            port = sock.getsockname()[1]
        yield sockets


async def serve(server: Server[Any], sockets: list[socket.socket]) -> None:
    """Serve *server* on *sockets* until SIGINT or SIGTERM.

    Only requests to this machine's own name, and none of other web pages, are let in: a page could
    otherwise reach the models through a name that it points here (DNS rebinding).
    """
    port = sockets[0].getsockname()[1]
    names = [f"{name}:{port}" for name in ("127.0.0.1", "localhost", "[::1]")]
    app: ASGIApp = server.streamable_http_app(
        streamable_http_path=PATH,
        max_request_body_size=_MAX_BODY_BYTES,
        transport_security=TransportSecuritySettings(
            enable_dns_rebinding_protection=True,
            allowed_hosts=names,
            allowed_origins=[f"http://{name}" for name in names],
        ),
    )
    if key := os.environ.get(API_KEY_VARIABLE):
        app = _KeyGuard(app, key)
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        ws="none",
        lifespan="on",
        server_header=False,
        timeout_graceful_shutdown=_CLOSE_S,
    )
    await uvicorn.Server(config).serve(sockets=sockets)


class _KeyGuard:
    """Asks for the key that the server itself was given.

    Without it a program of another user, who has no key, could use the ports through this one.
    """

    def __init__(self, app: ASGIApp, key: str) -> None:
        self._app = app
        self._expected = f"Bearer {key}".encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            given = Headers(scope=scope).get("authorization", "").encode()
            if not hmac.compare_digest(given, self._expected):
                refusal = PlainTextResponse(
                    f"send the key of {API_KEY_VARIABLE} as a bearer token\n",
                    status_code=401,
                    headers={"WWW-Authenticate": "Bearer"},
                )
                await refusal(scope, receive, send)
                return
        await self._app(scope, receive, send)
