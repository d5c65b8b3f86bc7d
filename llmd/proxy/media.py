"""Pictures and sounds in a request: they travel inside it, as `data:` addresses.

llama.cpp fetches any other address itself, whatever network it leads into, and follows redirects.
Films it hands to `ffmpeg`, which may find addresses inside of them: there are none.
"""

import json
from collections.abc import Iterator
from typing import Any, Final

import msgspec

from llmd.errors import InvalidRequestError
from llmd.proxy.request import Request


_FILMS: Final = frozenset({"video", "video_url", "input_video"})
_KINDS: Final = frozenset(
    {"image", "image_url", "input_image", "audio_url", "input_audio"} | _FILMS
)
_ADDRESSES: Final = ("image_url", "audio_url", "video_url", "url", "source", "input_audio")
_ANY: Final = msgspec.json.Decoder()
_DEPTH: Final = 4
"""A tool's result has a content of its own; nothing that an engine reads lies deeper."""


def check(request: Request) -> None:
    """See that every picture, sound and film of a request is in it, on whatever path.

    Chat completions, Messages and Responses. A form is no chat to the engine, and passes.

    Raises:
        InvalidRequestError: One is an address to be fetched, or a film; or the body cannot be read
            here, and so might be one in disguise (compressed, nested beyond measure).
    """
    kind = request.head.fields.get(b"content-type", b"").lstrip().lower()
    if not request.body or kind.startswith(b"multipart/form-data"):
        return
    document = _read(request.body)
    if not isinstance(document, dict):
        return
    for field in ("messages", "input"):
        for part in _parts(document.get(field), _DEPTH):
            if part["type"] in _FILMS:
                raise InvalidRequestError(
                    "films are not taken", remedy="send pictures of them", param=field
                )
            for address in _addresses(part):
                if not address.startswith("data:"):
                    raise InvalidRequestError(
                        "the request names a picture or sound by an address; none is fetched",
                        remedy="send it inside the request, as `data:image/png;base64,…`; "
                        "`llmd-ctl query --image FILE` does so",
                    )


def _read(body: bytes | bytearray) -> Any:
    try:
        return _ANY.decode(body)
    except (msgspec.MsgspecError, RecursionError):
        pass
    try:
        return json.loads(body)  # what only Python's parser takes (see `peek`)
    except (ValueError, RecursionError):
        raise InvalidRequestError(
            "the request body is no JSON that can be read here",
            remedy="send it as plain JSON, uncompressed",
        ) from None


def _parts(value: Any, depth: int) -> Iterator[dict[str, Any]]:
    """The parts of messages that are pictures, sounds or films."""
    for item in value if isinstance(value, list) else ():
        if not isinstance(item, dict):
            continue
        if item.get("type") in _KINDS:
            yield item
        elif depth:
            for field in ("content", "output"):
                yield from _parts(item.get(field), depth - 1)


def _addresses(part: dict[str, Any]) -> Iterator[str]:
    for field in _ADDRESSES:
        value = part.get(field)
        if isinstance(value, dict):
            value = value.get("url")
        if isinstance(value, str):
            yield value
