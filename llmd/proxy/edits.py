"""Changing top-level fields of a JSON body; every other value keeps its bytes."""

import json
from typing import Any, Final

import msgspec

from llmd.errors import InvalidRequestError
from llmd.proxy.gate import BodyEdits


_OBJECT: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])
_LONE: Final = msgspec.json.Encoder()


def apply(edits: BodyEdits, body: bytes | bytearray) -> bytes | bytearray:
    """*body* with `force` set, and `defaults` where a field is absent.

    A field that is there with the value null is there. Returns *body* itself when nothing changes.

    Raises:
        InvalidRequestError: *body* is not a JSON object.
    """
    if not edits.defaults and not edits.force:
        return body
    try:
        document: dict[str, Any] = _OBJECT.decode(body)
    except msgspec.ValidationError:
        raise InvalidRequestError("the request body must be a JSON object") from None
    except (msgspec.DecodeError, RecursionError):
        return _slowly(edits, body)
    missing = {key: value for key, value in edits.defaults.items() if key not in document}
    if not missing and not edits.force:
        return body
    return _LONE.encode({**document, **missing, **edits.force})


def effective(edits: BodyEdits, field: str, given: Any) -> Any:
    """The value of *field* after `apply`, when the body had *given* (None: absent)."""
    if field in edits.force:
        return edits.force[field]
    return edits.defaults.get(field) if given is None else given


def _slowly(edits: BodyEdits, body: bytes | bytearray) -> bytes:
    """As `apply`, for what only Python's parser takes (see `peek`)."""
    try:
        document = json.loads(body.decode())
    except (ValueError, RecursionError):
        raise InvalidRequestError("the request body is not valid JSON") from None
    if not isinstance(document, dict):
        raise InvalidRequestError("the request body must be a JSON object")
    return json.dumps({**edits.defaults, **document, **edits.force}).encode()
