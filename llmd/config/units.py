"""Byte sizes and durations as people write them."""

import re
from typing import Annotated, Final

from pydantic import BeforeValidator


_SIZE_UNITS: Final = {
    "": 1, "b": 1,
    "k": 2**10, "kb": 10**3, "kib": 2**10,
    "m": 2**20, "mb": 10**6, "mib": 2**20,
    "g": 2**30, "gb": 10**9, "gib": 2**30,
    "t": 2**40, "tb": 10**12, "tib": 2**40,
}  # fmt: skip
_TIME_UNITS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
_NUMBER_AND_UNIT: Final = re.compile(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([A-Za-z]*)\s*")
_TIME_PART: Final = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*(ms|min|s|m|h|d)")


def parse_size(value: object) -> int:
    """`48GiB`, `1.5 GB`, `512m` or a number of bytes, as bytes.

    Raises:
        ValueError: It is none of these.
    """
    if isinstance(value, int) and not isinstance(value, bool):
        if value < 0:
            raise ValueError("a size cannot be negative")
        return value
    match = _NUMBER_AND_UNIT.fullmatch(value) if isinstance(value, str) else None
    if match is None or match[2].lower() not in _SIZE_UNITS:
        raise ValueError(f"{value!r} is no size; write it like 48GiB or 800MB")
    return int(float(match[1]) * _SIZE_UNITS[match[2].lower()])


def parse_duration(value: object) -> float:
    """`30m`, `1h30m`, `250ms`, `never` or a number of seconds, as seconds.

    Raises:
        ValueError: It is none of these.
    """
    if isinstance(value, int | float) and not isinstance(value, bool):
        if not 0 <= value:
            raise ValueError("a duration cannot be negative")
        return float(value)
    text = value.strip().lower() if isinstance(value, str) else ""
    if text == "never":
        return float("inf")
    parts = _TIME_PART.findall(text)
    if not parts or _TIME_PART.sub("", text).strip():
        raise ValueError(f"{value!r} is no duration; write it like 30m, 10s, 1h30m or never")
    return sum(float(number) * _TIME_UNITS[unit] for number, unit in parts)


ByteSize = Annotated[int, BeforeValidator(parse_size)]
"""An integer count of bytes, written as `48GiB`."""

Seconds = Annotated[float, BeforeValidator(parse_duration)]
"""Seconds as a float, written as `30m`."""
