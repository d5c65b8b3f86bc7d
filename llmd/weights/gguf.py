"""The header of a GGUF file: its metadata and what tensors it holds, without reading one.

Reads versions 2 and 3. Nothing is allocated by a number found in the file, every count is bounded,
and arrays that nobody asked for (a vocabulary has 150,000 strings) are stepped over.
"""

import math
import struct
from pathlib import Path
from typing import Any, BinaryIO, Final

from msgspec import Struct, field

from llmd.errors import WeightsError, describe_bytes


KEY_MAX_BYTES: Final = 4096
NAME_MAX_BYTES: Final = 4096
TEXT_MAX_BYTES: Final = 4 * 2**20
"""A chat template is the longest text that is read; real ones stay below 64 KiB."""

TEXTS_MAX_BYTES: Final = 32 * 2**20
"""Of all texts that are kept, together."""

KEYS_MAX: Final = 10_000
TENSORS_MAX: Final = 100_000
STRINGS_MAX: Final = 4_000_000
ARRAY_KEPT_MAX: Final = 4096
"""Longer arrays are counted, not kept: per-layer numbers are short, vocabularies are not."""

METADATA_MAX_BYTES: Final = 512 * 2**20
DIMENSIONS_MAX: Final = 8

_MAGIC: Final = b"GGUF"
_CHUNK_BYTES: Final = 1 << 18
_AGAIN: Final = "download it again"

_SCALARS: Final = {
    0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q",
    12: "<d",
}  # fmt: skip
_STRING: Final = 8
_ARRAY: Final = 9

BLOCKS: Final[dict[int, tuple[str, int, int]]] = {
    0: ("F32", 1, 4), 1: ("F16", 1, 2), 2: ("Q4_0", 32, 18), 3: ("Q4_1", 32, 20),
    6: ("Q5_0", 32, 22), 7: ("Q5_1", 32, 24), 8: ("Q8_0", 32, 34), 9: ("Q8_1", 32, 40),
    10: ("Q2_K", 256, 84), 11: ("Q3_K", 256, 110), 12: ("Q4_K", 256, 144), 13: ("Q5_K", 256, 176),
    14: ("Q6_K", 256, 210), 15: ("Q8_K", 256, 292), 16: ("IQ2_XXS", 256, 66),
    17: ("IQ2_XS", 256, 74), 18: ("IQ3_XXS", 256, 98), 19: ("IQ1_S", 256, 50),
    20: ("IQ4_NL", 32, 18), 21: ("IQ3_S", 256, 110), 22: ("IQ2_S", 256, 82),
    23: ("IQ4_XS", 256, 136), 24: ("I8", 1, 1), 25: ("I16", 1, 2), 26: ("I32", 1, 4),
    27: ("I64", 1, 8), 28: ("F64", 1, 8), 29: ("IQ1_M", 256, 56), 30: ("BF16", 1, 2),
    34: ("TQ1_0", 256, 54), 35: ("TQ2_0", 256, 66), 39: ("MXFP4", 32, 17), 40: ("NVFP4", 64, 36),
    41: ("Q1_0", 128, 18),
}  # fmt: skip
"""Tensor types: name, numbers in a block, bytes of a block (llama.cpp, `ggml.c`)."""

FILE_TYPES: Final = {
    0: "F32", 1: "F16", 2: "Q4_0", 3: "Q4_1", 7: "Q8_0", 8: "Q5_0", 9: "Q5_1", 10: "Q2_K",
    11: "Q3_K_S", 12: "Q3_K_M", 13: "Q3_K_L", 14: "Q4_K_S", 15: "Q4_K_M", 16: "Q5_K_S",
    17: "Q5_K_M", 18: "Q6_K", 19: "IQ2_XXS", 20: "IQ2_XS", 21: "Q2_K_S", 22: "IQ3_XS",
    23: "IQ3_XXS", 24: "IQ1_S", 25: "IQ4_NL", 26: "IQ3_S", 27: "IQ3_M", 28: "IQ2_S", 29: "IQ2_M",
    30: "IQ4_XS", 31: "IQ1_M", 32: "BF16", 36: "TQ1_0", 37: "TQ2_0", 38: "MXFP4", 39: "NVFP4",
    40: "Q1_0",
}  # fmt: skip
"""`general.file_type`: what the whole file is called."""


class Tensor(Struct, frozen=True):
    """One tensor of a file: its type's name, its shape (innermost first), and bytes of data."""

    type: str
    shape: tuple[int, ...]
    bytes: int


class Header(Struct, frozen=True):
    """What one GGUF file says of itself.

    Attributes:
        metadata: Scalars and texts as they are; short arrays of numbers as tuples.
        lengths: How long each array is, kept or not.
        tensors: By name.
        data_bytes: What the tensors take in the file.
    """

    metadata: dict[str, Any] = field(default_factory=dict)
    lengths: dict[str, int] = field(default_factory=dict)
    tensors: dict[str, Tensor] = field(default_factory=dict)
    data_bytes: int = 0


def read_header(path: Path) -> Header:
    """The header of the GGUF file *path* (of one shard, when there are several).

    Raises:
        WeightsError: It cannot be read, is no GGUF file, contradicts itself, or is shorter than
            its header says.
    """
    try:
        with path.open("rb") as file:
            return _Reader(path, file).header()
    except OSError as error:
        raise WeightsError(
            f"{path} cannot be read: {error.strerror}", remedy="look at its owner and mode"
        ) from error


class _Reader:
    """A cursor over the file that never reads more than it was asked for, in bounded chunks."""

    def __init__(self, path: Path, file: BinaryIO) -> None:
        self._path = path
        self._file = file
        self._size = file.seek(0, 2)
        self._end = min(self._size, METADATA_MAX_BYTES)
        file.seek(0)
        self._text_bytes = 0
        self._strings = 0
        """Elements of arrays so far: each is stepped over by itself, in Python."""
        self._chunk = b""
        self._start = 0
        """Where in the file the chunk begins."""
        self._at = 0
        """Position in the chunk; may lie behind its end after a long step."""

    def header(self) -> Header:
        """Read it all, in the order of the format: counts, metadata, tensors."""
        magic = self._take(4) if self._size >= 4 else b""
        if magic != _MAGIC:
            raise WeightsError(
                f"{self._path} is no GGUF file (it begins with {magic!r})",
                remedy="llama.cpp needs GGUF weights; use engine mlx for safetensors",
            )
        version = self._number("<I")
        if version not in (2, 3):
            swapped = version & 0xFFFF == 0
            what = "is big-endian" if swapped else f"has GGUF version {version}"
            raise WeightsError(
                f"{self._path} {what}, which llmd cannot read", remedy="download a newer conversion"
            )
        tensor_count = self._count("<Q", TENSORS_MAX, "tensors")
        key_count = self._count("<Q", KEYS_MAX, "metadata keys")
        header = Header()
        for _ in range(key_count):
            key = self._text(KEY_MAX_BYTES, "a metadata key")
            if key in header.metadata or key in header.lengths:
                raise self._malformed(f"the metadata key {key[:80]!r} is there twice")
            self._value(key, header)
        infos = [self._tensor() for _ in range(tensor_count)]
        return self._place(header, infos)

    def _place(self, header: Header, infos: list[tuple[str, Tensor, int]]) -> Header:
        """Check where the tensors lie: inside the file, and none upon another."""
        alignment = header.metadata.get("general.alignment", 32)
        if type(alignment) is not int or not 1 <= alignment <= 2**20:
            raise self._malformed(f"its alignment is {alignment!r}")
        data_start = -(-(self._start + self._at) // alignment) * alignment
        end = 0
        for name, tensor, offset in sorted(infos, key=lambda info: info[2]):
            if name in header.tensors:
                raise self._malformed(f"tensor {name[:80]!r} is there twice")
            if offset < end:
                raise self._malformed(f"tensor {name[:80]!r} overlaps the one before it")
            end = offset + tensor.bytes
            header.tensors[name] = tensor
        if infos and data_start + end > self._size:
            raise self._cut_off(data_start + end)
        return Header(header.metadata, header.lengths, header.tensors, end)

    def _tensor(self) -> tuple[str, Tensor, int]:
        name = self._text(NAME_MAX_BYTES, "a tensor's name")
        dimensions = self._count("<I", DIMENSIONS_MAX, f"dimensions of {name[:80]!r}")
        shape = tuple(self._number("<Q") for _ in range(dimensions))
        kind, offset = self._number("<I"), self._number("<Q")
        if kind not in BLOCKS:
            raise WeightsError(
                f"{self._path}: tensor {name[:80]!r} has type {kind}, which llmd does not know",
                remedy="set `memory:` in the profile, so that llmd need not estimate",
            )
        label, per_block, block_bytes = BLOCKS[kind]
        elements = math.prod(shape)
        if elements >= 2**62 or (shape and shape[0] % per_block):
            raise self._malformed(f"tensor {name[:80]!r} has an impossible shape")
        return name, Tensor(label, shape, elements // per_block * block_bytes), offset

    def _value(self, key: str, header: Header) -> None:
        kind = self._number("<I")
        if kind in _SCALARS:
            header.metadata[key] = self._number(_SCALARS[kind])
        elif kind == _STRING:
            header.metadata[key] = text = self._text(TEXT_MAX_BYTES, key)
            self._text_bytes += len(text)
            if self._text_bytes > TEXTS_MAX_BYTES:
                raise self._malformed(f"with {key[:80]!r} its texts are too long")
        elif kind == _ARRAY:
            self._array(key, header)
        else:
            raise self._malformed(f"{key[:80]!r} has the unknown type {kind}")

    def _array(self, key: str, header: Header) -> None:
        kind, length = self._number("<I"), self._number("<Q")
        header.lengths[key] = length
        if kind in _SCALARS:
            code = _SCALARS[kind]
            width = struct.calcsize(code)
            if length <= ARRAY_KEPT_MAX:
                raw = self._take(length * width)
                header.metadata[key] = struct.unpack(f"<{length}{code[1]}", raw)
            else:
                self._step(length * width, key)
        elif kind == _STRING:
            self._strings += length
            if self._strings > STRINGS_MAX:
                raise self._malformed(f"with {key[:80]!r} it would have {self._strings} strings")
            for _ in range(length):
                self._step(self._number("<Q"), key)
        else:
            raise self._malformed(f"{key[:80]!r} is an array of type {kind}")

    def _count(self, code: str, limit: int, what: str) -> int:
        count: int = self._number(code)
        if count > limit:
            raise self._malformed(f"it would have {count} {what}")
        return count

    def _text(self, limit: int, what: str) -> str:
        length = self._number("<Q")
        if length > limit:
            raise self._malformed(f"{what[:80]} would have {length} bytes")
        return self._take(length).decode("utf-8", "replace")

    def _number(self, code: str) -> Any:
        at, width = self._at, struct.calcsize(code)
        if at + width <= len(self._chunk):
            self._at = at + width
            return struct.unpack_from(code, self._chunk, at)[0]
        return struct.unpack(code, self._take(width))[0]

    def _take(self, count: int) -> bytes:
        """The next *count* bytes; *count* has been checked against a limit."""
        at = self._at
        if at + count > len(self._chunk):
            here = self._start + at
            if here + count > self._end:
                raise self._cut_off(here + count)
            self._file.seek(here)
            self._chunk = self._file.read(max(count, _CHUNK_BYTES))
            self._start, at = here, 0
            if len(self._chunk) < count:
                raise self._cut_off(here + count)
        self._at = at + count
        return self._chunk[at : at + count]

    def _step(self, count: int, what: str) -> None:
        """Go on behind the next *count* bytes without reading them."""
        if self._start + self._at + count > self._end:
            if count > METADATA_MAX_BYTES:
                raise self._malformed(f"{what[:80]!r} would have {count} bytes")
            raise self._cut_off(self._start + self._at + count)
        self._at += count

    def _malformed(self, what: str) -> WeightsError:
        return WeightsError(f"{self._path} is damaged: {what}", remedy=_AGAIN)

    def _cut_off(self, wants: int) -> WeightsError:
        return WeightsError(
            f"{self._path} is cut off: {describe_bytes(self._size)} of at least "
            f"{describe_bytes(wants)} are there",
            remedy="the download did not finish; resume or repeat it",
        )
