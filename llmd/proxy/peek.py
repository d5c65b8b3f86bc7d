"""What a request says about itself: `model` and `stream`, read without building its document."""

import codecs
import json
from typing import Final

import msgspec

from llmd.errors import InvalidRequestError
from llmd.proxy.paths import JSON_ENDPOINTS
from llmd.proxy.request import Request


class Peek(msgspec.Struct, frozen=True):
    """The fields that placing a request depends on."""

    model: str | None = None
    """None when absent or not a string: clients send what they like."""
    stream: bool | None = None
    """None when absent or not a boolean."""


class _Raw(msgspec.Struct):
    """The same fields, of whatever type."""

    model: msgspec.Raw = msgspec.Raw(b"null")
    stream: msgspec.Raw = msgspec.Raw(b"null")


_PEEK: Final = msgspec.json.Decoder(Peek)
_RAW: Final = msgspec.json.Decoder(_Raw)
_STRING: Final = msgspec.json.Decoder(str)
_UTF8: Final = codecs.getincrementaldecoder("utf-8")
_PIECE_BYTES: Final = 2**20
_BOOLEANS: Final = {b"true": True, b"false": False}

NOTHING: Final = Peek()


def look(request: Request, path: str) -> Peek:
    """What *request* to *path* (canonical) says, as far as llmd should understand it.

    On a path that llmd knows, the body must be right. On any other a body that says it is JSON is
    read if it can be; the engine is the judge of it.

    Raises:
        InvalidRequestError: The path takes a JSON object, and the body is none.
    """
    if request.head.method != b"POST":
        return NOTHING
    if path in JSON_ENDPOINTS:
        if request.head.fields.get(b"content-encoding", b"identity").lower() != b"identity":
            raise InvalidRequestError("a compressed request body is not understood here")
        return peek(request.body)
    if b"json" in request.head.fields.get(b"content-type", b"").lower():
        try:
            return peek(request.body)
        except InvalidRequestError:
            return NOTHING
    return NOTHING


def peek(body: bytes | bytearray) -> Peek:
    """Read the top-level `model` and `stream` of a JSON object; of duplicates the last counts.

    The whole body is checked, so that a broken one is refused before anything is loaded for it.

    Raises:
        InvalidRequestError: It is not JSON, not UTF-8 or not an object; the message says where.
    """
    if not body.isascii():
        _check_utf8(body)
    try:
        return _PEEK.decode(body)
    except msgspec.ValidationError:
        return _other_types(body)
    except RecursionError:
        raise InvalidRequestError("the request body is nested too deeply") from None
    except msgspec.DecodeError:
        return _second_opinion(body)


def _other_types(body: bytes | bytearray) -> Peek:
    """No object, or a `model` that is no string: clients send what they like."""
    try:
        fields = _RAW.decode(body)
        raw = bytes(fields.model)
        model = _STRING.decode(raw) if raw.startswith(b'"') else None
        return Peek(model, _BOOLEANS.get(bytes(fields.stream)))
    except msgspec.ValidationError:
        raise InvalidRequestError("the request body must be a JSON object") from None
    except RecursionError:
        raise InvalidRequestError("the request body is nested too deeply") from None
    except msgspec.DecodeError:
        return _second_opinion(body)


def _check_utf8(body: bytes | bytearray) -> None:
    """Refuse what is not UTF-8; in pieces, for one string could take four times the memory."""
    decoder, view = _UTF8(), memoryview(body)
    for start in range(0, len(body), _PIECE_BYTES):
        kept = len(decoder.getstate()[0])
        piece = view[start : start + _PIECE_BYTES]
        try:
            decoder.decode(piece, start + _PIECE_BYTES >= len(body))
        except UnicodeDecodeError as exc:
            at = start - kept + exc.start
            raise InvalidRequestError(f"the request body is not valid UTF-8 (byte {at})") from None


def _second_opinion(body: bytes | bytearray) -> Peek:
    r"""What msgspec refuses may still be what clients send and engines take.

    JavaScript clients that cut text in the middle of an emoji send lone surrogates (`"\ud83d"`),
    which are JSON by its grammar; Python clients send NaN. The engine is the judge of those.
    """
    if not body.strip():
        raise InvalidRequestError("the request body is empty; this path takes a JSON object")
    try:
        document = json.loads(body.decode())
    except json.JSONDecodeError as exc:
        raise InvalidRequestError(
            f"the request body is not valid JSON: {exc.msg} (line {exc.lineno}, column {exc.colno})"
        ) from None
    except RecursionError:
        raise InvalidRequestError("the request body is nested too deeply") from None
    except ValueError as exc:
        # An integer of more digits than Python converts.
        raise InvalidRequestError(f"the request body is not valid JSON: {exc}") from None
    if not isinstance(document, dict):
        raise InvalidRequestError("the request body must be a JSON object")
    model, stream = document.get("model"), document.get("stream")
    if not isinstance(model, str) or not _encodable(model):
        model = None
    return Peek(model, stream if isinstance(stream, bool) else None)


def _encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
