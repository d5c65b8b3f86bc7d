"""All the files that a profile names, found on this machine, and what running them takes."""

from collections.abc import Sequence
from pathlib import Path

from msgspec import Struct
from msgspec.structs import replace

from llmd.config.models import LlamaProfile, MlxProfile
from llmd.core.reduction import Extent
from llmd.core.shape import ModelShape
from llmd.weights.locate import locate
from llmd.weights.projector import locate_projector, projector_compute_bytes
from llmd.weights.shape import read_shape
from llmd.weights.sizing import Use


class Located(Struct, frozen=True):
    """What one profile runs.

    Attributes:
        profile: The description.
        model: An MLX directory, or a GGUF file (the first shard).
        shape: Of that model.
        draft: The weights that guess ahead, if any.
        draft_shape: Theirs.
        projector: The file that gives it eyes or ears, if any.
    """

    profile: MlxProfile | LlamaProfile
    model: Path
    shape: ModelShape
    draft: Path | None = None
    draft_shape: ModelShape | None = None
    projector: Path | None = None

    @property
    def weights(self) -> tuple[Path, ...]:
        """Files of the model and its draft."""
        shapes = (self.shape, self.draft_shape)
        return tuple(Path(file) for shape in shapes if shape is not None for file in shape.files)

    @property
    def files(self) -> tuple[Path, ...]:
        """All that a load reads."""
        return self.weights if self.projector is None else (*self.weights, self.projector)

    def at(self, size: Extent) -> "Located":
        """The same, run in another *size*."""
        changes = {
            "prompt_cache": size.prompt_cache_bytes,
            "parallel": size.sequences,
            "context": size.context_tokens,
        }
        return replace(self, profile=self.profile.model_copy(update=changes))

    def use(self) -> Use:
        """How the profile runs it."""
        use = Use(
            self.shape,
            context_tokens=self.profile.context,
            sequences=self.profile.parallel,
            prompt_cache_bytes=self.profile.prompt_cache,
            draft=self.draft_shape,
            args=self.profile.args,
        )
        if self.projector is None:
            return use
        return replace(
            use,
            projector_bytes=self.projector.stat().st_size,
            projector_compute_bytes=projector_compute_bytes(self.projector),
        )


def locate_all(
    profile: MlxProfile | LlamaProfile, *, models_dirs: Sequence[Path], config_dir: Path
) -> Located:
    """Find everything that *profile* names, and read its headers.

    Raises:
        WeightsError: Something is not there, or is not what its engine can read.
    """

    def find(model: str) -> tuple[Path, ModelShape]:
        path = locate(model, engine=profile.engine, models_dirs=models_dirs, config_dir=config_dir)
        return path, read_shape(path, profile.engine)

    model, shape = find(profile.model)
    draft, draft_shape = (None, None) if profile.draft_model is None else find(profile.draft_model)
    projector = None
    if isinstance(profile, LlamaProfile) and profile.projector is not None:
        projector = locate_projector(
            profile.projector, beside=model, models_dirs=models_dirs, config_dir=config_dir
        )
    return Located(profile, model, shape, draft, draft_shape, projector)
