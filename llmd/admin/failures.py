"""Refusals and failures of the admin API, rendered in one place."""

import secrets
from contextvars import ContextVar
from http import HTTPStatus
from typing import Final

import msgspec
import structlog

from llmd.admin import wire
from llmd.admin.peer import peer_uid
from llmd.admin.web import Handler, Middleware, web
from llmd.errors import ForbiddenOriginError, InvalidRequestError, LlmdError, UnauthorizedError


request_id: Final = ContextVar("request_id", default="")
"""The number of the request that the current task serves."""

LOCAL_HOSTS: Final = frozenset({"", ".", "localhost", "llmd", "127.0.0.1", "[::1]"})
"""What a `Host` header may say; there is no name to get wrong on a Unix socket."""

_BROWSER_HEADERS: Final = ("Origin", "Referer")
_BROWSER_PREFIX: Final = "sec-fetch-"
_log: Final = structlog.get_logger("llmd.admin")


class NoSuchRouteError(InvalidRequestError):
    """The API has no such path."""

    status = HTTPStatus.NOT_FOUND


class WrongMethodError(InvalidRequestError):
    """The path is right and the method is not."""

    status = HTTPStatus.METHOD_NOT_ALLOWED


class InternalError(LlmdError):
    """A bug. Its story is in the log, under the id."""

    def __init__(self, number: str) -> None:
        super().__init__(
            f"something unexpected happened in llmd (request {number})",
            remedy="llmd-ctl logs tells what",
        )


def guard(uid: int) -> Middleware:
    """A middleware that lets only processes of user *uid* in, and no browser.

    The socket's mode keeps other users out already, root excepted; a peer's user id was fixed when
    it connected. A web page cannot open a Unix socket, but something that forwards to one might.
    """

    @web.middleware
    async def check(request: web.Request, handler: Handler) -> web.StreamResponse:
        transport = request.transport
        if transport is None:
            raise ConnectionResetError("the client hung up")
        if (peer := peer_uid(transport.get_extra_info("socket").fileno())) != uid:
            raise UnauthorizedError(
                f"user {peer} may not administer the llmd of user {uid}",
                remedy="run llmd-ctl as the user that runs llmd",
            )
        for name in request.headers:
            if name.title() in _BROWSER_HEADERS or name.lower().startswith(_BROWSER_PREFIX):
                raise ForbiddenOriginError(
                    f"a request with a {name} header comes from a web page, and is refused",
                    remedy="use llmd-ctl or curl --unix-socket",
                )
        host = request.headers.get("Host", "")
        name, colon, port = host.rpartition(":")
        if (name if colon and port.isdigit() else host).lower() not in LOCAL_HOSTS:
            raise ForbiddenOriginError(
                f"the Host header names {host[:80]!r}, which is not llmd",
                remedy="use http://localhost/",
            )
        return await handler(request)

    return check


@web.middleware
async def render_failures(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Turn whatever a handler raises into an answer, and number each request."""
    request_id.set(f"adm_{secrets.token_hex(6)}")  # each request has a task of its own
    try:
        return await handler(request)
    except ConnectionError:
        raise  # there is nobody to answer
    except web.HTTPException as error:
        return _render(_from_aiohttp(request, error))
    except Exception as error:  # noqa: BLE001  # rendered, and logged when unexpected
        return _render(error)


def error_body(error: Exception) -> wire.ErrorBody:
    """*error* as the API says it. What is no `LlmdError` is a bug: it goes to the log, whole."""
    return msgspec.convert(_known(error).to_openai(), wire.ErrorBody)


def _known(error: Exception) -> LlmdError:
    if isinstance(error, LlmdError):
        return error
    _log.error("admin_request.failed", request_id=request_id.get(), exc_info=error)
    return InternalError(request_id.get())


def _render(error: Exception) -> web.Response:
    known = _known(error)
    headers = {}
    if known.retry_after_s is not None:
        headers["Retry-After"] = str(max(1, round(known.retry_after_s)))
    return web.Response(
        body=msgspec.json.encode(error_body(known)) + b"\n",
        status=known.status,
        content_type=wire.JSON,
        headers=headers,
    )


def _from_aiohttp(request: web.Request, error: web.HTTPException) -> Exception:
    match error:
        case web.HTTPNotFound():
            return NoSuchRouteError(f"there is no {request.path[:80]}", remedy="try GET /v1/status")
        case web.HTTPMethodNotAllowed():
            allowed = ", ".join(sorted(error.allowed_methods))
            return WrongMethodError(
                f"{request.path[:80]} does not answer {request.method}", remedy=f"use {allowed}"
            )
        case _ if error.status < HTTPStatus.INTERNAL_SERVER_ERROR:
            return InvalidRequestError(f"the request is not understood: {error.reason}")
        case _:
            return error
