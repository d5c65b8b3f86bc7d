"""Anthropic's Messages as a chat completion: what a request says, in the other words."""

from collections.abc import Iterator, Mapping
from typing import Any, Final

from llmd.hosts.dialects.reading import (
    content_of,
    flag,
    function_tool,
    items,
    mapping,
    object_of,
    sampling_of,
    text,
    with_template,
)
from llmd.hosts.openai_body import RequestError


_BILLING: Final = "x-anthropic-billing-header:"
"""Begins a line that Claude Code puts first and that differs each time: no prompt would ever be
remembered. It is for Anthropic's accountants, not for a model."""


def chat_of(body: Any) -> dict[str, Any]:
    """The chat completion that *body*, a request to `/v1/messages`, asks for.

    Raises:
        RequestError: Something in it is not of its kind, or is nothing that can be done here.
    """
    body = object_of(body)
    chat = sampling_of(body)
    if stops := items(body.get("stop_sequences"), "stop_sequences"):
        chat["stop"] = [text(stop, f"stop_sequences[{n}]") for n, stop in enumerate(stops)]
    if body.get("stream") is not None:
        chat["stream"] = flag(body["stream"], "stream")
    thinking = mapping(body.get("thinking") or {}, "thinking")
    if kind := thinking.get("type"):
        with_template(chat, enable_thinking=kind != "disabled")
    given = items(body.get("messages"), "messages")
    if not given:
        raise RequestError("messages must be a list that is not empty", param="messages")
    chat["messages"] = [
        *_system(body.get("system")),
        *(each for n, message in enumerate(given) for each in _turn(message, f"messages[{n}]")),
    ]
    tools = _tools(items(body.get("tools"), "tools"))
    if tools:
        chat["tools"] = tools
        if body.get("tool_choice") is not None:
            chat["tool_choice"] = _tool_choice(mapping(body["tool_choice"], "tool_choice"))
    return chat


def _system(system: Any) -> Iterator[dict[str, Any]]:
    if isinstance(system, str):
        system = [{"type": "text", "text": system}]
    parts = [
        _part(block, f"system[{n}]", only_text=True)
        for n, block in enumerate(items(system, "system"))
    ]
    content = content_of(part for part in parts if not part["text"].startswith(_BILLING))
    if content:
        yield {"role": "system", "content": content}


def _turn(message: Any, where: str) -> Iterator[dict[str, Any]]:
    """The chat messages that *message* becomes: one, or more where it holds results of tools."""
    message = mapping(message, where)
    role, content = message.get("role"), message.get("content")
    if role not in ("user", "assistant", "system"):
        raise RequestError("role must be user or assistant", param=f"{where}.role")
    if isinstance(content, str):
        content = [{"type": "text", "text": content}]
    elif not isinstance(content, list):
        raise RequestError("content must be a string or a list of blocks", param=f"{where}.content")
    blocks = [
        (mapping(block, f"{where}.content[{n}]"), f"{where}.content[{n}]")
        for n, block in enumerate(content)
    ]
    if role == "assistant":
        yield _assistant(blocks)
    else:
        # Reminders amid the conversation are the client's; most templates take system text only
        # at the beginning.
        yield from _user(blocks)


def _user(blocks: list[tuple[Mapping[str, Any], str]]) -> Iterator[dict[str, Any]]:
    parts: list[dict[str, Any]] = []
    results = False
    for block, where in blocks:
        if block.get("type") != "tool_result":
            parts.append(_part(block, where))
            continue
        if parts:
            yield {"role": "user", "content": content_of(parts)}
            parts = []
        results = True
        yield {
            "role": "tool",
            "tool_call_id": text(block.get("tool_use_id"), f"{where}.tool_use_id"),
            "content": _result(block.get("content"), where),
        }
    if parts or not results:
        yield {"role": "user", "content": content_of(parts)}


def _result(content: Any, where: str) -> str | list[Mapping[str, Any]]:
    """What a tool answered."""
    if content is None or isinstance(content, str):
        return content or ""
    return content_of(
        _part(block, f"{where}.content[{n}]")
        for n, block in enumerate(items(content, f"{where}.content"))
    )


def _assistant(blocks: list[tuple[Mapping[str, Any], str]]) -> dict[str, Any]:
    parts: list[dict[str, Any]] = []
    thoughts: list[str] = []
    calls: list[dict[str, Any]] = []
    for block, where in blocks:
        match block.get("type"):
            case "thinking":
                thoughts.append(text(block.get("thinking"), f"{where}.thinking"))
            case "redacted_thinking":
                pass  # encrypted by somebody else
            case "tool_use":
                calls.append(_call(block, where))
            case _:
                parts.append(_part(block, where))
    message: dict[str, Any] = {"role": "assistant", "content": content_of(parts)}
    if thoughts:
        message["reasoning_content"] = "".join(thoughts)
    if calls:
        message["tool_calls"] = calls
    return message


def _call(block: Mapping[str, Any], where: str) -> dict[str, Any]:
    return {
        "id": text(block.get("id"), f"{where}.id"),
        "type": "function",
        "function": {
            "name": text(block.get("name"), f"{where}.name"),
            "arguments": dict(mapping(block.get("input", {}), f"{where}.input")),
        },
    }


def _part(block: Any, where: str, *, only_text: bool = False) -> dict[str, Any]:
    """A block as a part of a chat message."""
    block = mapping(block, where)
    kind = block.get("type")
    if kind == "text":
        return {"type": "text", "text": text(block.get("text"), f"{where}.text")}
    source = block.get("source")
    if kind == "document" and isinstance(source, dict) and source.get("type") == "text":
        return {"type": "text", "text": text(source.get("data"), f"{where}.source.data")}
    if kind == "image" and not only_text:
        return {"type": "image_url", "image_url": {"url": _image(source, where)}}
    raise RequestError(f"blocks of type {kind} are not supported", param=where)


def _image(source: Any, where: str) -> str:
    """A data: URL, or whatever address the client wants fetched; `edit_body` refuses the latter."""
    source = mapping(source, f"{where}.source")
    match source.get("type"):
        case "base64":
            media_type = text(source.get("media_type"), f"{where}.source.media_type")
            data = text(source.get("data"), f"{where}.source.data")
            return f"data:{media_type};base64,{data}"
        case "url":
            return text(source.get("url"), f"{where}.source.url")
        case kind:
            raise RequestError(f"sources of type {kind} are not supported", param=where)


def _tools(given: list[Any]) -> list[dict[str, Any]]:
    """The client's own tools; what runs at Anthropic is not offered, since nobody here has it."""
    found = []
    for n, each in enumerate(given):
        where = f"tools[{n}]"
        tool = mapping(each, where)
        if tool.get("type") in (None, "custom"):
            found.append(
                function_tool(
                    tool.get("name"), tool.get("description"), tool.get("input_schema"), where
                )
            )
    return found


def _tool_choice(choice: Mapping[str, Any]) -> Any:
    match choice.get("type"):
        case "auto" | "none" as kind:
            return kind
        case "any":
            return "required"
        case "tool":
            name = text(choice.get("name"), "tool_choice.name")
            return {"type": "function", "function": {"name": name}}
        case _:
            raise RequestError(
                "tool_choice must be of type auto, any, tool or none", param="tool_choice"
            )
