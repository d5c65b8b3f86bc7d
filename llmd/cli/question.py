"""What is asked: the words, what is piped in, files, images; and the request they make."""

import base64
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from llmd.cli.terminal import harmless, is_terminal
from llmd.errors import LlmdError, describe_bytes


TEXT_MAX_BYTES: Final = 16 * 2**20
"""Many times what the largest context holds."""
IMAGE_MAX_BYTES: Final = 20 * 2**20
_IMAGES: Final = {
    b"\x89PNG\r\n\x1a\n": "image/png",
    b"\xff\xd8\xff": "image/jpeg",
    b"GIF87a": "image/gif",
    b"GIF89a": "image/gif",
}


class InputError(LlmdError):
    """A file or what is piped in cannot be asked about."""

    code = "input_invalid"
    type = "invalid_request_error"


@dataclass(frozen=True, slots=True)
class Source:
    """A text that was read, and what it is called; the pipe has no name."""

    name: str
    text: str


@dataclass(frozen=True, slots=True)
class Question:
    """All but the profile.

    Attributes:
        prompt: The user's message.
        system: The system prompt, if any.
        images: `data:` URLs.
        max_tokens: Of the answer; None leaves it to the profile.
        temperature: None leaves it to the profile.
    """

    prompt: str
    system: str | None = None
    images: tuple[str, ...] = ()
    max_tokens: int | None = None
    temperature: float | None = None

    def request(self, profile: str) -> dict[str, Any]:
        """The chat completion to ask *profile* for."""
        content: Any = self.prompt
        if self.images:
            pictures = [{"type": "image_url", "image_url": {"url": url}} for url in self.images]
            content = [{"type": "text", "text": self.prompt}, *pictures]
        system = [] if self.system is None else [{"role": "system", "content": self.system}]
        request: dict[str, Any] = {
            "model": profile,
            "messages": [*system, {"role": "user", "content": content}],
        }
        if self.max_tokens is not None:
            request["max_tokens"] = self.max_tokens
        if self.temperature is not None:
            request["temperature"] = self.temperature
        return request


def read_pipe() -> Source | None:
    """What is piped in; None when nothing is.

    Raises:
        InputError: It is no text, or too much.
    """
    if sys.stdin is None or is_terminal(sys.stdin):
        return None
    text = _decode(sys.stdin.buffer.read(TEXT_MAX_BYTES + 1), "what is piped in").strip()
    return Source("", text) if text else None


def read_file(path: Path) -> Source:
    """The text in *path*.

    Raises:
        InputError: It cannot be read, is no text, or is too long.
    """
    return Source(str(path), _decode(_read(path, TEXT_MAX_BYTES), str(path)).strip("\n"))


def read_image(path: Path) -> str:
    """The picture in *path* as a `data:` URL.

    Raises:
        InputError: It cannot be read, is too large, or of no kind that engines take.
    """
    data = _read(path, IMAGE_MAX_BYTES)
    if len(data) > IMAGE_MAX_BYTES:
        raise InputError(
            f"{path} is larger than {describe_bytes(IMAGE_MAX_BYTES)}",
            remedy="make the picture smaller; models scale it down in any case",
        )
    kind = next((kind for magic, kind in _IMAGES.items() if data.startswith(magic)), None)
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        kind = "image/webp"
    if kind is None:
        raise InputError(
            f"{path} is no PNG, JPEG, GIF or WebP picture", remedy="convert it, to PNG for example"
        )
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def plain_text(words: str, sources: Sequence[Source]) -> str:
    """*words* and the texts, one below the other."""
    return "\n\n".join(filter(None, (words, *(source.text for source in sources))))


def named_text(words: str, sources: Sequence[Source]) -> str:
    """*words*, and below them each text; a file's between fences, with its name."""
    return "\n\n".join(filter(None, (words, *(_named(source) for source in sources))))


def _named(source: Source) -> str:
    if not source.name:
        return source.text
    fence = "```"
    while fence in source.text:
        fence += "`"
    name = " ".join(harmless(source.name).split())
    return f"{name}:\n{fence}\n{source.text}\n{fence}"


def _read(path: Path, limit_bytes: int) -> bytes:
    """At most one byte more than *limit_bytes* of *path*, which may be a pipe."""
    try:
        with path.expanduser().open("rb") as file:
            return file.read(limit_bytes + 1)
    except RuntimeError as error:
        raise InputError(f"{path}: {error}", remedy="check the name") from error
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise InputError(f"{path} cannot be read: {why}", remedy="check the name") from error


def _decode(data: bytes, what: str) -> str:
    if len(data) > TEXT_MAX_BYTES:
        raise InputError(
            f"{what} is more than {describe_bytes(TEXT_MAX_BYTES)}", remedy="ask about a part of it"
        )
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text:
        raise InputError(f"{what} is no UTF-8 text", remedy="convert it; pictures go with --image")
    return text.replace("\r\n", "\n")
