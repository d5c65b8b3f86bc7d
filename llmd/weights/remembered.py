"""Shapes of models that were read before: a GGUF header takes 90 ms, for its vocabulary.

A cache file, and no more: what is missing, stale or damaged is read again.
"""

import contextlib
from pathlib import Path
from typing import Final

import msgspec

import llmd
from llmd.config.paths import cache_dir
from llmd.config.replace import replace_file
from llmd.core.shape import ModelShape
from llmd.weights.files import shards_of
from llmd.weights.shape import fingerprint, read_shape


VERSION: Final = f"{llmd.__version__} {' '.join(ModelShape.__match_args__)}"
"""Of what a shape holds and how it is read; what another version wrote is not used."""

_FILE_MAX_BYTES: Final = 64 * 2**20
_KEPT_MAX: Final = 2000


class _File(msgspec.Struct):
    version: str = ""
    shapes: dict[str, ModelShape] = {}


class Shapes:
    """Reads shapes, and remembers those of files that have not changed since."""

    def __init__(self, file: Path | None = None) -> None:
        """Remember in *file*, by default in llmd's cache directory."""
        self._file = file or cache_dir() / "shapes.json"
        self._shapes = self._read()
        self._changed = False

    def read(self, path: Path, engine: str) -> ModelShape:
        """`read_shape`, unless every file of *path* is as it was.

        Raises:
            WeightsError: See `read_shape`.
        """
        shards = shards_of(path)
        mark = fingerprint(shards if path.is_file() else [path / "config.json", *shards])
        key = f"{path.absolute()}#{mark}"
        known = self._shapes.get(key)
        if known is None:
            known = self._shapes[key] = read_shape(path, engine)
            self._changed = True
        return known

    def save(self) -> None:
        """Write down what is new. A cache that cannot be written is no failure."""
        if not self._changed:
            return
        kept = dict(list(self._shapes.items())[-_KEPT_MAX:])
        with contextlib.suppress(OSError):
            replace_file(self._file, msgspec.json.encode(_File(VERSION, kept)), lasting=False)

    def _read(self) -> dict[str, ModelShape]:
        try:
            with self._file.open("rb") as file:
                kept = msgspec.json.decode(file.read(_FILE_MAX_BYTES), type=_File)
        except (OSError, ValueError, RecursionError):  # msgspec's errors, and that of bad UTF-8
            return {}
        return kept.shapes if kept.version == VERSION else {}
