"""A request to `/api/chat` or `/api/generate`, as the chat completion that it asks for."""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec
from msgspec import Struct

from llmd.errors import InvalidRequestError
from llmd.proxy.gate import ModelCard
from llmd.proxy.head import Head
from llmd.proxy.ollama.history import messages_of
from llmd.proxy.ollama.names import find, wanted
from llmd.proxy.peek import look
from llmd.proxy.request import Request


CHAT: Final = "/v1/chat/completions"
TRANSLATED: Final = frozenset({"/api/chat", "/api/generate"})

_NO_JSON: Final = (b"content-type:", b"content-encoding:")
_NUMBERS: Final[Mapping[str, tuple[str, ...]]] = {
    "temperature": ("temperature",),
    "top_p": ("top_p",),
    "top_k": ("top_k",),
    "min_p": ("min_p",),
    "seed": ("seed",),
    "presence_penalty": ("presence_penalty",),
    "frequency_penalty": ("frequency_penalty",),
    # The engines have different names for these, and each overlooks the other's.
    "repeat_penalty": ("repeat_penalty", "repetition_penalty"),
    "repeat_last_n": ("repeat_last_n", "repetition_context_size"),
}
"""Options, and what they are called in chat completions. What else Ollama has (`num_ctx`, threads,
layers on the GPU) is the profile's to say."""

_ZERO: Final = re.compile(r"0+(\.0*)?(ms|s|m|h)?")
_LEVELS: Final = ("low", "medium", "high", "max")


class Question(Struct, frozen=True):
    """What is asked, and how it is to be answered.

    Attributes:
        request: For the engine.
        model: As the client wrote it; its answers say the same.
        generate: Whether it is `/api/generate`'s answer that is wanted.
        streamed: Line by line.
        thinking: Whether the client wants to see reasoning.
        purpose: What is asked for beside an answer: `load`, `unload`, or nothing.
    """

    request: Request
    model: str
    generate: bool
    streamed: bool
    thinking: bool
    purpose: str = ""


def read(request: Request, cards: Sequence[ModelCard]) -> Question:
    """What *request* asks for.

    A request without any message is how Ollama's clients load a model, or with `keep_alive: 0`
    unload it. The first gets a short prompt of its own. The second is understood, and nothing is
    unloaded: others may be using it.

    Raises:
        InvalidRequestError: Something in it is not of its kind, or is nothing that can be done.
        ModelNotFoundError: It asks for a model that is not there.
    """
    look(request, CHAT)  # says what is wrong with it, if it is no JSON object
    body = _document(request.body)
    model = wanted(body)
    card = find(model, cards)
    generate = request.head.path == "/api/generate"
    streamed, think = body.get("stream"), body.get("think")
    if streamed is not None and not isinstance(streamed, bool):
        raise InvalidRequestError("stream must be true or false", param="stream")
    messages = _prompt(body) if generate else messages_of(body.get("messages"))
    purpose = ""
    if not messages:
        purpose = "unload" if _is_zero(body.get("keep_alive")) else "load"
    chat: dict[str, Any] = {
        "model": card.name,
        "messages": messages or [{"role": "user", "content": "a"}],
        "stream": True,
        "stream_options": {"include_usage": True},
        **_options(body.get("options")),
        **_format(body.get("format")),
        **_think(think),
    }
    if purpose:
        chat["max_tokens"] = 1
    elif tools := body.get("tools"):
        if not isinstance(tools, list) or not all(isinstance(tool, dict) for tool in tools):
            raise InvalidRequestError("tools must be a list of objects", param="tools")
        chat["tools"] = tools
    return Question(
        request=_for_engine(request, msgspec.json.encode(chat)),
        model=model,
        generate=generate,
        streamed=streamed is not False,
        thinking=think is not False,
        purpose=purpose,
    )


def _document(body: bytes | bytearray) -> dict[str, Any]:
    try:
        document: dict[str, Any] = msgspec.json.decode(body, type=dict[str, Any])
    except msgspec.DecodeError:
        # What only Python's parser takes: NaN, and half an emoji, which becomes a question mark.
        document = json.loads(body)
        text = json.dumps(document, ensure_ascii=False).encode("utf-8", "replace")
        document = json.loads(text)
    return document


def _for_engine(request: Request, body: bytes) -> Request:
    """*request* with another path and *body*, which is JSON whatever the client called its own."""
    sent, head = request.head, Head(request.head.method, CHAT.encode())
    head.forward = [line for line in sent.forward if not line.lower().startswith(_NO_JSON)] + [
        b"Content-Type: application/json"
    ]
    head.fields = {**sent.fields, b"content-type": b"application/json"}
    return Request(head, len(body), body)


def _prompt(body: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The messages of `/api/generate`."""
    for name, why in (
        ("raw", "prompts past the chat template go to /v1/completions"),
        ("template", "the chat template is the model's own"),
        ("suffix", "text is not filled in; send a prompt"),
        ("context", "no context was ever given out; use /api/chat and send the conversation"),
    ):
        if body.get(name):
            raise InvalidRequestError(why, param=name)
    prompt, system = body.get("prompt") or "", body.get("system") or ""
    if not isinstance(prompt, str) or not isinstance(system, str):
        raise InvalidRequestError("prompt and system must be strings", param="prompt")
    if not prompt and not body.get("images"):
        return []
    message = {"role": "user", "content": prompt, "images": body.get("images")}
    return messages_of([*([{"role": "system", "content": system}] if system else ()), message])


def _options(options: Any) -> dict[str, Any]:
    if options is None:
        return {}
    if not isinstance(options, dict):
        raise InvalidRequestError("options must be an object", param="options")
    found: dict[str, Any] = {}
    for option, names in _NUMBERS.items():
        value = options.get(option)
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise InvalidRequestError(f"{option} must be a number", param=f"options.{option}")
        found.update(dict.fromkeys(names, value))
    limit = options.get("num_predict")
    if isinstance(limit, int) and not isinstance(limit, bool):
        if limit > 0:  # less means: as far as it goes
            found["max_tokens"] = limit
    elif limit is not None:
        raise InvalidRequestError("num_predict must be a number", param="options.num_predict")
    if (stop := options.get("stop")) is not None:
        found["stop"] = stop
    return found


def _format(wish: Any) -> dict[str, Any]:
    if wish in (None, ""):
        return {}
    if wish == "json":
        return {"response_format": {"type": "json_object"}}
    if not isinstance(wish, dict):
        raise InvalidRequestError("format must be `json` or a JSON schema", param="format")
    schema = {"name": "answer", "strict": True, "schema": wish}
    return {"response_format": {"type": "json_schema", "json_schema": schema}}


def _think(think: Any) -> dict[str, Any]:
    match think:
        case None:
            return {}
        case bool():
            return {"chat_template_kwargs": {"enable_thinking": think}}
        case str() if think in _LEVELS:
            level = {"enable_thinking": True, "reasoning_effort": think}
            return {"chat_template_kwargs": level}
        case _:
            raise InvalidRequestError(
                f"think must be true, false or one of {', '.join(_LEVELS)}", param="think"
            )


def _is_zero(keep_alive: Any) -> bool:
    """Whether *keep_alive*, seconds or a duration like `5m`, is none at all."""
    if isinstance(keep_alive, str):
        return _ZERO.fullmatch(keep_alive) is not None
    return keep_alive == 0 and keep_alive is not False
