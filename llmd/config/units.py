"""Byte sizes and durations as people write them, and back."""

import math
import re
from typing import Annotated, Any, Final

from pydantic import AfterValidator, BeforeValidator, PlainSerializer, WithJsonSchema


_SIZE_UNITS: Final = {
    "": 1, "b": 1,
    "k": 2**10, "kb": 10**3, "kib": 2**10,
    "m": 2**20, "mb": 10**6, "mib": 2**20,
    "g": 2**30, "gb": 10**9, "gib": 2**30,
    "t": 2**40, "tb": 10**12, "tib": 2**40,
}  # fmt: skip
_TIME_UNITS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
_NUMBER_AND_UNIT: Final = re.compile(r"\s*([0-9]{1,18}(?:\.[0-9]{1,18})?)\s*([A-Za-z]*)\s*")
_TIME_PART: Final = re.compile(r"([0-9]{1,18}(?:\.[0-9]{1,18})?)\s*(ms|min|s|m|h|d)")
_NUMBER: Final = re.compile(r"[0-9]{1,18}(?:\.[0-9]{1,18})?")

SIZE_MAX_BYTES: Final = 2**50
"""1 PiB: more than any machine has; a larger number is a slip of the pen."""

SECONDS_MAX: Final = 366 * 86400.0
"""A year; longer is `never`, where that is allowed."""

NOTICED_S: Final = 2.0
"""How often the daemon looks at its hosts (`llmd.runtime.watch`): it notices nothing shorter."""

PLAUSIBLE_BYTES: Final = 2**20
"""Less than 1 MiB for a model or a budget is a number without its unit."""


def parse_size(value: object) -> int:
    """`48GiB`, `1.5 GB`, `512m` or a number of bytes, as bytes.

    One letter is binary, as in `ls -h` and llama.cpp: `512m` is 512 MiB.

    Raises:
        ValueError: It is none of these, negative, or above `SIZE_MAX_BYTES`.
    """
    if isinstance(value, int) and not isinstance(value, bool):
        count = value
    else:
        match = _NUMBER_AND_UNIT.fullmatch(value) if isinstance(value, str) else None
        if match is None or match[2].lower() not in _SIZE_UNITS:
            raise ValueError(f"{_shown(value)} is no size; write it like 48GiB or 800MB")
        count = round(float(match[1]) * _SIZE_UNITS[match[2].lower()])
    if count < 0:
        raise ValueError("a size cannot be negative")
    if count > SIZE_MAX_BYTES:
        raise ValueError(f"{_shown(value)} is more than any machine has (1 PiB)")
    return count


def parse_duration(value: object) -> float:
    """`30m`, `1h30m`, `250ms`, `never` or a number of seconds, as seconds.

    Raises:
        ValueError: It is none of these, negative, or longer than a year.
    """
    if isinstance(value, int | float) and not isinstance(value, bool):
        seconds = float(value)
        if math.isnan(seconds):
            raise ValueError(_NO_DURATION.format(_shown(value)))
    else:
        text = value.strip().lower() if isinstance(value, str) else ""
        if text == "never":
            return math.inf
        if _NUMBER.fullmatch(text):
            seconds = float(text)
        else:
            parts = _TIME_PART.findall(text)
            if not parts or _TIME_PART.sub("", text).strip():
                raise ValueError(_NO_DURATION.format(_shown(value)))
            seconds = sum(float(number) * _TIME_UNITS[unit] for number, unit in parts)
    if seconds < 0:
        raise ValueError("a duration cannot be negative")
    if SECONDS_MAX < seconds < math.inf:
        raise ValueError(f"{_shown(value)} is longer than a year")
    return seconds


_NO_DURATION: Final = "{} is no duration; write it like 30m, 10s or 1h30m"


def format_size(count: int) -> str | int:
    """*count* bytes so that `parse_size` gives the same number back: `48GiB`, or the number."""
    for unit, size in (("TiB", 2**40), ("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if count and count % size == 0:
            return f"{count // size}{unit}"
    return count


def format_duration(seconds: float) -> str | float:
    """*seconds* so that `parse_duration` gives the same back: `30m`, `never`, or the number."""
    if math.isinf(seconds):
        return "never"
    if seconds != int(seconds):
        return seconds
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds and seconds % size == 0:
            return f"{int(seconds) // size}{unit}"
    return f"{int(seconds)}s"


def _shown(value: object) -> str:
    """*value* for a message: never longer than a line can bear."""
    text = repr(value) if isinstance(value, str) else str(value)
    return text if len(text) <= 60 else f"{text[:57]}…"


def _finite(seconds: float) -> float:
    if math.isinf(seconds):
        raise ValueError("`never` is not possible here; give a time such as 10m")
    return seconds


def _positive(seconds: float) -> float:
    if seconds <= 0:
        raise ValueError("must be more than zero")
    return seconds


def _noticeable(seconds: float) -> float:
    if seconds < NOTICED_S:
        raise ValueError(
            f"engines are looked at every {NOTICED_S:g} s; give at least that, or `never`"
        )
    return seconds


def _plausible(count: int) -> int:
    if count < PLAUSIBLE_BYTES:
        raise ValueError(
            f"{count} bytes is too little for a model; write the unit: {count or 8}GiB"
        )
    return count


def _schema(description: str, *examples: str, minimum: float = 0) -> WithJsonSchema:
    number: dict[str, Any] = {"type": "number" if "econds" in description else "integer"}
    number["minimum"] = minimum
    text = {"type": "string", "examples": list(examples)}
    return WithJsonSchema({"anyOf": [number, text], "title": description})


_SIZE_SCHEMA: Final = _schema("Bytes, or a size", "48GiB", "800MB")
_TIME_SCHEMA: Final = _schema("Seconds, or a duration", "30m", "10s", "1h30m")
_SIZE_WRITTEN: Final = PlainSerializer(format_size, when_used="json")
_TIME_WRITTEN: Final = PlainSerializer(format_duration, when_used="json")

ByteSize = Annotated[int, BeforeValidator(parse_size), _SIZE_SCHEMA, _SIZE_WRITTEN]
"""An integer count of bytes, written as `48GiB`; never negative."""

ModelSize = Annotated[
    int, BeforeValidator(parse_size), AfterValidator(_plausible), _SIZE_SCHEMA, _SIZE_WRITTEN
]
"""A `ByteSize` that a model could have: at least 1 MiB, so that `memory: 8` is asked about."""

Seconds = Annotated[
    float, BeforeValidator(parse_duration), AfterValidator(_finite), _TIME_SCHEMA, _TIME_WRITTEN
]
"""Finite seconds as a float, written as `30m`; zero is allowed."""

PositiveSeconds = Annotated[
    float,
    BeforeValidator(parse_duration),
    AfterValidator(_finite),
    AfterValidator(_positive),
    _TIME_SCHEMA,
    _TIME_WRITTEN,
]
"""Finite seconds above zero."""

SecondsOrNever = Annotated[
    float,
    BeforeValidator(parse_duration),
    _schema("Seconds, a duration, or never", "30m", "never"),
    _TIME_WRITTEN,
]
"""Seconds, where `never` is infinity."""

StallSeconds = Annotated[
    float,
    BeforeValidator(parse_duration),
    AfterValidator(_noticeable),
    _schema("Seconds, a duration, or never", "2m", "never", minimum=NOTICED_S),
    _TIME_WRITTEN,
]
"""`SecondsOrNever` that the daemon can measure."""
