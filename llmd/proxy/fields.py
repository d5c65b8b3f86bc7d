"""Fields of a request that are llama.cpp's own, and not all for the clients of a port to set.

`id_slot` chooses whose saved prompt is thrown away; others are what its server tells itself of a
chat, and one wrong number in `grammar_triggers` ends it. They are taken out. A `grammar` that
cannot be used would be written into the engine's log, and so would a `json_schema` of a plain
completion, which llama.cpp reads otherwise than that of a chat; a `repeat_last_n` of two thousand
million takes as much memory at once. These are refused.
"""

import json
import re
from typing import Any, Final

import msgspec

from llmd.errors import InvalidRequestError
from llmd.proxy import grammars


_TAKEN_OUT: Final = (
    "id_slot",
    "chat_format",
    "chat_parser",
    "generation_prompt",
    "grammar_lazy",
    "grammar_triggers",
    "message_spans",
    "preserved_tokens",
)
_BOUNDED: Final = ("repeat_last_n", "dry_penalty_last_n")
_MOST_TOKENS: Final = 2**20
_NAMES: Final = (*_TAKEN_OUT, *_BOUNDED, "grammar", "json_schema")
_SIGNS: Final = tuple(f'"{name}"'.encode() for name in _NAMES)
_DISGUISED: Final = re.compile(rb"\\u00[2-7]")
_COMPLETIONS: Final = frozenset({"/v1/completions", "/v1/completion", "/v1/infill"})
_OBJECT: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])
_ANY: Final = msgspec.json.Decoder()
_ENCODER: Final = msgspec.json.Encoder()


def check(path: str, body: bytes | bytearray) -> bytes | bytearray:
    """*body*, a JSON object for *path*, without what its sender may not set.

    Raises:
        InvalidRequestError: It has a grammar or schema that the engine had better not get.
    """
    if not any(sign in body for sign in _SIGNS) and not disguised(body):
        return body
    try:
        document: dict[str, Any] = _OBJECT.decode(body)
        write = _ENCODER.encode
    except (msgspec.MsgspecError, RecursionError):
        document, write = _slowly(body), _dump
    _check_grammar(document.get("grammar"))
    if path in _COMPLETIONS and _value(document.get("json_schema")) is not None:
        raise InvalidRequestError(
            "a plain completion cannot follow a JSON Schema here",
            remedy="ask /v1/chat/completions with `response_format`, or send a `grammar`",
            param="json_schema",
        )
    for name in _BOUNDED:
        value = _value(document.get(name))
        if isinstance(value, int | float) and value > _MOST_TOKENS:
            raise InvalidRequestError(f"{name} is larger than any context", param=name)
    kept = {name: value for name, value in document.items() if name not in _TAKEN_OUT}
    return body if len(kept) == len(document) else write(kept)


def disguised(body: bytes | bytearray) -> bool:
    r"""Whether a name may be written otherwise than it reads: `"id\u005fslot"` is `id_slot`."""
    return b"\\u00" in body and _DISGUISED.search(body) is not None


def _check_grammar(value: Any) -> None:
    text = _value(value)
    said = grammars.fault(text) if isinstance(text, str) and text else ""
    if said:
        raise InvalidRequestError(
            f"the grammar cannot be used: {said}",
            remedy="write GBNF without extensions; llama.cpp's grammars/README.md has its rules",
            param="grammar",
        )


def _value(value: Any) -> Any:
    if not isinstance(value, msgspec.Raw):
        return value
    try:
        return _ANY.decode(value)
    except (msgspec.MsgspecError, RecursionError):
        return _loads(bytes(value))


def _slowly(body: bytes | bytearray) -> dict[str, Any]:
    """What only Python's parser takes (see `peek`)."""
    document = _loads(bytes(body))
    if not isinstance(document, dict):
        raise InvalidRequestError("the request body must be a JSON object")
    return document


def _loads(text: bytes) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise InvalidRequestError("the request body is not valid JSON") from None


def _dump(document: dict[str, Any]) -> bytes:
    return json.dumps(document).encode()
