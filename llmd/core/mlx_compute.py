"""What MLX holds while it computes, and what it keeps of that for the next time.

Pure arithmetic, as in `llmd.core.footprint`. Measured with tests/bench/footprint.py on a CPU, where
MLX has fewer kernels and so writes more out; a GPU is assumed to do the same with what it lacks.
"""

from typing import Final

from llmd.core.shape import ModelShape, Platform


_MIB: Final = 2**20

PREFILL_TOKENS: Final[dict[Platform, int]] = {"linux": 512, "darwin": 2048}
"""Tokens of a prompt that mlx_lm processes at once (`--prefill-step-size`), at most. Its default is
2048; on a CPU 128 to 512 are a third faster, since less is computed that the mask then hides."""

PREFILL_TOKENS_MIN: Final = 64

SCORES_BYTES: Final[dict[Platform, int]] = {"linux": 32 * _MIB, "darwin": 512 * _MIB}
"""What attention scores may take where no kernel avoids writing them out; `prefill_tokens`."""

PREFILL_TOGETHER: Final = 8
"""Prompts that the MLX host processes at once, at most (`--prompt-concurrency`)."""

CACHE_STEP_TOKENS: Final = 256
"""The key-value cache grows by so many tokens (mlx_lm's `KVCache.step`)."""

RECURRENT_TOKENS: Final = 256
"""Tokens that a recurrent layer works through at once (mlx_lm's `ssm_attn`)."""

BUFFER_CACHE_BYTES: Final[dict[Platform, int]] = {"linux": 24 * _MIB, "darwin": 1024 * _MIB}
"""Freed buffers kept for reuse, at most: `kept_buffer_bytes`. A GPU's are dear to make; a CPU's are
memory like any other."""

_PIECES_BYTES: Final = 5 * _MIB
"""What glibc keeps besides, in pieces. At the peak, that and kept buffers were 14 to 32 MiB, more
or less as requests happened to overlap; too little is worse than too much."""

_FUSED_HEAD_DIMS: Final = {64, 80, 128}
"""Where MLX has a Metal kernel that never writes attention scores out."""

_SCORE_COPIES: Final = 1.5
"""Copies of the scores alive at once where it has not: masked, and after the softmax. Measured 1.2
to 2.0 on the CPU, with one and two sequences, float16 and float32."""

_TOKEN_LOADING_BYTES: Final = 500
"""Of the vocabulary, while the tokenizer loads: 72 MiB with 152,000 tokens."""


def prefill_tokens(
    shape: ModelShape, *, context_tokens: int, sequences: int, platform: Platform
) -> int:
    """How many tokens of a prompt MLX should process at once (`--prefill-step-size`).

    A power of two that keeps attention scores within `SCORES_BYTES`, where they are written out: a
    long context would need gigabytes for them at mlx_lm's default of 2048.
    """
    step = PREFILL_TOKENS[platform]
    if _writes_scores(shape, platform):
        each = _scores_bytes(shape, context_tokens, sequences)
        while step > PREFILL_TOKENS_MIN and step * each > SCORES_BYTES[platform]:
            step //= 2
    return step


def compute_bytes(
    shape: ModelShape, step_tokens: int, context_tokens: int, sequences: int, platform: Platform
) -> int:
    """The largest step, *step_tokens* of a prompt for several sequences; and buffers kept of it.

    While it loads, other things take room than while it computes; the larger of both counts.
    """
    total = _working_bytes(shape, step_tokens, context_tokens, sequences, platform)
    total += _kept_bytes(total, platform)
    if platform == "darwin":
        return total
    return max(total + _PIECES_BYTES, shape.vocab * _TOKEN_LOADING_BYTES)


def cache_tokens(context_tokens: int, step_tokens: int, sequences: int) -> int:
    """Of one sequence in the key-value cache, at most: whole steps of what mlx_lm adds to it.

    In a batch, a prompt's last piece has the length of the longest beside it: padding goes in
    front (`BatchKVCache.finalize`), and so all sequences get longer by a whole piece.
    """
    piece = min(step_tokens, context_tokens) if sequences > 1 else 1
    longest = -(-context_tokens // piece) * piece
    return -(-longest // CACHE_STEP_TOKENS) * CACHE_STEP_TOKENS


def kept_buffer_bytes(
    shape: ModelShape, *, step_tokens: int, context_tokens: int, sequences: int, platform: Platform
) -> int:
    """How many bytes of freed buffers the host may keep for reuse."""
    total = _working_bytes(shape, step_tokens, context_tokens, sequences, platform)
    return _kept_bytes(total, platform)


def _kept_bytes(working_bytes: int, platform: Platform) -> int:
    most = BUFFER_CACHE_BYTES[platform]
    return most if platform == "linux" else min(most, 2 * working_bytes)


def _working_bytes(
    shape: ModelShape, step_tokens: int, context_tokens: int, sequences: int, platform: Platform
) -> int:
    """Intermediate results of the largest step."""
    step = min(step_tokens, context_tokens)
    together = min(sequences, PREFILL_TOGETHER)
    widest = 3 * max(shape.intermediate, shape.heads * shape.head_dim) + 4 * shape.hidden
    widest += 3 * shape.experts_used * shape.hidden  # put in the order of experts, and back
    total = together * step * widest * shape.element_bytes
    scores = 0
    if _writes_scores(shape, platform):
        scores = step * _scores_bytes(shape, context_tokens, sequences)
        total += int(scores * _SCORE_COPIES)
    moving = _moving_bytes(shape, context_tokens, sequences)
    if platform == "linux":
        widest += _attention_numbers(shape)
        moving += together * step * widest * shape.element_bytes + scores
    total = max(total, moving)
    total += together * context_tokens * shape.expanded * shape.element_bytes
    total += 3 * sequences * shape.vocab * 4  # logits, log-probabilities, their sorted copy
    if platform == "linux":
        scratch = max((layer.scratch_bytes for layer in shape.layers), default=0)
        total += together * min(step, RECURRENT_TOKENS) * scratch
        if shape.element_bytes == 2 and not shape.quantization.endswith("bit"):
            # The CPU multiplies half-precision matrices as float32: one layer's, converted.
            total += 3 * shape.hidden * shape.intermediate * 4
    return total


def _attention_numbers(shape: ModelShape) -> int:
    """What attention makes of one token on a CPU: outputs of the operations from norm to product.

    There MLX allocates for all that it has queued: ten tasks of ten dispatches, two of which an
    operation takes (its `cpu/encoder.h`). That reaches from one layer's feed-forward part to the
    next one's attention, where nothing is fused: two outputs of the input's norm; queries
    projected, normed (two), rotated (three), scaled, and the product; keys the same but for the
    last two, values, and their zeros in the cache.
    """
    keys = max((layer.key_elements for layer in shape.layers), default=0)
    return 2 * shape.hidden + 8 * shape.heads * shape.head_dim + 7 * keys


def _moving_bytes(shape: ModelShape, context_tokens: int, sequences: int) -> int:
    """The largest layer of the cache: the old one, while a longer or another batch is made of it.

    mlx_lm never adds to a cache in place when it is full, nor when sequences come or go. The host
    sees to it that this is done for one layer at a time (`llmd.hosts.mlx_caches`).
    """
    layers = (
        (layer.key_elements + layer.value_elements)
        * min(context_tokens, layer.window_tokens or context_tokens)
        for layer in shape.layers
    )
    return max(layers, default=0) * shape.element_bytes * sequences


def _writes_scores(shape: ModelShape, platform: Platform) -> bool:
    """Whether MLX writes out the scores of every head and pair of tokens.

    Latent attention does on a GPU, too: positions have scores of their own, which are added.
    """
    return platform == "linux" or shape.head_dim not in _FUSED_HEAD_DIMS or bool(shape.expanded)


def _scores_bytes(shape: ModelShape, context_tokens: int, sequences: int) -> int:
    """Scores of one prompt token of each sequence processed together, one copy."""
    together = min(sequences, PREFILL_TOGETHER)
    return together * shape.heads * context_tokens * shape.element_bytes
