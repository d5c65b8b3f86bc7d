"""OpenAI's Responses as a chat completion: what a request says, in the other words."""

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


_NEEDS_A_STORE: Final = {
    "previous_response_id": "responses are not stored here; send the whole conversation as input",
    "conversation": "conversations are not stored here; send the whole conversation as input",
    "background": "responses are not stored here; send the request without background",
    "prompt": "prompts are not stored here; send instructions and input",
}
_ROLES: Final = ("user", "assistant", "system", "developer")
_TEXTS: Final = ("input_text", "output_text", "text", "reasoning_text", "summary_text")


def chat_of(body: Any) -> dict[str, Any]:
    """The chat completion that *body*, a request to `/v1/responses`, asks for.

    Raises:
        RequestError: Something in it is not of its kind, or is nothing that can be done here.
    """
    body = object_of(body)
    for name, why in _NEEDS_A_STORE.items():
        if body.get(name):
            raise RequestError(why, param=name)
    chat = sampling_of(body)
    if body.get("max_output_tokens") is not None:
        chat["max_tokens"] = body["max_output_tokens"]
    if body.get("stream") is not None:
        chat["stream"] = flag(body["stream"], "stream")
    effort = mapping(body.get("reasoning") or {}, "reasoning").get("effort")
    if effort is not None:
        wanted = text(effort, "reasoning.effort") != "none"
        levels = {"reasoning_effort": effort} if wanted else {}
        with_template(chat, enable_thinking=wanted, **levels)
    chat["messages"] = _messages(body)
    tools = _tools(items(body.get("tools"), "tools"))
    if tools:
        chat["tools"] = tools
        if body.get("tool_choice") is not None:
            chat["tool_choice"] = _tool_choice(body["tool_choice"])
    return chat


def _messages(body: Mapping[str, Any]) -> list[dict[str, Any]]:
    given = body.get("input")
    if isinstance(given, str):
        given = [{"role": "user", "content": given}]
    given = items(given, "input")
    if not given:
        raise RequestError("input must be a text or a list that is not empty", param="input")
    messages: list[dict[str, Any]] = []
    if body.get("instructions") is not None:
        instructions = text(body["instructions"], "instructions")
        messages.append({"role": "system", "content": instructions})
    for n, each in enumerate(given):
        where = f"input[{n}]"
        _add(messages, mapping(each, where), where)
    return messages


def _add(messages: list[dict[str, Any]], item: Mapping[str, Any], where: str) -> None:
    """Put *item* behind *messages*; what an assistant said in several items is one message."""
    match item.get("type", "message"):
        case "message":
            role = item.get("role")
            if role not in _ROLES:
                raise RequestError(
                    "role must be user, assistant, system or developer", param=f"{where}.role"
                )
            content = content_of(_parts(item.get("content"), f"{where}.content"))
            if role == "assistant":
                said = _open_turn(messages)
                said["content"] = f"{said['content']}{content}" if said["content"] else content
            else:
                messages.append({"role": role, "content": content})
        case "reasoning":
            thoughts = _thoughts(item, where)
            if thoughts:
                _open_turn(messages)["reasoning_content"] = thoughts
        case "function_call":
            function = {
                "name": text(item.get("name"), f"{where}.name"),
                "arguments": text(item.get("arguments"), f"{where}.arguments"),
            }
            call_id = text(item.get("call_id"), f"{where}.call_id")
            calls = _open_turn(messages).setdefault("tool_calls", [])
            calls.append({"id": call_id, "type": "function", "function": function})
        case "function_call_output":
            messages.append(
                {
                    "role": "tool",
                    "tool_call_id": text(item.get("call_id"), f"{where}.call_id"),
                    "content": content_of(_parts(item.get("output"), f"{where}.output")),
                }
            )
        case kind:
            raise RequestError(f"items of type {kind} are not supported", param=where)


def _open_turn(messages: list[dict[str, Any]]) -> dict[str, Any]:
    """The assistant's message at the end of *messages*; put there if it is not."""
    if not messages or messages[-1]["role"] != "assistant":
        messages.append({"role": "assistant", "content": ""})
    return messages[-1]


def _thoughts(item: Mapping[str, Any], where: str) -> str:
    """The text of a reasoning item: its content, else its summary."""
    for field in ("content", "summary"):
        parts = list(_parts(item.get(field) or [], f"{where}.{field}"))
        if parts:
            return "".join(part.get("text", "") for part in parts)
    return ""


def _parts(content: Any, where: str) -> Iterator[dict[str, Any]]:
    """The parts of a message as chat completions have them."""
    if isinstance(content, str):
        yield {"type": "text", "text": content}
        return
    if not isinstance(content, list):
        raise RequestError(f"{where} must be a string or a list of parts", param=where)
    for n, each in enumerate(content):
        part = mapping(each, f"{where}[{n}]")
        kind = part.get("type")
        if kind in _TEXTS:
            yield {"type": "text", "text": text(part.get("text"), f"{where}[{n}].text")}
        elif kind == "refusal":
            yield {"type": "text", "text": text(part.get("refusal"), f"{where}[{n}].refusal")}
        elif kind == "input_image" and part.get("image_url") is not None:
            url = text(part["image_url"], f"{where}[{n}].image_url")
            yield {"type": "image_url", "image_url": {"url": url}}
        else:
            raise RequestError(f"parts of type {kind} are not supported", param=f"{where}[{n}]")


def _tools(given: list[Any]) -> list[dict[str, Any]]:
    """The client's own functions; what runs at OpenAI is not offered, since nobody has it."""
    found = []
    for n, each in enumerate(given):
        where = f"tools[{n}]"
        tool = mapping(each, where)
        if tool.get("type") == "function":
            found.append(
                function_tool(
                    tool.get("name"), tool.get("description"), tool.get("parameters"), where
                )
            )
    return found


def _tool_choice(choice: Any) -> Any:
    if choice in ("auto", "none", "required"):
        return choice
    choice = mapping(choice, "tool_choice")
    if choice.get("type") == "function":
        name = text(choice.get("name"), "tool_choice.name")
        return {"type": "function", "function": {"name": name}}
    return "auto"  # of tools that are not there
