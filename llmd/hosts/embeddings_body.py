"""OpenAI's embeddings request and response, for hosts whose engine has none of its own."""

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from llmd.hosts.openai_body import RequestError


INPUTS_MAX: Final = 2048
"""As OpenAI has it."""

Vector = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is asked for.

    Attributes:
        inputs: Texts, or texts as tokens; each becomes one vector.
        as_base64: Vectors as bytes (little-endian, 32 bits) in base64 instead of lists.
        dimensions: How many of a vector's numbers; None is all.
    """

    inputs: tuple[str | list[int], ...]
    as_base64: bool
    dimensions: int | None


def read_wanted(body: Any) -> Wanted:
    """What *body*, a decoded request, asks for.

    Raises:
        RequestError: It makes no sense; names the field.
    """
    if not isinstance(body, dict):
        raise RequestError("the body is not a JSON object")
    form = body.get("encoding_format", "float")
    if form not in ("float", "base64"):
        raise RequestError("encoding_format must be float or base64", param="encoding_format")
    dimensions = body.get("dimensions")
    if dimensions is not None and (type(dimensions) is not int or dimensions < 1):
        raise RequestError("dimensions must be a whole number above 0", param="dimensions")
    return Wanted(_inputs(body.get("input")), form == "base64", dimensions)


def _inputs(given: Any) -> tuple[str | list[int], ...]:
    """Each of them; a single one may come without a list around it."""
    if isinstance(given, str) or (_is_tokens(given) and given):
        given = [given]
    if not isinstance(given, list) or not given:
        raise RequestError("input must be a text, or a list of texts", param="input")
    if len(given) > INPUTS_MAX:
        raise RequestError(
            f"input has {len(given)} texts; at most {INPUTS_MAX} at once", param="input"
        )
    for n, one in enumerate(given):
        if not one or not (isinstance(one, str) or _is_tokens(one)):
            raise RequestError(f"input[{n}] must be a text that is not empty", param="input")
    return tuple(given)


def _is_tokens(value: Any) -> bool:
    return isinstance(value, list) and all(type(token) is int for token in value)


def response(
    vectors: Sequence[Vector], wanted: Wanted, *, profile: str, prompt_tokens: int
) -> dict[str, Any]:
    """OpenAI's object around *vectors*, each of length 1."""
    return {
        "object": "list",
        "model": profile,
        "data": [
            {"object": "embedding", "index": n, "embedding": _written(vector, wanted)}
            for n, vector in enumerate(vectors)
        ],
        "usage": {"prompt_tokens": prompt_tokens, "total_tokens": prompt_tokens},
    }


def _written(vector: Vector, wanted: Wanted) -> str | list[float]:
    if wanted.dimensions is not None:
        vector = unit(vector[: wanted.dimensions])
    if wanted.as_base64:
        return base64.b64encode(vector.astype("<f4").tobytes()).decode()
    return [float(number) for number in vector]


def unit(vector: Vector) -> Vector:
    """*vector* at length 1; one of zeros as it is."""
    length = float(np.linalg.norm(vector))
    return vector / np.float32(length) if length else vector
