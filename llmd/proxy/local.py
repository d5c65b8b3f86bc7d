"""What a port answers itself: health, the list of models, OPTIONS. None of it causes a load."""

from http import HTTPStatus
from typing import Any, Final
from urllib.parse import parse_qs

import msgspec
from msgspec import Struct

from llmd.errors import InvalidRequestError, LlmdError, ModelNotFoundError
from llmd.proxy import ollama
from llmd.proxy.dialect import JSON_LINES, render
from llmd.proxy.gate import Gate, ModelCard
from llmd.proxy.guard import Guard
from llmd.proxy.paths import JSON_ENDPOINTS, NotFoundError
from llmd.proxy.request import Request


_TEXT: Final = b"Content-Type: text/plain; charset=utf-8\r\n"
_NEVER_THERE: Final = frozenset({"/favicon.ico", "/robots.txt"})
_READ: Final = frozenset({b"GET", b"HEAD"})


class Answer(Struct, frozen=True):
    """A complete response: header lines without framing, and the body."""

    status: int
    lines: bytes
    body: bytes = b""


class MethodNotAllowedError(InvalidRequestError):
    """The path is there, but not for this method."""

    code, status = "method_not_allowed", HTTPStatus.METHOD_NOT_ALLOWED


def answer(request: Request, *, port: int, gate: Gate, guard: Guard) -> Answer | None:
    """The answer to an admitted *request* that needs no engine; None when it needs one."""
    method, path = request.head.method, request.head.path
    if method == b"OPTIONS":
        return Answer(204, guard.preflight(request.head))
    if method == b"POST" and path.startswith("/v1/chat/"):
        return None  # the path nearly all requests take
    if path.startswith("/api/") and gate.is_gateway(port):
        return _ollama(request, gate.models(port))
    name = request.head.name
    if name in JSON_ENDPOINTS:
        return None if method == b"POST" else _wrong_method(path, "POST, OPTIONS")
    if name == "/v1/health":
        return _health(request, gate.health(port)) if method in _READ else _wrong_method(path)
    if name == "/v1/models" or name.startswith("/v1/models/"):
        if method not in _READ:
            return _wrong_method(path)
        return _models(name[len("/v1/models/") :], gate.models(port))
    if path == "/":
        if method not in _READ:
            return _wrong_method(path)
        return _welcome(port, gate.models(port), gateway=gate.is_gateway(port))
    if path in _NEVER_THERE:
        # Browsers ask for these on their own; no model should be loaded to say no.
        return _refuse(NotFoundError(f"there is no {path} here"), path)
    return None


def _ollama(request: Request, cards: list[ModelCard]) -> Answer | None:
    """The answer in Ollama's words; None for a chat, which needs an engine."""
    path, method = request.head.path, request.head.method.decode("latin-1")
    allowed = ollama.METHODS.get(path)
    if allowed is None:
        return _refuse(NotFoundError(f"there is no {path} here"), path)
    if method not in allowed.split(", "):
        return _wrong_method(path, f"{allowed}, OPTIONS")
    if path in ollama.TRANSLATED:
        return None
    try:
        return Answer(200, JSON_LINES, msgspec.json.encode(ollama.answer(request, cards)))
    except LlmdError as error:
        return _refuse(error, path)


def _health(request: Request, health: dict[str, Any]) -> Answer:
    wanted = parse_qs(request.head.query).get("ready", ["0"])[-1].lower() in {"1", "true", "yes"}
    serves = health.get("status") != "failed" and (not wanted or health.get("ready"))
    status = 200 if serves else 503
    return Answer(status, JSON_LINES, msgspec.json.encode(health))


def _models(wanted: str, cards: list[ModelCard]) -> Answer:
    if not wanted:
        listed = {"object": "list", "data": [_describe(card) for card in cards]}
        return Answer(200, JSON_LINES, msgspec.json.encode(listed))
    for card in cards:
        if wanted == card.name or wanted in card.aliases:
            return Answer(200, JSON_LINES, msgspec.json.encode(_describe(card)))
    names = ", ".join(card.name for card in cards) or "none"
    error = ModelNotFoundError(f"there is no model {wanted!r} here", remedy=f"known: {names}")
    return _refuse(error, "/v1/models")


def _describe(card: ModelCard) -> dict[str, Any]:
    return {
        "id": card.name,
        "object": "model",
        "created": card.since_s,
        "owned_by": "llmd",
        "state": card.state,
        "context_length": card.context,  # as OpenRouter calls it
        "max_model_len": card.context,  # as vLLM does
        "capabilities": card.capabilities,
        "aliases": card.aliases,
    }


def _welcome(port: int, cards: list[ModelCard], *, gateway: bool) -> Answer:
    names = ", ".join(card.name for card in cards) or "no profile yet"
    text = (
        f"llmd serves {names} on this port.\n"
        f"OpenAI clients: base URL http://127.0.0.1:{port}/v1\n"
        "GET /health, GET /v1/models, POST /v1/chat/completions\n"
    )
    if gateway:
        text += f"{ollama.RUNNING}, as far as its clients can tell: http://127.0.0.1:{port}\n"
    return Answer(200, _TEXT, text.encode())


def _wrong_method(path: str, allowed: str = "GET, HEAD, OPTIONS") -> Answer:
    refused = _refuse(MethodNotAllowedError(f"{path} takes {allowed} only"), path)
    return Answer(405, refused.lines + f"Allow: {allowed}\r\n".encode(), refused.body)


def _refuse(error: LlmdError, path: str) -> Answer:
    return Answer(error.status, JSON_LINES, render(error.to_openai(), path))
