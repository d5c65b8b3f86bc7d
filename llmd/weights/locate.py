"""From what a profile calls its model to where the weights are on this machine."""

import difflib
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from llmd.errors import WeightsError
from llmd.weights.files import check_complete, is_projector, shards_of


WALK_MAX_ENTRIES: Final = 20_000
"""Directory entries looked at in all: a `models_dirs` of `/` must not stop the daemon."""

WALK_DEPTH: Final = 4
"""`publisher/name/file.gguf` below a models directory, and one level of sorting by taste."""

_HUB: Final = re.compile(r"\w[\w.-]*/\w[\w.-]*")
_LATER_SHARD: Final = re.compile(r"-(?!0+1-of-)\d{5}-of-\d{5}\.gguf$", re.IGNORECASE)


def locate(model: str, *, engine: str, models_dirs: Sequence[Path], config_dir: Path) -> Path:
    """Where the weights of *model* are: an MLX directory, or a GGUF file (its first shard).

    *model* is a path (absolute, or relative when it begins with a dot), `publisher/name` or a name
    below one of *models_dirs*, or a repository in the Hugging Face cache. What is found is
    complete: all shards there, none cut off.

    Raises:
        WeightsError: There is no such model, it is ambiguous, not for *engine*, or incomplete.
    """
    kind = "gguf" if engine == "llama.cpp" else "mlx"
    if model.startswith(("/", "~", "./", "../")) or model in {".", ".."}:
        path = config_dir / Path(model).expanduser()
        if not path.exists():
            raise _not_found(model, f"there is nothing at {path}", kind, models_dirs)
        return _usable(path, model, kind)
    for place in _candidates(model, kind, models_dirs):
        return _usable(place, model, kind)
    searched = ", ".join(str(place) for place in (*models_dirs, hub_cache()))
    raise _not_found(model, f"not found in {searched}", kind, models_dirs)


def hub_cache() -> Path:
    """The Hugging Face cache: `HF_HUB_CACHE`, else `HF_HOME/hub`, else the usual place."""
    if chosen := os.environ.get("HF_HUB_CACHE") or os.environ.get("HUGGINGFACE_HUB_CACHE"):
        return Path(chosen).expanduser()
    home = os.environ.get("HF_HOME")
    if not home:
        cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
        home = f"{cache}/huggingface"
    return Path(home).expanduser() / "hub"


def models_on_disk(models_dirs: Sequence[Path]) -> Iterator[tuple[str, Path]]:
    """Every model found: the name a profile may use, and where it is.

    MLX directories and GGUF files (first shards) below *models_dirs*, then the Hugging Face cache.
    Bounded; unreadable directories are passed over.
    """
    left = WALK_MAX_ENTRIES
    for root in models_dirs:
        for path, is_dir, cost in _walk(root, left):
            left -= cost
            if is_dir or _is_model_file(path):
                yield str(path.relative_to(root)) if path != root else path.name, path
    for repository in entries_of(hub_cache()):
        if repository.name.startswith("models--") and (snapshot := snapshot_of(repository)):
            name = repository.name.removeprefix("models--").replace("--", "/")
            if (snapshot / "config.json").exists():
                yield name, snapshot
            for entry in entries_of(snapshot):
                if _is_model_file(entry):
                    yield f"{name}/{entry.name}", entry


def _candidates(model: str, kind: str, models_dirs: Sequence[Path]) -> Iterator[Path]:
    """Where *model* may be meant to be, best first."""
    parts = Path(model).parts
    if ".." not in parts:
        for root in models_dirs:
            for name in (model, f"{model}.gguf"):
                if (path := root / name).exists() and path != root:
                    yield path
        if snapshot := in_hub(model):
            yield snapshot
    wanted = model.lower().removesuffix(".gguf")
    matches: dict[Path, tuple[str, Path]] = {}  # by what it really is: a link is no second model
    for name, path in models_on_disk(models_dirs):
        known = re.sub(r"-0+1-of-\d{5}$", "", name.lower().removesuffix(".gguf"))
        if known == wanted or known.endswith(f"/{wanted}"):
            matches.setdefault(path.resolve(), (name, path))
    fitting = [match for match in matches.values() if (kind == "gguf") == (not match[1].is_dir())]
    chosen = fitting or list(matches.values())
    if len(chosen) > 1:
        names = ", ".join(sorted(name for name, _ in chosen)[:6])
        raise WeightsError(
            f"{model!r} may mean any of {names}", remedy="write the whole name in `model:`"
        )
    for _, path in chosen:
        yield path


def in_hub(model: str) -> Path | None:
    """The snapshot of repository *model* (`org/name`, or `org/name/file`) in the cache."""
    parts = model.split("/")
    if len(parts) < 2 or not _HUB.fullmatch("/".join(parts[:2])):
        return None
    snapshot = snapshot_of(hub_cache() / f"models--{parts[0]}--{parts[1]}")
    if snapshot is None:
        return None
    path = snapshot.joinpath(*parts[2:])
    return path if path.exists() else None


def snapshot_of(repository: Path) -> Path | None:
    """The revision that `refs/main` names, else the newest one."""
    snapshots = repository / "snapshots"
    try:
        with (repository / "refs" / "main").open("rb") as file:
            revision = file.read(100).decode("ascii", "replace").strip()
        if re.fullmatch(r"[0-9A-Za-z._-]+", revision) and (snapshots / revision).is_dir():
            return snapshots / revision
    except OSError:
        pass
    found = [entry for entry in entries_of(snapshots) if entry.is_dir()]
    return max(found, key=lambda entry: entry.stat().st_mtime, default=None)


def _usable(path: Path, model: str, kind: str) -> Path:
    """*path*, or the one GGUF file in it, once it is known to be whole and of the right kind."""
    if kind == "gguf":
        path = _gguf_at(path, model)
    elif path.is_file():
        suffix = path.suffix.lower()
        what = "a GGUF file" if suffix == ".gguf" else "a file"
        remedy = (
            "use engine llama.cpp" if suffix == ".gguf" else f"name its directory {path.parent}"
        )
        raise WeightsError(f"{path} is {what}; MLX weights are a directory", remedy=remedy)
    check_complete(path)
    return path


def _gguf_at(path: Path, model: str) -> Path:
    if path.is_file():
        if _LATER_SHARD.search(path.name):
            return shards_of(path)[0]
        return path
    files = [entry for entry in entries_of(path) if _is_model_file(entry)]
    if len(files) == 1:
        return files[0]
    if files:
        names = ", ".join(sorted(entry.name for entry in files)[:6])
        raise WeightsError(
            f"{path} holds {len(files)} GGUF models: {names}",
            remedy=f"name one: `model: {model}/{min(entry.name for entry in files)}`",
        )
    mlx = (path / "config.json").exists()
    raise WeightsError(
        f"{path} holds no GGUF file",
        remedy="it looks like MLX weights: use engine mlx" if mlx else "check the path in `model:`",
    )


def _is_model_file(path: Path) -> bool:
    """A GGUF file that can be loaded by itself: no projector, no later shard."""
    name = path.name.lower()
    return name.endswith(".gguf") and not is_projector(name) and not _LATER_SHARD.search(name)


def _walk(root: Path, limit: int) -> Iterator[tuple[Path, bool, int]]:
    """MLX directories and files below *root*: path, whether a directory, entries looked at."""
    pending = [(root, 0)]
    while pending and limit > 0:
        directory, depth = pending.pop(0)
        entries = entries_of(directory, limit)
        cost = max(1, len(entries))
        limit -= cost
        if any(entry.name == "config.json" for entry in entries) and any(
            entry.name.endswith(".safetensors") for entry in entries
        ):
            yield directory, True, cost
            cost = 0
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if entry.suffix.lower() == ".gguf":
                yield entry, False, cost
                cost = 0
            elif depth < WALK_DEPTH and entry.is_dir():
                pending.append((entry, depth + 1))


def entries_of(directory: Path, limit: int = WALK_MAX_ENTRIES) -> list[Path]:
    """What is in *directory*, at most *limit* entries; nothing when it cannot be read."""
    found: list[Path] = []
    try:
        with os.scandir(directory) as entries:
            for entry in entries:
                if len(found) >= limit:
                    break
                found.append(Path(entry.path))
    except OSError:
        return []
    return sorted(found)


def _not_found(model: str, where: str, kind: str, models_dirs: Sequence[Path]) -> WeightsError:
    names = {
        name: path
        for name, path in models_on_disk(models_dirs)
        if (kind == "gguf") == (not path.is_dir())
    }
    wanted = model.rstrip("/").rsplit("/", 1)[-1].lower()
    last = {name.rsplit("/", 1)[-1].lower(): name for name in sorted(names)}
    close = difflib.get_close_matches(wanted, last, n=3, cutoff=0.5)
    if close:
        hint = f"did you mean {' or '.join(last[name] for name in close)}?"
    elif names:
        hint = f"on disk are {', '.join(sorted(names)[:5])}"
    else:
        hint = "add the directory that holds it to `models_dirs`"
    if _HUB.fullmatch(model):
        hint += f"; or download it: llmd-ctl pull {model}"
    return WeightsError(f"no weights for {model!r}: {where}", remedy=hint)
