"""What the tools take: the structs that check arguments, and the JSON Schemas that clients see."""

from typing import Annotated, Any, Literal, TypeVar

import msgspec
from msgspec import UNSET, Meta, UnsetType

from llmd.errors import InvalidRequestError


A = TypeVar("A", bound="Arguments")

_Profile = Annotated[str, Meta(description="A profile's name or alias; llmd_profiles lists them.")]


class Arguments(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The arguments of a tool. Unknown ones are refused: they are slips of the pen."""


class Nothing(Arguments, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A tool without arguments."""


class OneProfile(Arguments, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A tool that is about one profile."""

    profile: _Profile


class Message(msgspec.Struct, frozen=True, kw_only=True):
    """One message of a conversation; further fields go to the engine as they are."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: Annotated[
        str | list[dict[str, Any]], Meta(description="Text, or a list of OpenAI content parts.")
    ]


class Chat(Arguments, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A conversation to go on with. What is not set is left to the profile and its engine."""

    profile: _Profile
    messages: Annotated[
        list[Message], Meta(min_length=1, description="The conversation so far, oldest first.")
    ]
    max_tokens: Annotated[int, Meta(ge=1, description="Stop after so many tokens.")] | UnsetType = (
        UNSET
    )
    temperature: Annotated[float, Meta(ge=0, description="0 is greedy.")] | UnsetType = UNSET
    top_p: Annotated[float, Meta(gt=0, le=1)] | UnsetType = UNSET
    stop: (
        Annotated[str | list[str], Meta(description="Text at which the answer ends.")] | UnsetType
    ) = UNSET
    seed: int | UnsetType = UNSET
    presence_penalty: float | UnsetType = UNSET
    frequency_penalty: float | UnsetType = UNSET
    response_format: (
        Annotated[dict[str, Any], Meta(description="OpenAI's: a JSON Schema for the answer.")]
        | UnsetType
    ) = UNSET


def read(arguments: dict[str, Any] | None, kind: type[A]) -> A:
    """*arguments* as *kind*; a null stands for an argument that was left out.

    Raises:
        InvalidRequestError: They do not fit; says where.
    """
    try:
        return msgspec.convert(present(arguments), kind)
    except msgspec.ValidationError as error:
        raise InvalidRequestError(
            f"the arguments do not fit: {error}", remedy=f"the tool takes {_names(kind)}"
        ) from error


def present(arguments: dict[str, Any] | None) -> dict[str, Any]:
    """*arguments* without nulls: many clients send one for whatever is optional."""
    return {name: value for name, value in (arguments or {}).items() if value is not None}


def schema_of(kind: type[Arguments]) -> dict[str, Any]:
    """The JSON Schema of *kind*, without references: some clients cannot follow them."""
    whole = msgspec.json.schema(kind)
    definitions = whole.pop("$defs")
    schema: dict[str, Any] = _inline(whole, definitions)
    del schema["title"], schema["description"]
    return schema


def _inline(node: Any, definitions: dict[str, Any]) -> Any:
    if isinstance(node, list):
        return [_inline(item, definitions) for item in node]
    if not isinstance(node, dict):
        return node
    if "$ref" in node:
        return _inline(definitions[node["$ref"].rpartition("/")[2]], definitions)
    return {key: _inline(value, definitions) for key, value in node.items()}


def _names(kind: type[Arguments]) -> str:
    return ", ".join(field.name for field in msgspec.structs.fields(kind)) or "no arguments"
