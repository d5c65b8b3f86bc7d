"""What a model would take, run in a given way; and the longest context that a budget allows."""

import platform
import sys
from typing import Final, Literal

from msgspec import Struct
from msgspec.structs import replace

from llmd.core.footprint import Footprint, ModelShape, default_context, estimate
from llmd.weights.projector import PROJECTOR_COMPUTE_BYTES


ARM64: Final = platform.machine() in ("arm64", "aarch64")
PLATFORM: Final[Literal["linux", "darwin"]] = "darwin" if sys.platform == "darwin" else "linux"

DEFAULT_SEQUENCES: Final = 2
"""A profile's `parallel`, where it has none."""

CONTEXT_STEP_TOKENS: Final = 256
_UNKNOWN_CONTEXT_TOKENS: Final = 2**20
"""How far to look when a model does not say what it was trained for."""


class Use(Struct, frozen=True):
    """One way to run one model.

    Attributes:
        shape: The weights.
        context_tokens: Of one sequence; None is what a profile gets that names none.
        sequences: Generated at the same time.
        prompt_cache_bytes: For earlier prompts; None is one sequence's whole context, which is
            what a profile gets that names none.
        draft: Small weights that guess ahead, if any.
        projector_bytes: Of the file that gives it eyes or ears; 0 without one.
        projector_compute_bytes: What that takes to encode a picture.
        args: Further flags of the engine.
    """

    shape: ModelShape
    context_tokens: int | None = None
    sequences: int = DEFAULT_SEQUENCES
    prompt_cache_bytes: int | None = None
    draft: ModelShape | None = None
    projector_bytes: int = 0
    projector_compute_bytes: int = PROJECTOR_COMPUTE_BYTES
    args: tuple[str, ...] = ()

    @property
    def context(self) -> int:
        """Tokens of one sequence."""
        return self.context_tokens or default_context(self.shape)

    def footprint(self) -> Footprint:
        """What the daemon would charge before it has learned better, by cause."""
        total = Footprint()
        for shape in (self.shape, self.draft):
            if shape is not None:
                total = total.plus(
                    estimate(
                        shape,
                        context_tokens=self.context,
                        sequences=self.sequences,
                        prompt_cache_bytes=0,
                        platform=PLATFORM,
                        arm64=ARM64,
                        args=self.args,
                    )
                )
        kept = self.prompt_cache_bytes
        if kept is None:
            # One whole conversation: mlx_lm drops an entry that is larger than the cache.
            kept = total.cache_bytes // self.sequences
        total = replace(total, prompt_cache_bytes=kept)
        if not self.projector_bytes:
            return total
        return total.plus(
            Footprint(
                weights_bytes=self.projector_bytes, compute_bytes=self.projector_compute_bytes
            )
        )


def largest_context(use: Use, room_bytes: int) -> int:
    """Tokens of one sequence that fit *room_bytes*, at most what the model was trained for.

    A multiple of 256, as far as the model's own limit is one; 0 when not even 256 fit.
    """
    most = use.shape.context_tokens or _UNKNOWN_CONTEXT_TOKENS

    def fits(tokens: int) -> bool:
        return replace(use, context_tokens=tokens).footprint().total_bytes <= room_bytes

    if fits(most):
        return most
    low, high = 0, -(-most // CONTEXT_STEP_TOKENS)  # low fits (0 stands for none), high does not
    while high - low > 1:
        middle = (low + high) // 2
        if fits(middle * CONTEXT_STEP_TOKENS):
            low = middle
        else:
            high = middle
    return low * CONTEXT_STEP_TOKENS
