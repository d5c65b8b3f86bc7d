"""What Ollama's clients ask before they chat: which models there are, and what they can do."""

from collections.abc import Sequence
from hashlib import sha256
from math import isfinite
from time import time
from typing import Any, Final

import msgspec

from llmd.errors import InvalidRequestError, LlmdError, UnsupportedError
from llmd.proxy.gate import ModelCard
from llmd.proxy.ollama.names import LATEST, find, timestamp, wanted
from llmd.proxy.peek import peek
from llmd.proxy.request import Request


API_VERSION: Final = "0.12.0"
"""Of Ollama, whose API this is: some clients refuse a server that says less than 0.6."""

RUNNING: Final = "Ollama is running"
"""What some clients look for in `GET /`."""

METHODS: Final = {
    "/api/tags": "GET, HEAD",
    "/api/ps": "GET, HEAD",
    "/api/version": "GET, HEAD",
    "/api/show": "POST",
    "/api/chat": "POST",
    "/api/generate": "POST",
    "/api/embed": "POST",
    "/api/embeddings": "POST",
    "/api/pull": "POST",
    "/api/push": "POST",
    "/api/create": "POST",
    "/api/copy": "POST",
    "/api/delete": "DELETE",
}
"""The paths there are, and what they take."""

_REMEDIES: Final = {
    "/api/embed": "use /v1/embeddings of a profile with `args: [--embeddings]`",
    "/api/embeddings": "use /v1/embeddings of a profile with `args: [--embeddings]`",
    "/api/pull": "run `llmd-ctl pull` with the name of a repository, then add a profile",
    "/api/push": "llmd uploads nothing",
    "/api/create": "run `llmd-ctl pull`, then add a profile to the configuration",
    "/api/copy": "give the profile another name with `aliases` in the configuration",
    "/api/delete": "remove the profile from the configuration; llmd deletes no weights",
}
_WORDS: Final = {
    "chat": "completion",
    "embeddings": "embedding",
    "tools": "tools",
    "vision": "vision",
    "reasoning": "thinking",
}
"""Ollama's words for capabilities."""

_HOLDING: Final = frozenset({"ready", "draining"})
_YEAR_S: Final = 365 * 86400


def answer(request: Request, cards: Sequence[ModelCard]) -> dict[str, Any]:
    """The document that answers *request*, whose path and method are in `METHODS`.

    Raises:
        UnsupportedError: It would change which models there are.
        ModelNotFoundError: It asks for one that is not there.
        InvalidRequestError: It does not say for which.
    """
    match request.head.path:
        case "/api/version":
            return {"version": API_VERSION}
        case "/api/tags":
            return {"models": [_tag(card) for card in cards]}
        case "/api/ps":
            return {"models": [_resident(card) for card in cards if card.state in _HOLDING]}
        case "/api/show":
            return _show(find(wanted(_document(request)), cards))
        case path:
            raise _refusal(path)


def _refusal(path: str) -> LlmdError:
    return UnsupportedError(f"llmd has no {path}", remedy=_REMEDIES[path])


def _document(request: Request) -> dict[str, Any]:
    peek(request.body)  # says what is wrong with it
    try:
        document: dict[str, Any] = msgspec.json.decode(request.body, type=dict[str, Any])
    except msgspec.DecodeError as error:
        raise InvalidRequestError(f"the request body cannot be read: {error}") from None
    return document


def _tag(card: ModelCard) -> dict[str, Any]:
    name = f"{card.name}{LATEST}"
    return {
        "name": name,
        "model": name,
        "modified_at": timestamp(card.since_s),
        "size": card.weights_bytes,
        # Ollama's digest is that of a manifest; clients only compare it.
        "digest": sha256(f"{card.name} {card.family} {card.weights_bytes}".encode()).hexdigest(),
        "details": _details(card),
    }


def _resident(card: ModelCard) -> dict[str, Any]:
    left_s = card.idle_out_s if isfinite(card.idle_out_s) else _YEAR_S
    tag = _tag(card)
    del tag["modified_at"]
    return {
        **tag,
        "size": card.held_bytes,
        "size_vram": card.held_bytes,
        "context_length": card.context or 0,
        "expires_at": timestamp(time() + left_s),
    }


def _show(card: ModelCard) -> dict[str, Any]:
    info: dict[str, Any] = {"general.architecture": card.family or "unknown"}
    if card.parameters:
        info["general.parameter_count"] = card.parameters
    if card.context:
        info[f"{card.family or 'unknown'}.context_length"] = card.context
    return {
        "modelfile": "",
        "parameters": f"num_ctx {card.context}" if card.context else "",
        "template": "",
        "details": _details(card),
        "model_info": info,
        "capabilities": [_WORDS[each] for each in card.capabilities if each in _WORDS],
        "modified_at": timestamp(card.since_s),
    }


def _details(card: ModelCard) -> dict[str, Any]:
    return {
        "parent_model": "",
        "format": card.format,
        "family": card.family,
        "families": [card.family] if card.family else [],
        "parameter_size": _short(card.parameters),
        "quantization_level": card.quantization,
    }


def _short(count: int) -> str:
    """*count* parameters as people say it: `8.0B`, `135M`."""
    for size, unit, digits in ((1e9, "B", 1), (1e6, "M", 0), (1e3, "K", 0)):
        if count >= size:
            return f"{count / size:.{digits}f}{unit}"
    return ""
