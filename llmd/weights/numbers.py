"""Numbers out of headers that anybody may have written."""

from collections.abc import Mapping
from typing import Any, Final


COUNT_MAX: Final = 2**40
"""No dimension, vocabulary or context is larger; a larger number is damage."""

LAYERS_MAX: Final = 4096


def count(source: Mapping[str, Any], *keys: str, default: int = 0) -> int:
    """The first of *keys* in *source* that holds a sensible count, else *default*."""
    for key in keys:
        value = source.get(key)
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if type(value) is int and 0 <= value <= COUNT_MAX:
            return value
    return default


def per_layer(value: object, layers: int, default: int) -> list[int]:
    """*value* for each of *layers*: one number for all, or one each; else *default*."""
    if type(value) is int and 0 <= value <= COUNT_MAX:
        return [value] * layers
    if isinstance(value, list | tuple) and len(value) >= layers:
        numbers = list(value[:layers])
        if all(type(number) is int and 0 <= number <= COUNT_MAX for number in numbers):
            return numbers
    return [default] * layers
