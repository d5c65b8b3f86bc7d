"""Messages as Ollama's clients write them, in the words of chat completions."""

import json
import re
from collections.abc import Mapping
from typing import Any, Final

from llmd.errors import InvalidRequestError


_ROLES: Final = ("system", "user", "assistant", "tool")
_BASE64: Final = re.compile(r"[A-Za-z0-9+/\s]+={0,2}\s*")
_KINDS: Final = {"/9j/": "jpeg", "iVBOR": "png", "R0lG": "gif", "UklG": "webp"}
"""How pictures begin in base64."""


def messages_of(given: Any) -> list[dict[str, Any]]:
    """*given*, the `messages` of a request; none is an empty list.

    Ollama's calls of tools have no ids, and results name the tool at most; here each result
    answers the first open call of that name, else the first.

    Raises:
        InvalidRequestError: Something in it is not of its kind.
    """
    if given is None:
        return []
    if not isinstance(given, list):
        raise InvalidRequestError("messages must be a list", param="messages")
    messages: list[dict[str, Any]] = []
    open_calls: list[dict[str, Any]] = []
    count = 0
    for n, each in enumerate(given):
        where = f"messages[{n}]"
        if not isinstance(each, dict) or each.get("role") not in _ROLES:
            raise InvalidRequestError(
                f"a message is an object with a role of {', '.join(_ROLES)}", param=where
            )
        message: dict[str, Any] = {"role": each["role"], "content": _content(each, where)}
        if isinstance(each.get("thinking"), str) and each["role"] == "assistant":
            message["reasoning_content"] = each["thinking"]
        if each.get("tool_calls"):
            calls = message["tool_calls"] = _calls(each["tool_calls"], count, where)
            open_calls = list(calls)
            count += len(calls)
        if each["role"] == "tool":
            message["tool_call_id"] = _answered(each, open_calls)
        messages.append(message)
    return messages


def _content(message: Mapping[str, Any], where: str) -> str | list[dict[str, Any]]:
    content, images = message.get("content"), message.get("images")
    if content is not None and not isinstance(content, str):
        raise InvalidRequestError("content must be a string", param=f"{where}.content")
    content = content or ""
    if images is None:
        return content
    if not isinstance(images, list):
        raise InvalidRequestError("images must be a list", param=f"{where}.images")
    parts = [
        {"type": "image_url", "image_url": {"url": _image(image, f"{where}.images[{n}]")}}
        for n, image in enumerate(images)
    ]
    return [{"type": "text", "text": content}, *parts] if parts else content


def _image(image: Any, where: str) -> str:
    """A data: URL; an image is base64 and nothing else, so that nothing is ever fetched for it."""
    if not isinstance(image, str) or not _BASE64.fullmatch(image):
        raise InvalidRequestError("an image must be base64", param=where)
    kind = next((kind for start, kind in _KINDS.items() if image.startswith(start)), "png")
    return f"data:image/{kind};base64,{image}"


def _calls(given: Any, count: int, where: str) -> list[dict[str, Any]]:
    if not isinstance(given, list):
        raise InvalidRequestError("tool_calls must be a list", param=f"{where}.tool_calls")
    calls = []
    for n, each in enumerate(given):
        function = each.get("function") if isinstance(each, dict) else None
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            raise InvalidRequestError(
                "a call has a function with a name", param=f"{where}.tool_calls[{n}]"
            )
        arguments = function.get("arguments")
        calls.append(
            {
                "id": f"call_{count + n}",
                "type": "function",
                "function": {
                    "name": function["name"],
                    "arguments": arguments
                    if isinstance(arguments, str)
                    else json.dumps(arguments or {}, ensure_ascii=False),
                },
            }
        )
    return calls


def _answered(message: Mapping[str, Any], open_calls: list[dict[str, Any]]) -> str:
    """The id of the call that *message* is the result of; it is open no more."""
    name = message.get("tool_name", message.get("name"))
    named = (call for call in open_calls if call["function"]["name"] == name)
    call = next(named, open_calls[0] if open_calls else None)
    if call is None:
        return "call_unknown"
    open_calls.remove(call)
    found: str = call["id"]
    return found
