"""Checks that the readers of both dialects share; each names the field that is wrong."""

from collections.abc import Iterable, Mapping
from typing import Any, Final

from llmd.hosts.openai_body import RequestError


SAMPLING: Final = frozenset(
    {
        "chat_template_kwargs",
        "frequency_context_size",
        "frequency_penalty",
        "logit_bias",
        "max_tokens",
        "min_p",
        "num_draft_tokens",
        "presence_context_size",
        "presence_penalty",
        "repetition_context_size",
        "repetition_penalty",
        "seed",
        "stop",
        "stream",
        "temperature",
        "top_k",
        "top_p",
        "xtc_probability",
        "xtc_threshold",
    }
)
"""Fields that mean the same in a chat completion; a profile's `defaults` and `force` set them."""


def sampling_of(body: Mapping[str, Any]) -> dict[str, Any]:
    """Those fields of *body* that go into the chat completion as they are."""
    return {name: body[name] for name in SAMPLING & body.keys() if body[name] is not None}


def mapping(value: Any, where: str) -> Mapping[str, Any]:
    """*value*, which must be an object.

    Raises:
        RequestError: It is not.
    """
    if not isinstance(value, dict):
        raise RequestError(f"{where} must be an object", param=where)
    return value


def items(value: Any, where: str) -> list[Any]:
    """*value*, which must be a list; null is an empty one.

    Raises:
        RequestError: It is not.
    """
    if value is None:
        return []
    if not isinstance(value, list):
        raise RequestError(f"{where} must be a list", param=where)
    return value


def text(value: Any, where: str) -> str:
    """*value*, which must be a string.

    Raises:
        RequestError: It is not.
    """
    if not isinstance(value, str):
        raise RequestError(f"{where} must be a string", param=where)
    return value


def flag(value: Any, where: str) -> bool:
    """*value*, which must be true or false.

    Raises:
        RequestError: It is not.
    """
    if not isinstance(value, bool):
        raise RequestError(f"{where} must be true or false", param=where)
    return value


def object_of(body: Any) -> Mapping[str, Any]:
    """*body*, which must be a JSON object.

    Raises:
        RequestError: It is not.
    """
    if not isinstance(body, dict):
        raise RequestError("the body must be a JSON object")
    return body


def content_of(parts: Iterable[Mapping[str, Any]]) -> str | list[Mapping[str, Any]]:
    """*parts* of a message as chat completions have them: one text where there is no image."""
    parts = list(parts)
    if all(part["type"] == "text" for part in parts):
        return "".join(part["text"] for part in parts)
    return parts


def with_template(chat: dict[str, Any], **wishes: Any) -> None:
    """Put *wishes* about thinking into the template's arguments, unless the request did itself."""
    given = chat.get("chat_template_kwargs")
    if given is None or isinstance(given, dict):  # anything else is refused later
        chat["chat_template_kwargs"] = {**wishes, **(given or {})}


def function_tool(name: Any, description: Any, parameters: Any, where: str) -> dict[str, Any]:
    """A tool as chat completions have it.

    Raises:
        RequestError: It has no name, or its parameters are no JSON schema.
    """
    function: dict[str, Any] = {"name": text(name, f"{where}.name")}
    if isinstance(description, str):
        function["description"] = description
    function["parameters"] = {"type": "object", "properties": {}}
    if parameters is not None:
        function["parameters"] = mapping(parameters, f"{where}.parameters")
    return {"type": "function", "function": function}
