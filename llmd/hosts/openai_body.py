"""Request bodies as mlx_lm.server understands them, from what OpenAI clients send.

Pure: a dict goes in, another comes out or an error that names the field. What mlx_lm.server would
act on and must not (other models, adapters, addresses to fetch) ends here.
"""

from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Any, Final


class RequestError(Exception):
    """A request that cannot be served, in the terms of OpenAI's error object."""

    def __init__(
        self,
        message: str,
        *,
        param: str | None = None,
        code: str = "invalid_request",
        status: HTTPStatus = HTTPStatus.BAD_REQUEST,
    ) -> None:
        super().__init__(message)
        self.param = param
        self.code = code
        self.status = status

    def to_openai(self) -> dict[str, Any]:
        """The error object of the response."""
        kind = (
            "invalid_request_error" if self.status < 500 or self.status == 501 else "server_error"
        )
        return {
            "error": {
                "message": str(self),
                "type": kind,
                "code": self.code,
                "param": self.param,
                "remedy": None,
            }
        }


_PINNED: Final = ("draft_model", "adapters")
"""Fields that name what to load; the profile has decided that."""

_NOT_FOR_TEMPLATES: Final = {
    "chat_template",  # a program, run while everybody else waits
    "tokenize",
    "tools",
    "messages",
    "conversation",
    "add_generation_prompt",
    "return_tensors",
    "return_dict",
    "tokenizer_kwargs",
}

_FLOATS: Final = ("xtc_probability", "xtc_threshold")


def edit_body(body: Any, *, chat: bool, profile: str) -> dict[str, Any]:
    """A copy of *body* that is safe to hand to mlx_lm.server's handler.

    Args:
        body: The parsed JSON.
        chat: Whether it is for chat completions rather than text completions.
        profile: What the response's `model` will say.

    Raises:
        RequestError: A field is of the wrong kind or asks for what must not be done.
    """
    if not isinstance(body, dict):
        raise RequestError("the body must be a JSON object")
    edited = {key: value for key, value in body.items() if value is not None}
    for name in _PINNED:
        edited.pop(name, None)
    edited["model"] = profile
    if edited.pop("n", 1) != 1:
        raise RequestError("this engine gives one choice per request", param="n")
    for name in ("max_tokens", "max_completion_tokens", "seed"):
        if edited.get(name) == -1:  # llama.cpp's way to say: the default
            del edited[name]
    if isinstance(seed := edited.get("seed"), int):
        edited["seed"] = seed % 2**64
    for name in _FLOATS:
        if isinstance(edited.get(name), int):
            edited[name] = float(edited[name])
    _edit_stop(edited)
    options = edited.pop("stream_options", None)
    if isinstance(options, dict):
        edited["stream_options"] = {"include_usage": bool(options.get("include_usage"))}
    _check_template_kwargs(edited.get("chat_template_kwargs", {}))
    if chat:
        edited["messages"] = _messages(edited.get("messages"))
        _choose_tools(edited)
    else:
        _edit_text(edited)
    return edited


def _edit_stop(edited: dict[str, Any]) -> None:
    stop = edited.get("stop", [])
    if not isinstance(stop, str | list) or not all(isinstance(word, str) for word in stop):
        raise RequestError("stop must be a string or a list of strings", param="stop")
    edited["stop"] = [word for word in ([stop] if isinstance(stop, str) else stop) if word]


def _check_template_kwargs(given: Any) -> None:
    if not isinstance(given, dict):
        raise RequestError("chat_template_kwargs must be an object", param="chat_template_kwargs")
    if taken := _NOT_FOR_TEMPLATES & given.keys():
        raise RequestError(
            f"chat_template_kwargs cannot set {min(taken)}", param="chat_template_kwargs"
        )


def _choose_tools(edited: dict[str, Any]) -> None:
    """Offer the tools that `tool_choice` leaves; mlx_lm does not look at it.

    A call cannot be forced: `required` is as good as `auto`.
    """
    choice = edited.pop("tool_choice", None)
    if choice == "none":
        edited.pop("tools", None)
    elif isinstance(choice, Mapping) and isinstance(edited.get("tools"), list):
        wanted = _name_of(choice)
        named = [tool for tool in edited["tools"] if _name_of(tool) == wanted]
        if not named:
            raise RequestError(f"there is no tool {wanted!r} to choose", param="tool_choice")
        edited["tools"] = named


def _name_of(tool: Any) -> Any:
    function = tool.get("function") if isinstance(tool, Mapping) else None
    return function.get("name") if isinstance(function, Mapping) else None


def _edit_text(edited: dict[str, Any]) -> None:
    prompt = edited.get("prompt")
    if isinstance(prompt, list) and len(prompt) == 1:
        prompt = prompt[0]
    if not isinstance(prompt, str) or not prompt:
        raise RequestError("prompt must be one string that is not empty", param="prompt")
    edited["prompt"] = prompt
    logprobs = edited.get("logprobs")
    if isinstance(logprobs, int) and not isinstance(logprobs, bool):
        edited["logprobs"] = True
        edited.setdefault("top_logprobs", logprobs)


def _messages(messages: Any) -> list[dict[str, Any]]:
    if not isinstance(messages, list) or not messages:
        raise RequestError("messages must be a list that is not empty", param="messages")
    return [_message(message, f"messages[{n}]") for n, message in enumerate(messages)]


def _message(message: Any, where: str) -> dict[str, Any]:
    if not isinstance(message, dict) or not isinstance(message.get("role"), str):
        raise RequestError("a message is an object with a role", param=where)
    content = message.get("content")
    if isinstance(content, list):
        for n, part in enumerate(content):
            _check_part(part, f"{where}.content[{n}]")
    elif content is not None and not isinstance(content, str):
        raise RequestError("content must be a string or a list of parts", param=f"{where}.content")
    if message["role"] == "developer":  # newer clients' word, which templates do not know
        return {**message, "role": "system"}
    return dict(message)


def _check_part(part: Any, where: str) -> None:
    if not isinstance(part, dict) or not isinstance(part.get("type"), str):
        raise RequestError("a part is an object with a type", param=where)
    if part["type"] == "text":
        if not isinstance(part.get("text"), str):
            raise RequestError("a text part needs a text", param=where)
        return
    url = part.get("image_url", part.get("image"))
    if isinstance(url, Mapping):
        url = url.get("url")
    if part["type"] not in ("image_url", "input_image", "image") or not isinstance(url, str):
        raise RequestError(f"parts of type {part['type']} are not supported", param=where)
    if not url.startswith("data:"):
        # The server would fetch it: from this machine, with its access to the local network.
        raise RequestError(
            "images must be sent in the request as data: URLs; addresses are not fetched",
            param=where,
        )


def param_of(message: str, body: Mapping[str, Any]) -> str | None:
    """The field that one of mlx_lm.server's messages is about: it begins with its name."""
    first: Callable[[str], str] = lambda text: text.split(maxsplit=1)[0] if text else ""  # noqa: E731
    name = {"requested_model": "model", "adapter": "adapters"}.get(first(message), first(message))
    return name if name in body else None
