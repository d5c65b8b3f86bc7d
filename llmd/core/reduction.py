"""A profile that died of memory is next started smaller: by how much, and for how long.

What costs least is given up first: earlier prompts are kept to save time only, several sequences to
share it, and the context is what a client counts on.
"""

from typing import Final

from msgspec import Struct
from msgspec.structs import replace

from llmd.errors import describe_bytes


REDUCED_S: Final = 24 * 3600.0
"""After so long without another such death, the next load has its full size again: what took the
memory may have been another program."""

CONTEXT_TOKENS_MIN: Final = 2048
"""No context is made smaller than that: a client's first message would not fit."""


class Extent(Struct, frozen=True):
    """What makes one set of weights take more or less memory."""

    prompt_cache_bytes: int
    sequences: int
    context_tokens: int


class Reduction(Struct, frozen=True):
    """That a profile runs smaller than its configuration says.

    Attributes:
        size: Which of its smaller sizes, from 1.
        since_s: When it last died of memory, on the scheduler's clock.
        fingerprint: Of its full size; another configuration is tried whole.
    """

    size: int
    since_s: float
    fingerprint: str

    def overdue(self, now: float) -> bool:
        """Whether it has lasted long enough. A ledger may name any time, a later one as well."""
        return not 0 <= now - self.since_s < REDUCED_S


def smaller_sizes(full: Extent) -> tuple[Extent, ...]:
    """What to run instead of *full*, each smaller than the one before; none when it is minimal."""
    least_tokens = min(CONTEXT_TOKENS_MIN, full.context_tokens)
    alone = Extent(0, 1, full.context_tokens)
    steps = (
        replace(full, prompt_cache_bytes=full.prompt_cache_bytes // 4),
        alone,
        replace(alone, context_tokens=max(full.context_tokens // 2, least_tokens)),
        replace(alone, context_tokens=max(full.context_tokens // 4, least_tokens)),
    )
    return tuple(size for size in dict.fromkeys(steps) if size != full)


def describe_reduction(full: Extent, now: Extent) -> str:
    """What is smaller, for people."""
    parts = []
    if now.prompt_cache_bytes != full.prompt_cache_bytes:
        was = describe_bytes(full.prompt_cache_bytes)
        kept = describe_bytes(now.prompt_cache_bytes) if now.prompt_cache_bytes else "nothing"
        parts.append(f"prompt cache {kept} instead of {was}")
    if now.sequences != full.sequences:
        parts.append(f"{now.sequences} sequence instead of {full.sequences}")
    if now.context_tokens != full.context_tokens:
        parts.append(f"context {now.context_tokens:,} instead of {full.context_tokens:,}")
    return ", ".join(parts)
