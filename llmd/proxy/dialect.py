"""One dialect of errors, whatever the engine: OpenAI's error object, as a body or as an event."""

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from llmd.errors import LlmdError


JSON_LINES: Final = b"Content-Type: application/json\r\n"

_TYPES: Final = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}
_CODES: Final = {
    400: "invalid_request",
    401: "unauthorized",
    403: "forbidden",
    404: "not_found",
    405: "method_not_allowed",
    408: "request_timeout",
    413: "too_large",
    422: "invalid_request",
    429: "rate_limited",
    501: "unsupported",
    503: "unavailable",
}
_KNOWN_TYPES: Final = {
    # llama.cpp's name for what clients look for in order to shorten the conversation.
    "exceed_context_size_error": "context_length_exceeded",
}
_ANTHROPIC: Final = frozenset(
    {
        "api_error",
        "authentication_error",
        "invalid_request_error",
        "not_found_error",
        "overloaded_error",
        "permission_error",
        "rate_limit_error",
        "request_too_large",
    }
)
_MAX_TEXT: Final = 2000
"""Characters kept of an error that is plain text or a page."""


def error_lines(error: LlmdError) -> bytes:
    """The headers of *error* as a response."""
    lines = JSON_LINES
    if error.retry_after_s is not None:
        lines += b"Retry-After: %d\r\n" % max(1, round(error.retry_after_s))
    if error.status == 401:
        lines += b"WWW-Authenticate: Bearer\r\n"
    return lines


def render(document: Mapping[str, Any], path: str) -> bytes:
    """*document*, an error object, as the body of a response to *path*."""
    return msgspec.json.encode(_for_path(document, path))


def error_event(document: Mapping[str, Any], path: str) -> bytes:
    """*document*, an error object, as the last event of a stream on *path*.

    Streams of `/v1/messages` and `/v1/responses` have named events; their clients know `error`.
    """
    data = b"data: %b\n\n" % render(document, path)
    if path.endswith(("/messages", "/responses")):
        return b"event: error\n" + data
    return data


def _for_path(document: Mapping[str, Any], path: str) -> Mapping[str, Any]:
    """What clients of other dialects look for; OpenAI's object stays as it is, but for Ollama's."""
    if path.startswith("/api/"):
        return {"error": document["error"]["message"]}
    if path.endswith(("/messages", "/messages/count_tokens")):
        error = document["error"]
        kind = _anthropic(error.get("type", "server_error"))
        return {"type": "error", **document, "error": {**error, "type": kind}}
    if path.endswith("/responses"):
        error = document["error"]
        return {"type": "error", "code": error["code"], "message": error["message"], **document}
    return document


def _anthropic(kind: str) -> str:
    """*kind* of error in Anthropic's words, of which its clients know no others."""
    if kind in _ANTHROPIC:
        return kind
    return "api_error" if kind == "server_error" else "invalid_request_error"


def normalise(status: int, body: bytes) -> dict[str, Any]:
    """An engine's error *body*, of whatever shape, as OpenAI's error object.

    Known shapes: OpenAI's own; `{"error": "text"}` (mlx_lm); `{"detail": …}` (FastAPI);
    `{"message": …}` (vLLM of old); plain text and pages. Further fields of an error object stay.
    """
    try:
        found = msgspec.json.decode(body)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        found = body.decode("utf-8", "replace").strip()[:_MAX_TEXT]
    fields: dict[str, Any] = {}
    if isinstance(found, dict):
        inner = found.get("error", found.get("detail", found))
        if isinstance(inner, dict):
            fields, message = inner, inner.get("message", inner.get("detail", ""))
        else:
            message = inner
    else:
        message = found
    kind, code = fields.get("type"), fields.get("code")
    if not isinstance(kind, str) or not kind:
        kind = _TYPES.get(status, "invalid_request_error" if status < 500 else "server_error")
    if not isinstance(code, str) or not code:
        code = _KNOWN_TYPES.get(kind) or _CODES.get(status)
    return {
        "error": {
            **fields,
            "message": _text(message) or f"the engine answered with status {status}",
            "type": kind,
            "code": code or ("invalid_request" if status < 500 else "engine_error"),
            "param": fields.get("param") if isinstance(fields.get("param"), str) else None,
            "remedy": None,
        }
    }


def _text(message: Any) -> str:
    """*message* as a sentence; FastAPI's list of complaints as one for each."""
    if isinstance(message, str):
        return message
    if isinstance(message, list):
        return "; ".join(filter(None, map(_text, message)))
    if isinstance(message, dict) and isinstance(message.get("msg"), str):
        loc = message.get("loc")
        where = ".".join(map(str, loc)) if isinstance(loc, list) else ""
        return f"{where}: {message['msg']}" if where else message["msg"]
    return msgspec.json.encode(message).decode() if message else ""
