"""What single values of the configuration may be, each checked where it is read."""

import ipaddress
import re
from typing import Annotated, Final
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, SecretStr, WithJsonSchema

from llmd.config.units import PLAUSIBLE_BYTES, parse_size


NAME_PATTERN: Final = r"^[A-Za-z0-9][A-Za-z0-9._:-]{0,63}$"
"""What a profile may be called: it becomes part of URLs, file names and log lines."""

_VARIABLE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_ORIGIN: Final = re.compile(r"[a-z][a-z0-9+.-]*://[^/\s?#@*]+", re.IGNORECASE)
_HOST: Final = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]*[A-Za-z0-9_])?")


def _check_listen(value: str) -> str:
    try:
        return str(ipaddress.ip_address(value.strip("[]")))
    except ValueError:
        remedy = "write 127.0.0.1" if value == "localhost" else "write one like 127.0.0.1 or ::1"
        raise ValueError(f"{value!r} is no IP address; {remedy}") from None


def _check_origin(value: str) -> str:
    if value == "*":
        raise ValueError("`*` would let any web page use the models; name the origins")
    if not _ORIGIN.fullmatch(value):
        raise ValueError(f"{value!r} is no web origin; write it like http://localhost:3000")
    return value.lower()


def _check_host(value: str) -> str:
    if not _HOST.fullmatch(value):
        raise ValueError(
            f"{value!r} is no host name; write it without scheme and port, like studio.local"
        )
    return value.lower()


def _check_key(value: SecretStr) -> SecretStr:
    text = value.get_secret_value()
    if not text:
        raise ValueError("an empty key would let everybody in; remove it")
    if not is_key(text):
        raise ValueError("a key consists of printable ASCII characters without spaces")
    return value


def is_key(text: str) -> bool:
    """Whether *text* can be a key: a header must be able to carry it."""
    return bool(text) and all("!" <= letter <= "~" for letter in text)


def _check_url(value: str) -> str:
    try:
        parts = urlsplit(value)
        usable = parts.scheme in {"http", "https"} and parts.hostname and parts.port != 0
    except ValueError:
        usable = False
    if not usable or re.search(r"\s", value):
        raise ValueError(f"{value!r} is no URL; write it like http://studio.local:8081/v1")
    return value


def _check_variable(value: str) -> str:
    if not _VARIABLE.fullmatch(value):
        raise ValueError(f"{value!r} is no name of an environment variable")
    return value


def _check_path(value: str) -> str:
    if not value.startswith("/") or re.search(r"\s", value):
        raise ValueError(f"{value!r} is no path; it begins with a slash, like /health")
    return value


def _check_text(value: str) -> str:
    if "\x00" in value:
        raise ValueError("contains a NUL character")
    return value


def _check_present(value: str) -> str:
    if not value.strip():
        raise ValueError("must not be empty")
    return _check_text(value)


def _check_budget(value: str | int) -> str | int:
    if isinstance(value, str):
        text = value.strip().lower()
        if text == "auto":
            return "auto"
        if text.endswith("%"):
            if not re.fullmatch(r"[0-9]{1,3}(\.[0-9]{1,6})?", text[:-1].strip()) or not (
                1 <= float(text[:-1]) <= 100
            ):
                raise ValueError(f"{value!r} is no share of memory; write 1% to 100%")
            return text.replace(" ", "")
    try:
        count = parse_size(value)
    except ValueError as error:
        if isinstance(value, int):
            raise
        raise ValueError(f"{value!r} is no budget; write 48GiB, 75% or auto") from error
    if count < PLAUSIBLE_BYTES:
        raise ValueError(f"{count} bytes holds no model; write the unit: {count or 8}GiB")
    return value


Port = Annotated[int, Field(strict=True, ge=1, le=65535)]
ProfileName = Annotated[str, Field(pattern=NAME_PATTERN)]
Count = Annotated[int, Field(strict=True)]
ListenAddress = Annotated[str, AfterValidator(_check_listen)]
WebOrigin = Annotated[str, AfterValidator(_check_origin)]
HostName = Annotated[str, AfterValidator(_check_host)]
ApiKey = Annotated[SecretStr, AfterValidator(_check_key)]
Text = Annotated[str, AfterValidator(_check_text)]
PresentText = Annotated[str, AfterValidator(_check_present)]
Variable = Annotated[str, AfterValidator(_check_variable)]
Budget = Annotated[
    Annotated[int, Field(strict=True)] | str,
    AfterValidator(_check_budget),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "integer", "minimum": PLAUSIBLE_BYTES},
                {"type": "string", "examples": ["auto", "48GiB", "75%"]},
            ]
        }
    ),
]
Url = Annotated[str, AfterValidator(_check_url)]
UrlPath = Annotated[str, AfterValidator(_check_path)]
