"""The header of a safetensors file: what tensors it holds, without reading one.

The format: eight bytes little-endian length, so many bytes of JSON, then the data. Everything is
checked against the size of the file, so that a half-finished download is seen here and not as
nonsense from the model.
"""

import json
import math
from pathlib import Path
from typing import Any, Final, TypeGuard

from msgspec import Struct

from llmd.errors import WeightsError, describe_bytes


HEADER_MAX_BYTES: Final = 16 * 2**20
"""The format allows 100 MB; the largest real headers are below 1 MB."""

TENSORS_MAX: Final = 200_000
DIMENSIONS_MAX: Final = 16

DTYPE_BITS: Final = {
    "BOOL": 8, "U8": 8, "I8": 8, "U16": 16, "I16": 16, "U32": 32, "I32": 32, "U64": 64, "I64": 64,
    "F16": 16, "BF16": 16, "F32": 32, "F64": 64, "C64": 64,
    "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8,
    "F6_E2M3": 6, "F6_E3M2": 6, "F4": 4,
}  # fmt: skip

_AGAIN: Final = "download it again"


class Tensor(Struct, frozen=True):
    """One tensor of a file: its type, shape, and bytes of data."""

    dtype: str
    shape: tuple[int, ...]
    bytes: int


def read_header(path: Path) -> dict[str, Tensor]:
    """The tensors of *path* by name.

    Raises:
        WeightsError: It cannot be read, is no safetensors file, contradicts itself, or is shorter
            or longer than its header says.
    """
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(0)
            start = file.read(8)
            length = int.from_bytes(start, "little")
            if len(start) < 8:
                raise WeightsError(f"{path} is empty or cut off ({size} bytes)", remedy=_AGAIN)
            if length > HEADER_MAX_BYTES or length < 2:
                raise WeightsError(
                    f"{path} is no safetensors file: its header would have {length} bytes",
                    remedy=_AGAIN,
                )
            if length > size - 8:
                raise _cut_off(path, size, 8 + length)
            raw = file.read(length)
    except OSError as error:
        raise WeightsError(
            f"{path} cannot be read: {error.strerror}", remedy="look at its owner and mode"
        ) from error
    try:
        header = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise WeightsError(f"the header of {path} is not JSON", remedy=_AGAIN) from error
    return _check(path, header, data_bytes=size - 8 - length)


def _check(path: Path, header: Any, *, data_bytes: int) -> dict[str, Tensor]:
    if not isinstance(header, dict) or len(header) > TENSORS_MAX:
        raise WeightsError(f"the header of {path} is no list of tensors", remedy=_AGAIN)
    spans: list[tuple[int, int, str]] = []
    tensors = {}
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        begin, end, tensor = _tensor(path, name, entry)
        spans.append((begin, end, name))
        tensors[name] = tensor
    expected = 0
    for begin, end, name in sorted(spans):
        if begin != expected:
            what = "overlaps the one before it" if begin < expected else "leaves a gap before it"
            raise WeightsError(f"{path}: tensor {_named(name)} {what}", remedy=_AGAIN)
        expected = end
    if data_bytes < expected:
        raise _cut_off(path, data_bytes, expected)
    if data_bytes > expected:
        raise WeightsError(
            f"{path} is {describe_bytes(data_bytes - expected)} longer than its header says",
            remedy=_AGAIN,
        )
    return tensors


def _tensor(path: Path, name: str, entry: Any) -> tuple[int, int, Tensor]:
    """Begin, end and description of one entry of the header."""
    fields = entry if isinstance(entry, dict) else {}
    dtype, shape, offsets = map(fields.get, ("dtype", "shape", "data_offsets"))
    if not isinstance(dtype, str) or not _are_counts(shape) or not _are_counts(offsets):
        raise _malformed(path, name)
    if len(shape) > DIMENSIONS_MAX or len(offsets) != 2 or offsets[0] > offsets[1]:
        raise _malformed(path, name)
    begin, end = offsets
    bits = DTYPE_BITS.get(dtype)
    if bits is not None and math.prod(shape) * bits != (end - begin) * 8:
        raise WeightsError(
            f"{path}: tensor {_named(name)} has {end - begin} bytes, but its shape and type "
            f"({dtype}) need {math.prod(shape) * bits // 8}",
            remedy=_AGAIN,
        )
    return begin, end, Tensor(dtype[:20], tuple(shape), end - begin)


def _malformed(path: Path, name: str) -> WeightsError:
    return WeightsError(f"{path}: the entry of tensor {_named(name)} is malformed", remedy=_AGAIN)


def _are_counts(value: Any) -> TypeGuard[list[int]]:
    return isinstance(value, list) and all(
        type(item) is int and 0 <= item < 2**63 for item in value
    )


def _named(name: str) -> str:
    return repr(name) if len(name) <= 80 else f"{name[:77]!r}…"


def _cut_off(path: Path, has: int, wants: int) -> WeightsError:
    return WeightsError(
        f"{path} is cut off: {describe_bytes(has)} of {describe_bytes(wants)} are there",
        remedy="the download did not finish; resume or repeat it",
    )
