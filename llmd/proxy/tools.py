"""The tools that a request offers: made fit for the engine, and described in fewer words.

Chat completions have them as `{"type": "function", "function": {…, "parameters": SCHEMA}}`,
Responses without the inner object, Messages as `{…, "input_schema": SCHEMA}`. A schema for the
answer itself (`response_format`, and `json_schema`, llama.cpp's own) goes the same way into its
grammar; `text.format` and `output_config` it overlooks.

Only a body that names one of these is parsed, and of it only what changes is written anew: each
other tool, each message and each number keeps its bytes.
"""

import json
from collections import deque
from collections.abc import Callable
from typing import Any, Final

import msgspec

from llmd.proxy.fields import disguised
from llmd.proxy.gate import BodyEdits, Repair
from llmd.proxy.schemas import MOST_SCHEMAS, Schema, widen


_TOOLS: Final = b'"tools"'
_FORMATS: Final = (b'"response_format"', b'"json_schema"')

_MOST_TOLD: Final = 20
"""Of what was dropped from one tool."""
_NAME_CHARACTERS: Final = 200

_MAPS: Final = ("properties", "patternProperties", "$defs", "definitions")
_LISTS: Final = ("oneOf", "anyOf", "allOf", "items", "prefixItems")
_SINGLE: Final = ("items", "additionalProperties", "not", "if", "then", "else")

_OBJECT: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])
_LIST: Final = msgspec.json.Decoder(list[msgspec.Raw])
_ANY: Final = msgspec.json.Decoder()
_ENCODER: Final = msgspec.json.Encoder()


def concerned(edits: BodyEdits, body: bytes | bytearray) -> bool:
    """Whether `apply` could have anything to do; not even looks at *body* for most profiles."""
    if edits.tool_description_limit is not None and _TOOLS in body:
        return True
    return edits.widen_schemas and (
        _TOOLS in body or any(sign in body for sign in _FORMATS) or disguised(body)
    )


def apply(
    edits: BodyEdits, body: bytes | bytearray
) -> tuple[bytes | bytearray, tuple[Repair, ...]]:
    """*body* with its tools edited, and what was repaired; *body* itself when nothing changes.

    What has not the shape of a tool is left alone: the engine is the judge of it.
    """
    repairs: list[Repair] = []
    try:
        document: dict[str, Any] = _OBJECT.decode(body)
        changed = _edit(edits, document, _ANY.decode, repairs)
        return (_ENCODER.encode(document) if changed else body), tuple(repairs)
    except msgspec.ValidationError:
        return body, ()
    except (msgspec.DecodeError, RecursionError):
        repairs.clear()
    # What only Python's parser takes (see `peek`), and only its encoder writes.
    try:
        document = json.loads(body.decode())
        changed = isinstance(document, dict) and _edit(edits, document, _as_it_is, repairs)
        return (json.dumps(document).encode() if changed else body), tuple(repairs)
    except (ValueError, RecursionError):
        return body, ()


def _as_it_is(value: Any) -> Any:
    return value


def _edit(
    edits: BodyEdits, document: dict[str, Any], read: Callable[[Any], Any], repairs: list[Repair]
) -> bool:
    """Change *document*, whose values *read* makes readable; whether anything was changed."""
    changed = False
    tools: Any = document.get("tools")
    if isinstance(tools, msgspec.Raw):
        tools = _LIST.decode(tools) if bytes(tools).startswith(b"[") else None
    for at, unread in enumerate(tools if isinstance(tools, list) else ()):
        tool = read(unread)
        inner = tool.get("function", tool) if isinstance(tool, dict) else None
        if isinstance(inner, dict) and _edit_tool(edits, inner, repairs):
            tools[at] = tool
            document["tools"] = tools
            changed = True
    if not edits.widen_schemas:
        return changed
    if "response_format" in document:
        outer = read(document["response_format"])
        inner = outer.get("json_schema", outer) if isinstance(outer, dict) else None
        if isinstance(inner, dict) and _mend(inner, "schema", "response_format", repairs):
            document["response_format"] = outer
            changed = True
    if "json_schema" in document:
        holder = {"json_schema": read(document["json_schema"])}
        if _mend(holder, "json_schema", "json_schema", repairs):
            document |= holder
            changed = True
    return changed


def _edit_tool(edits: BodyEdits, tool: dict[str, Any], repairs: list[Repair]) -> bool:
    changed = False
    keyword = "input_schema" if "input_schema" in tool else "parameters"
    if edits.widen_schemas:
        name = tool.get("name")
        changed = _mend(tool, keyword, name if isinstance(name, str) else "", repairs)
    if edits.tool_description_limit is not None:
        changed |= _shorten(tool, edits.tool_description_limit)
        changed |= _shorten_all(tool.get(keyword), edits.tool_description_limit)
    return changed


def _mend(holder: dict[str, Any], keyword: str, name: str, repairs: list[Repair]) -> bool:
    """Widen the schema that *holder* has as *keyword*; whether anything was dropped from it."""
    schema = holder.get(keyword)
    if schema is None:
        return False
    if isinstance(schema, dict):
        dropped = widen(schema)
    else:
        holder[keyword] = {}
        dropped = ["#"]
    if dropped:
        told = tuple(where[:_NAME_CHARACTERS] for where in dropped[:_MOST_TOLD])
        repairs.append(Repair(name[:_NAME_CHARACTERS], told))
    return bool(dropped)


def _shorten_all(schema: Any, limit: int) -> bool:
    """Cut the descriptions in *schema*; a parameter that is called `description` is none."""
    changed = False
    waiting = deque([schema])
    looked_at = 0
    while waiting and looked_at < MOST_SCHEMAS:
        here: Schema = waiting.popleft()
        if not isinstance(here, dict):
            continue
        looked_at += 1
        changed |= _shorten(here, limit)
        for keyword in _MAPS:
            if isinstance(inside := here.get(keyword), dict):
                waiting.extend(inside.values())
        for keyword in _LISTS:
            if isinstance(inside := here.get(keyword), list):
                waiting.extend(inside)
        waiting.extend(here.get(keyword) for keyword in _SINGLE)
    return changed


def _shorten(holder: dict[str, Any], limit: int) -> bool:
    text = holder.get("description")
    if not isinstance(text, str) or len(text) <= limit:
        return False
    holder["description"] = cut(text, limit)
    return True


def cut(text: str, limit: int) -> str:
    """The first words of *text*, in at most *limit* characters together with the ellipsis."""
    if len(text) <= limit:
        return text
    head = text[: limit - 1]
    if not (text[limit - 1].isspace() or head[-1:].isspace()):
        whole = head.rsplit(None, 1)[0]
        # One long word, or a text without spaces, is cut where it has to be.
        head = whole if len(whole) > limit // 2 else head
    return head.rstrip() + "…"
