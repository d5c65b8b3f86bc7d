"""A question to a profile's port, synchronously: sending it, and reading what comes back."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.client import HTTPConnection, HTTPException, HTTPResponse
from typing import Any

import click
import msgspec

from llmd.admin import asking, wire
from llmd.admin.names import find_profile


Address = tuple[str, int]
"""Host and TCP port."""


@contextmanager
def ask(
    address: Address, request: dict[str, Any], *, path: str = asking.CHAT_PATH
) -> Iterator[HTTPResponse]:
    """Send *request*; leaving closes the connection, which cancels what is not finished.

    Raises:
        AnsweredError: The port or the engine refused.
        PortClosedError: Nobody listens.
        CutShortError: The connection broke.
    """
    host, port = address
    connection = HTTPConnection(host, port)
    try:
        response = _send(connection, path, msgspec.json.encode(request))
        if response.status >= 400:
            raise asking.refusal(response.read(), response.status)
        yield response
    except ConnectionRefusedError as error:
        raise asking.port_closed(host, port) from error
    except BrokenPipeError:
        raise  # our own stdout is closed; of the connection, `_send` makes it a reset
    except (OSError, HTTPException) as error:
        raise asking.connection_broke(port, error) from error
    finally:
        connection.close()


def ask_whole(
    address: Address, request: dict[str, Any], *, path: str = asking.CHAT_PATH
) -> dict[str, Any]:
    """The answer to *request* as the one JSON document that it is.

    Raises:
        LlmdError: As `ask` says; `CutShortError` also when it is no JSON object.
    """
    with ask(address, request, path=path) as response:
        body = response.read()
    try:
        return msgspec.json.decode(body, type=dict[str, Any])
    except msgspec.DecodeError as error:
        shown = " ".join(body[:80].decode(errors="replace").split())
        raise asking.CutShortError(f"the answer is no JSON object: {shown}") from error


def events(response: HTTPResponse, comment: Callable[[str], None]) -> Iterator[dict[str, Any]]:
    """The JSON objects of an event stream, until `[DONE]`.

    Raises:
        AnsweredError: The stream ended with an error.
        CutShortError: The stream ended before that, or is none.
    """
    for raw in response:
        line = asking.read_line(raw)
        if line.comment is not None:
            comment(line.comment)
        elif line.event is not None:
            yield line.event
        elif line.done:
            return
    raise asking.cut_short()


def streamed(request: dict[str, Any]) -> dict[str, Any]:
    """*request*, asking for a stream with usage at its end."""
    return request | {"stream": True, "stream_options": {"include_usage": True}}


def _send(connection: HTTPConnection, path: str, body: bytes) -> HTTPResponse:
    try:
        connection.connect()
        connection.request("POST", path, body, asking.headers())
        return connection.getresponse()
    except BrokenPipeError as error:
        raise ConnectionResetError(*error.args) from error


def choose(wanted: str | None, profiles: tuple[wire.Profile, ...]) -> wire.Profile:
    """The profile *wanted*, or the one that is ready, or the only one.

    Raises:
        ModelNotFoundError: No profile is called so.
        UsageError: None is named, and several could be meant.
    """
    if wanted is not None:
        return find_profile(wanted, profiles)
    ready = [profile for profile in profiles if profile.state == "ready"]
    found = ready if len(ready) == 1 else profiles
    if len(found) == 1:
        return found[0]
    names = ", ".join(profile.name for profile in profiles)
    raise click.UsageError(f"say with -p whom to ask: {names}")
