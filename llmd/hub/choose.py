"""Which files of a repository are needed, and which quantization is right for this machine."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from llmd.errors import describe_bytes
from llmd.hub.failures import DownloadError
from llmd.hub.listing import RemoteFile, Repository
from llmd.weights.files import is_projector


@dataclass(frozen=True, slots=True)
class Choice:
    """A model that a repository offers.

    Attributes:
        label: How it is quantized: `Q4_K_M`; of MLX weights `mlx`.
        weights: Files of the model itself, the one that names it first.
        projector: What gives it eyes or ears, where the repository has that.
    """

    label: str
    weights: tuple[RemoteFile, ...]
    projector: RemoteFile | None = None

    @property
    def files(self) -> tuple[RemoteFile, ...]:
        """All that it needs, the one that names it first."""
        return self.weights if self.projector is None else (*self.weights, self.projector)

    @property
    def size_bytes(self) -> int:
        """Of all its files."""
        return sum(file.size_bytes for file in self.files)

    @property
    def need_bytes(self) -> int:
        """About what it takes to run it, with a context of some thousand tokens."""
        return self.size_bytes * 115 // 100 + 2**29


FINE: Final = ("Q8_0", "Q6_K", "Q5_K_M")
"""Worth it where they are small beside the budget: finer than the usual one, and slower."""

FINE_SHARE: Final = 4
"""Small is a quarter of the budget."""

USUAL: Final = ("Q4_K_M", "UD-Q4_K_XL", "MXFP4", "Q4_K_S", "IQ4_XS", "IQ4_NL", "Q4_0", "Q4_1")
"""Four bits: where answers are hardly worse and everything else is halved."""

_LABEL: Final = re.compile(
    r"(?<![A-Za-z0-9])((?:UD-)?(?:I?Q\d(?:_[A-Z0-9]+)*|TQ\d_\d|MXFP4|NVFP4|BF16|F16|FP16|F32))"
    r"(?![A-Za-z0-9])",
    re.IGNORECASE,
)
_SHARD: Final = re.compile(r"-\d{5}-of-\d{5}$")
_NO_MODEL: Final = ("mmproj", "imatrix")
_PROJECTORS: Final = ("F16", "FP16", "BF16", "Q8_0", "F32")
"""Precisions of projectors, the best first: finer than 16 bits shows nothing more."""
_MLX_FILES: Final = re.compile(
    r"(model[^/]*\.safetensors|[^/]+\.json|[^/]+\.jinja|[^/]+\.model|[^/]+\.tiktoken|"
    r"merges\.txt|vocab\.txt|1_Pooling/config\.json)"
)


def choices(repository: Repository, *, projectors: bool = True) -> list[Choice]:
    """What *repository* offers, the smallest first; with *projectors*, what gives it eyes, too.

    Raises:
        DownloadError: Nothing that llmd can run.
    """
    groups: dict[str, list[RemoteFile]] = {}
    for file in sorted(repository.files, key=lambda file: file.path):
        stem = file.path.lower().removesuffix(".gguf")
        if stem != file.path.lower() and not any(word in stem for word in _NO_MODEL):
            groups.setdefault(_SHARD.sub("", stem), []).append(file)
    projector = _projector(repository.files) if projectors else None
    found = [Choice(_label(files[0].path), tuple(files), projector) for files in groups.values()]
    tensors = [f for f in repository.files if re.fullmatch(r"model[^/]*\.safetensors", f.path)]
    if tensors and any(file.path == "config.json" for file in repository.files):
        rest = [f for f in repository.files if _MLX_FILES.fullmatch(f.path) and f not in tensors]
        found.append(Choice("mlx", (*rest, *tensors)))
    if not found:
        raise DownloadError(
            f"{repository.name} holds neither MLX nor GGUF weights",
            remedy="look for a conversion: its name often ends in -GGUF or -4bit",
        )
    return sorted(found, key=lambda choice: choice.size_bytes)


def named(offered: Sequence[Choice], wanted: str, repository: str) -> Choice:
    """The one of *offered* that *wanted* means: a quantization, or the name of a file.

    Raises:
        DownloadError: None, or several.
    """
    plain = wanted.lower().removesuffix(".gguf")
    fitting = [choice for choice in offered if choice.label.lower() == plain] or [
        choice
        for choice in offered
        for path in [_SHARD.sub("", choice.files[0].path.lower().removesuffix(".gguf"))]
        if path == plain or path.rpartition("/")[2] == plain
    ]
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        names = ", ".join(choice.files[0].name for choice in fitting[:4])
        raise DownloadError(
            f"{repository} has several of {wanted}: {names}",
            remedy=f"name the file: {repository}:{fitting[0].files[0].name}",
        )
    labels = ", ".join(dict.fromkeys(choice.label for choice in offered))
    raise DownloadError(f"{repository} has no {wanted}", remedy=f"it has {labels}")


def right_one(offered: Sequence[Choice], budget_bytes: int, repository: str) -> tuple[Choice, str]:
    """The one of *offered* that suits *budget_bytes* best, and why.

    Raises:
        DownloadError: Not even the smallest fits.
    """
    budget = describe_bytes(budget_bytes)
    for choice in offered:
        if choice.label == "mlx" and choice.need_bytes <= budget_bytes:
            return choice, "MLX weights"
    by_label = {choice.label.upper(): choice for choice in reversed(offered)}
    for label in FINE:
        fine = by_label.get(label)
        if fine is not None and fine.need_bytes * FINE_SHARE <= budget_bytes:
            return fine, f"it takes less than a quarter of the budget of {budget}"
    for label in USUAL:
        usual = by_label.get(label)
        if usual is not None and usual.need_bytes <= budget_bytes:
            return usual, f"the usual one, and it fits the budget of {budget}"
    fitting = [choice for choice in offered if choice.need_bytes <= budget_bytes]
    if not fitting:
        least = offered[0]
        raise DownloadError(
            f"{repository} is too large: {least.label}, its smallest, would need about "
            f"{describe_bytes(least.need_bytes)} of a budget of {budget}",
            remedy=f"name it to have it all the same: {repository}:{least.label}",
        )
    return fitting[-1], f"the largest that fits the budget of {budget}"


def _projector(files: Sequence[RemoteFile]) -> RemoteFile | None:
    """The one of *files* to take; None when there is none."""

    def rank(file: RemoteFile) -> tuple[int, int]:
        label = _label(file.path)
        place = _PROJECTORS.index(label) if label in _PROJECTORS else len(_PROJECTORS)
        return place, file.size_bytes

    return min((file for file in files if is_projector(file.name)), key=rank, default=None)


def _label(path: str) -> str:
    """How the file at *path* is quantized, by its name, else by its folder; else the name."""
    stem = _SHARD.sub("", path.removesuffix(".gguf").removesuffix(".GGUF"))
    for part in reversed(stem.split("/")):
        if found := _LABEL.findall(part):
            return str(found[-1]).upper()
    return stem.rpartition("/")[2]
