"""Projectors (`mmproj`): GGUF files that give a model eyes or ears, and are no model themselves."""

from collections.abc import Sequence
from pathlib import Path

from llmd.errors import WeightsError
from llmd.weights.files import is_projector
from llmd.weights.locate import entries_of, in_hub


def locate_projector(
    name: str, *, beside: Path, models_dirs: Sequence[Path], config_dir: Path
) -> Path:
    """Where the projector called *name* is.

    Args:
        name: A file beside the weights; or a path, or a name below one of *models_dirs* or in the
            Hugging Face cache, as for `model`.
        beside: The weights.
        models_dirs: Where weights are looked for.
        config_dir: What relative paths start from.

    Raises:
        WeightsError: It is not there, or no GGUF file.
    """
    path = Path(name).expanduser()
    if path.is_absolute() or name.startswith(("./", "../")):
        places = [config_dir / path]
    elif ".." in path.parts:
        places = []
    else:
        places = [beside.parent / path, *(root / path for root in models_dirs)]
        if (cached := in_hub(name)) is not None:
            places.append(cached)
    for place in places:
        if place.is_file():
            return _checked(place)
    near = sorted(entry.name for entry in entries_of(beside.parent) if is_projector(entry.name))
    raise WeightsError(
        f"no projector {name!r}: it is neither beside {beside} nor below `models_dirs`",
        remedy=f"write `projector: {near[0]}`" if near else "give its path in `projector:`",
    )


def _checked(path: Path) -> Path:
    try:
        with path.open("rb") as file:
            magic = file.read(4)
    except OSError as error:
        raise WeightsError(
            f"cannot read {path}: {error.strerror}", remedy="look at its permissions"
        ) from error
    if magic != b"GGUF":
        raise WeightsError(f"{path} is no GGUF file", remedy="download the projector again")
    return path
