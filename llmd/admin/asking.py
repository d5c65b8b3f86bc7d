"""How a profile is asked on its own port: where that is, with which key, and what comes back.

For clients of the data plane that are llmd's own: `llmd-ctl query` and the MCP server.
"""

import os
from typing import Any, Final, NamedTuple

import msgspec

from llmd.admin import wire
from llmd.admin.client import AnsweredError
from llmd.errors import LlmdError


API_KEY_VARIABLE: Final = "LLMD_API_KEY"
CHAT_PATH: Final = "/v1/chat/completions"
_ANY_ADDRESS: Final = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104  # to dial, not to bind
_REASONING: Final = ("reasoning_content", "reasoning")


class PortClosedError(LlmdError):
    """Nobody answers on the profile's port, or the connection broke."""

    code = "port_closed"


class CutShortError(LlmdError):
    """The answer ended without its end."""

    code = "cut_short"


class Line(NamedTuple):
    """One line of an event stream, understood; at most one of these is set."""

    comment: str | None = None
    event: dict[str, Any] | None = None
    done: bool = False


def address_of(profile: wire.Profile, ports: tuple[wire.Port, ...]) -> tuple[str, int]:
    """Where the port of *profile* can be dialled from this machine."""
    listen = next((port.listen for port in ports if port.port == profile.port), ())
    host = listen[0] if listen else "127.0.0.1"
    return _ANY_ADDRESS.get(host, host), profile.port


def headers() -> dict[str, str]:
    """What every question carries; the key of LLMD_API_KEY, if there is one."""
    fields = {"Content-Type": wire.JSON, "Accept": f"text/event-stream, {wire.JSON}"}
    if key := os.environ.get(API_KEY_VARIABLE):
        fields["Authorization"] = f"Bearer {key}"
    return fields


def read_line(raw: bytes) -> Line:
    """What *raw*, a line of an event stream, says.

    Raises:
        CutShortError: It is an event and no JSON.
        AnsweredError: It is the error with which a stream ends that began well.
    """
    line = raw.decode(errors="replace").rstrip("\r\n")
    if line.startswith(":"):
        return Line(comment=line[1:].strip())
    if not line.startswith("data:"):
        return Line()
    data = line[5:].strip()
    if data == "[DONE]":
        return Line(done=True)
    try:
        event = msgspec.json.decode(data)
    except msgspec.DecodeError as error:
        raise CutShortError(f"the stream holds what is no JSON: {data[:80]}") from error
    if not isinstance(event, dict):
        return Line()
    if "error" in event:
        raise refusal(data.encode(), 200)
    return Line(event=event)


def reasoning_of(delta: dict[str, Any]) -> str:
    """The reasoning text in *delta*, under whichever name."""
    return next((delta[key] for key in _REASONING if delta.get(key)), "")


def cut_short() -> CutShortError:
    """Of a stream that ended without saying so."""
    return CutShortError("the answer was cut short", remedy="`llmd-ctl logs PROFILE` may tell why")


def port_closed(host: str, port: int) -> PortClosedError:
    """Of a connection that was refused."""
    return PortClosedError(f"nobody listens on {host} port {port}", remedy="see `llmd-ctl status`")


def connection_broke(port: int, error: Exception) -> CutShortError:
    """Of a connection that ended with *error*."""
    return CutShortError(
        f"the connection to port {port} broke: {error or type(error).__name__}",
        remedy="see `llmd-ctl status`",
    )


def refusal(body: bytes, status: int) -> AnsweredError:
    """The error that a port answered, as it said it."""
    try:
        detail = msgspec.json.decode(body, type=wire.ErrorBody).error
    except msgspec.DecodeError:
        text = " ".join(body[:200].decode(errors="replace").split())
        detail = wire.ErrorDetail(message=f"the port answered {status}: {text}")
    if detail.code == "unauthorized":
        # The port's own remedy is for those who write the request themselves.
        message = detail.message.removesuffix(f" ({detail.remedy})")
        remedy = f"put a key into {API_KEY_VARIABLE}"
        detail = msgspec.structs.replace(detail, message=message, remedy=remedy)
    return AnsweredError(detail, status)
