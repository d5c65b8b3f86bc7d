"""Every model on this machine, found by name and place; nothing is loaded, copied or changed.

Looks below the configuration's `models_dirs`, into LM Studio's folders, the Hugging Face cache and
Ollama's store. What is there twice through links counts once, by the name that was met first.
"""

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from msgspec import Struct, field

from llmd.core.shape import Format
from llmd.weights import ollama
from llmd.weights.files import is_projector
from llmd.weights.locate import (
    WALK_DEPTH,
    WALK_MAX_ENTRIES,
    entries_of,
    hub_cache,
    snapshot_of,
)


PARTIAL: Final = (".incomplete", ".part", ".partial", ".download", ".crdownload")
"""How programs that download call a file which is not whole yet."""

_SHARD: Final = re.compile(r"(?P<stem>.+)-(?P<no>\d{5})-of-(?P<count>\d{5})\.gguf", re.IGNORECASE)
_POINTER_MAX_BYTES: Final = 4096


class Weights(Struct, frozen=True):
    """One model on disk, or what there is of it.

    Attributes:
        name: For people: below the folder it was found in, or as its repository is called.
        model: What a profile writes in `model:` to mean it.
        path: An MLX directory, or a GGUF file: the first of the shards that are there.
        format: Which engines can read it.
        size_bytes: Of its files as they are on disk, projectors and tokenizer included.
        projectors: Files that give it eyes or ears; no models of their own.
        partial_bytes: Of downloads in it that have not ended; None when there are none.
    """

    name: str
    model: str
    path: Path
    format: Format
    size_bytes: int
    projectors: tuple[Path, ...] = ()
    partial_bytes: int | None = None


class Place(Struct, frozen=True):
    """A folder to look into.

    Attributes:
        root: Where the walk begins.
        prefix: Put before names; a repository of the Hugging Face cache is called by it alone.
        looked_up: A profile may use the name; elsewhere it must write the path.
    """

    root: Path
    prefix: str = ""
    looked_up: bool = True


def discover(
    models_dirs: Sequence[Path],
    environ: Mapping[str, str] = os.environ,
    *,
    entries_max: int = WALK_MAX_ENTRIES,
) -> list[Weights]:
    """All models found, in the order of the places.

    Looks at *entries_max* directory entries in all, and is safe against links in circles.
    """
    walk = _Walk(entries_max)
    found: dict[Path, Weights] = {}
    for place in places(models_dirs, environ):
        for weights in walk.models_in(place):
            found.setdefault(_identity(weights), weights)
    for name, blob, size_bytes in ollama.models(environ):
        weights = Weights(f"ollama/{name}", str(blob), blob, "gguf", size_bytes)
        found.setdefault(_identity(weights), weights)
    for repository, partial_bytes in _unfinished_repositories():
        names = [weights.name for weights in found.values()]
        if not any(name == repository or name.startswith(f"{repository}/") for name in names):
            # An unfinished part of what is there already needs no line of its own.
            path = hub_cache() / f"models--{repository.replace('/', '--')}"
            found[path] = Weights(repository, repository, path, "mlx", 0, (), partial_bytes)
    return list(found.values())


def named(wanted: str, found: Sequence[Weights]) -> list[Weights]:
    """Those of *found* that *wanted* may mean: a path, a whole name, or the end of one.

    A directory means the GGUF files in it. What fits best hides the rest, and the first of one name
    those in later places, so that more than one answer is an ambiguity.
    """
    path = Path(wanted).expanduser()
    if path.is_absolute() or wanted.startswith((".", "~")):
        there = [weights for weights in found if _same(weights.path, path)]
        return there or [weights for weights in found if _same(weights.path.parent, path)]
    plain = _plain(wanted)
    for fits in (
        lambda name: name == plain,
        lambda name: name.endswith(f"/{plain}"),
        lambda name: f"/{name}".rpartition("/")[0].endswith(f"/{plain}"),
    ):
        chosen: dict[str, Weights] = {}
        for weights in found:
            if fits(_plain(weights.name)):
                chosen.setdefault(weights.name, weights)
        if chosen:
            return list(chosen.values())
    return []


def _plain(name: str) -> str:
    return re.sub(r"-\d{5}-of-\d{5}$", "", name.lower().removesuffix(".gguf"))


def _same(one: Path, other: Path) -> bool:
    try:
        return one.samefile(other)
    except OSError:
        return False


def places(models_dirs: Sequence[Path], environ: Mapping[str, str] = os.environ) -> list[Place]:
    """Where models may be: those of the configuration first, then other programs' folders."""
    found = [Place(root) for root in models_dirs]
    home = Path(environ.get("HOME") or Path.home())
    found += [Place(root, looked_up=False) for root in _lm_studio(home) if root not in models_dirs]
    for repository in entries_of(hub_cache()):
        if repository.name.startswith("models--") and (snapshot := snapshot_of(repository)):
            name = repository.name.removeprefix("models--").replace("--", "/")
            found.append(Place(snapshot, prefix=name))
    return found


def _lm_studio(home: Path) -> Iterator[Path]:
    """LM Studio's models, where it keeps them now, was told to keep them, and kept them before."""
    yield home / ".lmstudio" / "models"
    try:
        with (home / ".lmstudio-home-pointer").open("rb") as file:
            named = file.read(_POINTER_MAX_BYTES).decode("utf-8", "replace").strip()
    except OSError:
        named = ""
    if named.startswith(("/", "~")):
        yield Path(named.replace("~", str(home), 1) if named[0] == "~" else named) / "models"
    yield home / ".cache" / "lm-studio" / "models"


def _unfinished_repositories() -> Iterator[tuple[str, int]]:
    """Repositories of the Hugging Face cache with downloads that have not ended, and their bytes.

    A file of it has its name only once it is whole: until then it is called by its checksum.
    """
    for repository in entries_of(hub_cache()):
        if repository.name.startswith("models--"):
            partial = [blob for blob in entries_of(repository / "blobs") if _is_partial(blob.name)]
            if partial:
                name = repository.name.removeprefix("models--").replace("--", "/")
                yield name, sum(map(_size, partial))


class _Walk(Struct):
    """A walk over all places, with one bound for all, that enters no directory twice."""

    left: int
    entered: set[tuple[int, int]] = field(default_factory=set)

    def models_in(self, place: Place) -> Iterator[Weights]:
        """Models below the root of *place*, those nearest to it first."""
        pending = [(place.root, 0)]
        while pending and self.left > 0:
            directory, depth = pending.pop(0)
            if not self._enter(directory):
                continue
            entries = entries_of(directory, self.left)
            self.left -= max(1, len(entries))
            yield from _models_among(entries, directory, place)
            if depth < WALK_DEPTH:
                pending += [
                    (entry, depth + 1)
                    for entry in entries
                    if not entry.name.startswith(".") and entry.is_dir()
                ]

    def _enter(self, directory: Path) -> bool:
        try:
            status = directory.stat()
        except OSError:
            return False
        key = (status.st_dev, status.st_ino)
        if key in self.entered:
            return False
        self.entered.add(key)
        return True


def _models_among(entries: list[Path], directory: Path, place: Place) -> Iterator[Weights]:
    """The models that lie in *directory* itself."""
    partial = [entry for entry in entries if _is_partial(entry.name)]
    names = {entry.name for entry in entries}
    tensors = any(name.endswith(".safetensors") for name in names)
    if "config.json" in names and (
        tensors or any(".safetensors" in entry.name for entry in partial)
    ):
        kept = [entry for entry in entries if entry not in partial and entry.suffix != ".gguf"]
        yield _weights(place, directory, "mlx", kept, (), partial)
        partial = [entry for entry in partial if ".safetensors" not in entry.name]
    projectors = tuple(entry for entry in entries if is_projector(entry.name))
    for shards in _grouped(entries):
        yield _weights(place, shards[0], "gguf", [*shards, *projectors], projectors, ())
    for entry in partial:
        if ".gguf" in entry.name.lower() and not is_projector(entry.name):
            yield _weights(place, entry, "gguf", [], (), [entry])


def _weights(
    place: Place,
    path: Path,
    kind: Format,
    files: Sequence[Path],
    projectors: tuple[Path, ...],
    partial: Sequence[Path],
) -> Weights:
    below = path.relative_to(place.root).as_posix()
    name = "/".join(part for part in (place.prefix, "" if below == "." else below) if part)
    name = name or path.name
    return Weights(
        name=name,
        model=name if place.looked_up else str(path),
        path=path,
        format=kind,
        size_bytes=sum(map(_size, files)),
        projectors=projectors,
        partial_bytes=sum(map(_size, partial)) if partial else None,
    )


def _grouped(entries: Sequence[Path]) -> list[list[Path]]:
    """GGUF models among *entries*: each a list of its shards, in order."""
    groups: dict[str, list[Path]] = {}
    for entry in sorted(entries):
        if entry.suffix.lower() == ".gguf" and not is_projector(entry.name):
            shard = _SHARD.fullmatch(entry.name)
            key = f"{shard['stem']}/{shard['count']}" if shard else entry.name
            groups.setdefault(key, []).append(entry)
    return list(groups.values())


def _identity(weights: Weights) -> Path:
    """What a model really is: where its weights lead, links followed."""
    path = weights.path
    if weights.format == "mlx" and path.is_dir():
        tensors = sorted(entry for entry in entries_of(path) if entry.suffix == ".safetensors")
        path = tensors[0] if tensors else path
    try:
        return path.resolve()
    except (OSError, RuntimeError):  # a link in a circle
        return path


def _is_partial(name: str) -> bool:
    return name.lower().endswith(PARTIAL)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
