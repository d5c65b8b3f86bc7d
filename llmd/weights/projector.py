"""Projectors (`mmproj`): GGUF files that give a model eyes or ears, and are no model themselves."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from llmd.errors import WeightsError
from llmd.weights import gguf
from llmd.weights.files import is_projector
from llmd.weights.locate import entries_of, in_hub
from llmd.weights.numbers import count


PROJECTOR_COMPUTE_BYTES: Final = 192 * 2**20
"""To encode a picture where the file does not tell: a guess, until it is learned."""

_ONE_SIZE: Final = frozenset({"mlp", "gemma3", "idefics3", "internvl", "janus_pro"})
"""Projectors whose pictures, or tiles of them, all become as large as the file says."""

_SIDE_MAX: Final = 8192
"""Pixels; a larger number is damage."""

_REQUEST_BYTES: Final = 16 * 2**20
"""Around a picture: its text, the template, threads' buffers. Measured 10 to 20 MiB."""

_PICTURE_COPIES: Final = 5
"""Of the picture as numbers, besides the encoder's input, while it is decoded and resized."""


def projector_compute_bytes(path: Path) -> int:
    """What llama.cpp takes to encode a picture with the projector at *path*, beside its weights.

    Its buffer has the picture and, for each patch, the widest of a layer: the feed-forward part
    between two rows of the residual, or queries, keys and values with their copies. Measured with
    six projectors of type `mlp` on Linux, on the CPU with flash attention: its log's `compute
    buffer size` was 72 to 100 % of it, and a first picture's peak within 8 MiB. A GPU's buffers are
    taken to be the same. Encoders that take pictures of any size are charged the guess, at least.
    """
    try:
        metadata = gguf.read_header(path).metadata
    except WeightsError:
        return PROJECTOR_COMPUTE_BYTES  # llama.cpp will say what is wrong with it
    data = {key.removeprefix("clip.vision."): value for key, value in metadata.items()}
    side, patch = count(data, "image_size"), count(data, "patch_size")
    width, inner = count(data, "embedding_length"), count(data, "feed_forward_length")
    if not (0 < side <= _SIDE_MAX and patch and width):
        return PROJECTOR_COMPUTE_BYTES
    patches = (side // patch) ** 2 + 1
    picture = side * side * 3 * 4
    total = patches * max(inner + 2 * width, 6 * width) * 4 + picture
    total += _PICTURE_COPIES * picture + _REQUEST_BYTES
    kind = metadata.get("clip.projector_type", data.get("projector_type"))
    return total if kind in _ONE_SIZE else max(total, PROJECTOR_COMPUTE_BYTES)


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
