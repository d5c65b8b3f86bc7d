"""How many bytes a profile will hold: weights, context, caches, buffers and the runtime itself.

Pure arithmetic on what the headers of the weights say (`llmd.weights.shape` reads them). The sum is
meant as a ceiling that real use reaches: every sequence at its full context, the prompt cache full.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Final, Literal

from llmd.core.shape import Format, LayerCache, ModelShape


__all__ = [
    "Footprint",
    "LayerCache",
    "ModelShape",
    "Platform",
    "default_context",
    "estimate",
    "prefill_tokens",
    "spare_bytes",
]

MIB: Final = 2**20

Platform = Literal["linux", "darwin"]

DEFAULT_CONTEXT_TOKENS: Final = 32768
"""A profile without `context` gets the model's own, at most this."""

MLX_PREFILL_TOKENS: Final[dict[Platform, int]] = {"linux": 512, "darwin": 2048}
"""Tokens of a prompt that mlx_lm processes at once (`--prefill-step-size`), at most. Its default is
2048; on a CPU 128 to 512 are a third faster, since less is computed that the mask then hides."""

MLX_PREFILL_TOKENS_MIN: Final = 64

MLX_SCORES_BYTES: Final[dict[Platform, int]] = {"linux": 32 * MIB, "darwin": 512 * MIB}
"""What attention scores may take where no kernel avoids writing them out; `prefill_tokens`."""

MLX_PREFILL_TOGETHER: Final = 8
"""Prompts that the MLX host processes at once, at most (`--prompt-concurrency`)."""

MLX_BUFFER_CACHE_BYTES: Final = 2**30
"""Freed Metal buffers that the MLX host keeps for reuse, at most (its `buffer_cache_bytes`)."""

LLAMA_UBATCH_TOKENS: Final = 512
"""Tokens that llama.cpp computes at once (`--ubatch-size`)."""

LLAMA_CHECKPOINTS: Final = 32
LLAMA_CHECKPOINT_TOKENS: Final = 8192
"""Models that cannot roll back (sliding window, recurrent): the server keeps at most so many copies
of a sequence's state (`--ctx-checkpoints`): one for so many tokens, two near the prompt's end."""

# Measured on Linux x86-64 with hosts of this project (mlx 0.32, xllamacpp 2026.10), VmRSS:
# an MLX host that has imported everything 75 MiB, with the demo model loaded 87; a llama host with
# xllamacpp imported 31, with a model of 1,024 tokens loaded 42. macOS: by the same parts, plus
# Metal's compiled kernels; to be replaced by learned marks.
_SPARE_BYTES: Final[dict[Platform, int]] = {"linux": 80 * MIB, "darwin": 192 * MIB}
_RUNTIME_BYTES: Final[dict[tuple[Format, Platform], int]] = {
    ("mlx", "linux"): 90 * MIB,
    ("mlx", "darwin"): 224 * MIB,
    ("gguf", "linux"): 56 * MIB,
    ("gguf", "darwin"): 128 * MIB,
}

# A token of the vocabulary with its merges, in the tokenizer's tables. Measured with 152,000
# tokens: mlx_lm (transformers, tokenizers) 146 MiB, and 72 more while it loads; llama.cpp 56 MiB.
_TOKEN_BYTES: Final[dict[Format, int]] = {"mlx": 1010, "gguf": 400}
_MLX_TOKEN_LOADING_BYTES: Final = 500

_CACHE_STEP_TOKENS: Final = 256
"""Both engines allocate the key-value cache in steps of so many tokens."""

_CACHE_TYPE_BYTES: Final = {
    "f32": 4.0, "f16": 2.0, "bf16": 2.0, "q8_0": 34 / 32, "q5_1": 24 / 32, "q5_0": 22 / 32,
    "q4_1": 20 / 32, "q4_0": 18 / 32, "iq4_nl": 18 / 32,
}  # fmt: skip

_FUSED_HEAD_DIMS: Final = {64, 80, 128}
"""Where MLX has a Metal kernel that never writes attention scores out."""

_SCORE_COPIES: Final = 1.5
"""Copies of the scores alive at once where it has not: masked, and after the softmax. Measured 1.2
to 2.0 on the CPU, with one and two sequences, float16 and float32."""

_MALLOC_SLACK_BYTES: Final = 20 * MIB
"""Freed memory that glibc and MLX keep on Linux: 14 to 32 MiB measured at the peak."""

_REPACKED_X86: Final = {"Q4_0", "Q4_K", "IQ4_NL", "MXFP4"}
_REPACKED_ARM: Final = _REPACKED_X86 | {"Q8_0", "Q5_K", "Q6_K"}
"""Types of which llama.cpp makes a second, rearranged copy for the CPU, beside the mapped file
(`CPU_REPACK` in its log): seen on x86-64, assumed for arm64."""


@dataclass(frozen=True, slots=True)
class Footprint:
    """Bytes a host will hold at most, by cause."""

    weights_bytes: int = 0
    cache_bytes: int = 0
    """Key-value cache of the whole context of all sequences."""
    prompt_cache_bytes: int = 0
    compute_bytes: int = 0
    runtime_bytes: int = 0
    """The process itself: interpreter, engine, tokenizer."""

    @property
    def total_bytes(self) -> int:
        """The sum: what a profile is charged."""
        return sum(getattr(self, field.name) for field in fields(self))

    def plus(self, other: "Footprint") -> "Footprint":
        """Both models in one process, such as a model and its draft: one runtime serves both."""
        return Footprint(
            self.weights_bytes + other.weights_bytes,
            self.cache_bytes + other.cache_bytes,
            self.prompt_cache_bytes + other.prompt_cache_bytes,
            self.compute_bytes + other.compute_bytes,
            max(self.runtime_bytes, other.runtime_bytes),
        )


def spare_bytes(platform: Platform) -> int:
    """A warm spare: an MLX host that has imported everything and waits for a profile."""
    return _SPARE_BYTES[platform]


def default_context(shape: ModelShape) -> int:
    """Tokens of one sequence for a profile that names none."""
    return min(shape.context_tokens or DEFAULT_CONTEXT_TOKENS, DEFAULT_CONTEXT_TOKENS)


def estimate(
    shape: ModelShape,
    *,
    context_tokens: int,
    sequences: int,
    prompt_cache_bytes: int,
    platform: Platform,
    arm64: bool = False,
    args: Sequence[str] = (),
) -> Footprint:
    """What a host of *shape* holds when all *sequences* have filled *context_tokens* each.

    Args:
        shape: The weights.
        context_tokens: Tokens of one sequence, prompt and answer together.
        sequences: Sequences generated at the same time.
        prompt_cache_bytes: Bound of the cache of earlier prompts, beside the sequences' own.
        platform: `darwin` runs on the GPU (Metal), `linux` on the CPU.
        arm64: The CPU, where it matters: what llama.cpp rearranges on Linux.
        args: Further flags of the engine; those that change what it holds are heeded
            (`--prefill-step-size`; `--cache-type-k`, `--cache-type-v`, `--ubatch-size`).
    """
    runtime = _RUNTIME_BYTES[shape.format, platform] + shape.vocab * _TOKEN_BYTES[shape.format]
    size = _Size(shape, context_tokens, sequences, platform)
    if shape.format == "mlx":
        step = _number(args, "--prefill-step-size") or prefill_tokens(
            shape, context_tokens=context_tokens, sequences=sequences, platform=platform
        )
        return Footprint(
            weights_bytes=shape.weights_bytes,
            cache_bytes=_cache_bytes(size, step),
            prompt_cache_bytes=prompt_cache_bytes,
            compute_bytes=_mlx_compute(size, step),
            runtime_bytes=runtime,
        )
    step = _number(args, "--ubatch-size", "-ub") or LLAMA_UBATCH_TOKENS
    keys, values = _flag(args, "--cache-type-k", "-ctk"), _flag(args, "--cache-type-v", "-ctv")
    size = _Size(
        shape, context_tokens, sequences, platform, _element_bytes(keys), _element_bytes(values)
    )
    repacked = _REPACKED_ARM if arm64 else _REPACKED_X86
    return Footprint(
        weights_bytes=shape.weights_bytes
        + sum(
            count for kind, count in shape.matrix_bytes if platform == "linux" and kind in repacked
        ),
        cache_bytes=_cache_bytes(size, step) + _checkpoint_bytes(size),
        prompt_cache_bytes=prompt_cache_bytes,
        compute_bytes=_llama_compute(size, step),
        runtime_bytes=runtime,
    )


def prefill_tokens(
    shape: ModelShape, *, context_tokens: int, sequences: int, platform: Platform
) -> int:
    """How many tokens of a prompt MLX should process at once (`--prefill-step-size`).

    A power of two that keeps attention scores within `MLX_SCORES_BYTES`, where they are written
    out: a long context would need gigabytes for them at mlx_lm's default of 2048.
    """
    step = MLX_PREFILL_TOKENS[platform]
    if _writes_scores(shape, platform):
        each = _scores_bytes(shape, context_tokens, sequences)
        while step > MLX_PREFILL_TOKENS_MIN and step * each > MLX_SCORES_BYTES[platform]:
            step //= 2
    return step


@dataclass(frozen=True, slots=True)
class _Size:
    """One way to run one model. *key_bytes* and *value_bytes* are of one number in the cache."""

    shape: ModelShape
    context_tokens: int
    sequences: int
    platform: Platform
    key_bytes: float = 0.0
    value_bytes: float = 0.0

    def token_bytes(self, layer: LayerCache) -> float:
        """What *layer* keeps of one token."""
        width = self.shape.element_bytes
        keys = layer.key_elements * (self.key_bytes or width)
        return keys + layer.value_elements * (self.value_bytes or width)


def _cache_bytes(size: _Size, step_tokens: int) -> int:
    """Keys and values of every sequence at its full context, and recurrent state.

    A window holds *step_tokens* more: a chunk of the prompt is appended before old tokens go.
    """
    total = 0.0
    for layer in size.shape.layers:
        tokens = size.context_tokens
        if layer.window_tokens is not None:
            tokens = min(tokens, layer.window_tokens + step_tokens)
        tokens = -(-tokens // _CACHE_STEP_TOKENS) * _CACHE_STEP_TOKENS
        total += tokens * size.token_bytes(layer) + layer.state_bytes
    return int(total) * size.sequences


def _checkpoint_bytes(size: _Size) -> int:
    """llama.cpp's copies of what cannot be rolled back: windows and recurrent state."""
    state = sum(
        layer.state_bytes
        + min(size.context_tokens, layer.window_tokens or 0) * size.token_bytes(layer)
        for layer in size.shape.layers
    )
    copies = min(LLAMA_CHECKPOINTS, 2 + size.context_tokens // LLAMA_CHECKPOINT_TOKENS)
    return int(state) * copies * size.sequences


def _writes_scores(shape: ModelShape, platform: Platform) -> bool:
    """Whether MLX writes out the scores of every head and pair of tokens."""
    return platform == "linux" or shape.head_dim not in _FUSED_HEAD_DIMS


def _scores_bytes(shape: ModelShape, context_tokens: int, sequences: int) -> int:
    """Scores of one prompt token of each sequence processed together, one copy."""
    together = min(sequences, MLX_PREFILL_TOGETHER)
    return together * shape.heads * context_tokens * shape.element_bytes


def _mlx_compute(size: _Size, step_tokens: int) -> int:
    """Intermediate results of the largest step: a chunk of a prompt for several sequences."""
    shape = size.shape
    step = min(step_tokens, size.context_tokens)
    rows = min(size.sequences, MLX_PREFILL_TOGETHER) * step
    widest = 3 * max(shape.intermediate, shape.heads * shape.head_dim) + 4 * shape.hidden
    total = rows * widest * shape.element_bytes
    total += 3 * size.sequences * shape.vocab * 4  # logits, log-probabilities, their sorted copy
    if _writes_scores(shape, size.platform):
        scores = step * _scores_bytes(shape, size.context_tokens, size.sequences)
        total += int(scores * _SCORE_COPIES)
    if size.platform == "darwin":
        return total + min(MLX_BUFFER_CACHE_BYTES, 2 * total)
    if shape.element_bytes == 2 and not shape.quantization.endswith("bit"):
        # The CPU multiplies half-precision matrices as float32: one layer's, converted.
        total += 3 * shape.hidden * shape.intermediate * 4
    return max(total + _MALLOC_SLACK_BYTES, shape.vocab * _MLX_TOKEN_LOADING_BYTES)


def _llama_compute(size: _Size, ubatch_tokens: int) -> int:
    """llama.cpp's compute buffer, which is allocated whole at load, and its output buffer.

    Fitted to what its log says (`compute buffer size`) over widths, contexts and batch sizes, with
    flash attention, which it turns on by itself: the mask is all that grows with the context.
    """
    shape = size.shape
    rows = min(ubatch_tokens, size.context_tokens * size.sequences)
    widest = 3 * max(shape.intermediate, shape.heads * shape.head_dim) + 5 * shape.hidden
    widest += 2 * shape.experts_used * shape.hidden
    mask = rows * size.context_tokens * 2
    return rows * widest * 4 + mask + 4 * size.sequences * shape.vocab * 4


def _flag(args: Sequence[str], *names: str) -> str | None:
    """The value of the last of *names* in *args*, as `--name value` or `--name=value`."""
    value = None
    for word, following in zip(args, [*args[1:], ""], strict=False):
        name, equals, rest = word.partition("=")
        if name in names:
            value = rest if equals else following
    return value


def _number(args: Sequence[str], *names: str) -> int | None:
    """The same where it is a positive number of reasonable size."""
    value = _flag(args, *names) or ""
    return min(int(value), 2**20) if value.isdecimal() and len(value) < 10 else None


def _element_bytes(cache_type: str | None) -> float:
    """Bytes of one number in llama.cpp's cache; f16 unless it is told otherwise."""
    return _CACHE_TYPE_BYTES.get(cache_type or "f16", 2.0)
