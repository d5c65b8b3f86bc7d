"""What a model's headers say about its size: weights, layers, heads, context."""

import hashlib
from pathlib import Path

from llmd.core.shape import ModelShape
from llmd.errors import WeightsError
from llmd.weights.files import shards_of
from llmd.weights.gguf_shape import gguf_shape
from llmd.weights.mlx_shape import mlx_shape


def read_shape(path: Path, engine: str) -> ModelShape:
    """The shape of the model at *path*, which `locate` found: an MLX directory or a GGUF file.

    Reads headers only: milliseconds, however large the model.

    Raises:
        WeightsError: A file is missing, cut off or damaged, or its headers lack what is needed.
    """
    if (engine == "llama.cpp") != path.is_file():
        raise WeightsError(
            f"{path} is {'a file' if path.is_file() else 'a directory'}, which engine {engine} "
            "cannot read",
            remedy="use engine llama.cpp for GGUF files and mlx for directories of safetensors",
        )
    shards = shards_of(path)
    mark = fingerprint(shards if path.is_file() else [path / "config.json", *shards])
    read = gguf_shape if path.is_file() else mlx_shape
    return read(path, shards, mark)


def fingerprint(files: list[Path]) -> str:
    """Sixteen hex digits that change when one of *files* does: name, size, modification time.

    Raises:
        WeightsError: One of them is gone.
    """
    digest = hashlib.blake2b(digest_size=8)
    for file in files:
        try:
            stat = file.stat()
        except OSError as error:
            raise WeightsError(
                f"{file} cannot be read: {error.strerror}", remedy="look at its owner and mode"
            ) from error
        digest.update(f"{file.name}\0{stat.st_size}\0{stat.st_mtime_ns}\n".encode())
    return digest.hexdigest()
