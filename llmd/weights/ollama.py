"""Ollama's store: which of its files without a name is which model."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from llmd.errors import WeightsError
from llmd.weights.files import read_json
from llmd.weights.locate import entries_of


_WEIGHTS: Final = "application/vnd.ollama.image.model"
_DIGEST: Final = re.compile(r"sha256[:-]([0-9a-f]{64})")
_USUAL: Final = ("registry.ollama.ai", "library")
"""Host and namespace that Ollama leaves out of a name."""

_MANIFESTS_MAX: Final = 1000


def models(environ: Mapping[str, str]) -> Iterator[tuple[str, Path, int]]:
    """Models of Ollama: name as it says it, GGUF file, and bytes. Nothing when it is not there."""
    home = Path(environ.get("HOME") or Path.home())
    store = Path(environ.get("OLLAMA_MODELS") or home / ".ollama" / "models").expanduser()
    for manifest in _manifests(store / "manifests"):
        try:
            layers = read_json(manifest).get("layers")
        except WeightsError:
            continue
        for layer in layers if isinstance(layers, list) else ():
            if not isinstance(layer, dict) or layer.get("mediaType") != _WEIGHTS:
                continue
            digest = _DIGEST.fullmatch(str(layer.get("digest")))
            blob = store / "blobs" / f"sha256-{digest[1]}" if digest else None
            if blob is not None and blob.is_file():
                yield _name(manifest, store), blob, blob.stat().st_size
                break


def _manifests(root: Path) -> list[Path]:
    """`host/namespace/model/tag` below *root*."""
    found = [root]
    for _ in range(4):
        found = [entry for directory in found for entry in entries_of(directory)][:_MANIFESTS_MAX]
    return [path for path in found if path.is_file()]


def _name(manifest: Path, store: Path) -> str:
    host, namespace, model, tag = manifest.relative_to(store / "manifests").parts
    short = (host, namespace) == _USUAL
    return f"{model}:{tag}" if short else f"{host}/{namespace}/{model}:{tag}"
