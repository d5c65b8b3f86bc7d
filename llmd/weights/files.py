"""Which files a model consists of, and whether all of them are there."""

import json
import re
from pathlib import Path
from typing import Any, Final

from llmd.errors import WeightsError
from llmd.weights import gguf, safetensors


JSON_MAX_BYTES: Final = 32 * 2**20
"""`config.json` has a few KiB; the index of a model with 100,000 tensors, 10 MiB."""

SHARDS_MAX: Final = 1000

_GGUF_SHARD: Final = re.compile(
    r"(?P<stem>.*)-(?P<no>\d{5})-of-(?P<count>\d{5})\.gguf", re.IGNORECASE
)
_AGAIN: Final = "the download did not finish; resume or repeat it"


def check_complete(path: Path) -> None:
    """Make sure that every file of the model at *path* is there and as long as it should be.

    Raises:
        WeightsError: One is missing, cut off or damaged.
    """
    for file in shards_of(path):
        if file.suffix.lower() == ".gguf" or path.is_file():
            gguf.read_header(file)
        else:
            safetensors.read_header(file)


def shards_of(path: Path) -> list[Path]:
    """The weight files of the model at *path*, in order, each of them existing.

    *path* is a GGUF file (any of its shards) or an MLX directory.

    Raises:
        WeightsError: One is missing, or it is no model.
    """
    return _gguf_shards(path) if path.is_file() else _mlx_shards(path)


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in *path*.

    Raises:
        WeightsError: It cannot be read, is too large, or is no JSON object.
    """
    try:
        with path.open("rb") as file:
            raw = file.read(JSON_MAX_BYTES + 1)
    except OSError as error:
        raise WeightsError(
            f"{path} cannot be read: {error.strerror}", remedy="look at its owner and mode"
        ) from error
    try:
        data = json.loads(raw) if len(raw) <= JSON_MAX_BYTES else None
    except (ValueError, RecursionError):
        data = None
    if not isinstance(data, dict):
        raise WeightsError(f"{path} is no JSON object", remedy=_AGAIN)
    return data


def _gguf_shards(path: Path) -> list[Path]:
    match = _GGUF_SHARD.fullmatch(path.name)
    if match is None:
        return [path]
    count = int(match["count"])
    if not 1 <= count <= SHARDS_MAX:
        raise WeightsError(f"{path.name} would be one of {count} shards", remedy=_AGAIN)
    shards = [
        path.with_name(f"{match['stem']}-{number:05d}-of-{match['count']}{path.suffix}")
        for number in range(1, count + 1)
    ]
    _check_exist(path.parent, shards)
    return shards


def _mlx_shards(path: Path) -> list[Path]:
    if not (path / "config.json").is_file():
        raise WeightsError(f"{path} is no model: it has no config.json", remedy=_what_else(path))
    try:
        found = {entry.name for entry in path.glob("model*.safetensors")}  # what mlx_lm reads
        other = any(path.glob("*.safetensors"))
    except OSError as error:
        raise WeightsError(
            f"{path} cannot be read: {error.strerror}", remedy="look at its owner and mode"
        ) from error
    index = path / "model.safetensors.index.json"
    if index.is_file():
        listed = read_json(index).get("weight_map")
        names = listed.values() if isinstance(listed, dict) else ()
        if not names or not all(_is_plain(name) for name in names):
            raise WeightsError(f"{index} names no files", remedy=_AGAIN)
        found |= set(names)
    if not found:
        raise WeightsError(
            f"{path} is no MLX model: it has no model*.safetensors file",
            remedy="rename its only .safetensors file to model.safetensors"
            if other
            else _what_else(path),
        )
    if len(found) > SHARDS_MAX:
        raise WeightsError(f"{path} would have {len(found)} weight files", remedy=_AGAIN)
    shards = [path / name for name in sorted(found)]
    _check_exist(path, shards)
    return shards


def _check_exist(directory: Path, shards: list[Path]) -> None:
    missing = [shard.name for shard in shards if not _is_file(shard)]
    if missing:
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        raise WeightsError(
            f"{directory} lacks {len(missing)} of {len(shards)} files: "
            f"{', '.join(missing[:3])}{more}",
            remedy=_AGAIN,
        )


def _is_file(path: Path) -> bool:
    """Whether there is a file; a pipe is none, and would be waited for."""
    try:
        return path.is_file()
    except OSError:  # no name that a file system can have
        return False


def _is_plain(name: object) -> bool:
    """Whether *name* is a file name: no way out of the directory, and nothing for a terminal."""
    return (
        isinstance(name, str)
        and name not in {"", ".", ".."}
        and "/" not in name
        and name.isprintable()
    )


def _what_else(path: Path) -> str:
    """What to do about a directory that is no MLX model."""
    if any(path.glob("*.gguf")):
        return "it holds GGUF weights: use engine llama.cpp"
    if any(path.glob("*.bin")) or any(path.glob("*.pt*")):
        return "convert it: mlx_lm.convert --hf-path … --mlx-path …"
    inner = sorted(entry.parent.name for entry in path.glob("*/config.json"))
    if inner:
        return f"name the model in it: {', '.join(inner[:5])}"
    return "check the path in `model:`"


def is_projector(name: str) -> bool:
    """Whether a file of that name (whole, or on its way) gives a model eyes or ears: `mmproj`."""
    lower = name.lower()
    return "mmproj" in lower and ".gguf" in lower
