"""How many bytes a profile will hold: weights, context, caches, buffers and the runtime itself.

Pure arithmetic on what the headers of the weights say (`llmd.weights.shape` reads them). The sum is
meant as a ceiling that real use reaches: every sequence at its full context, the prompt cache full.
"""

from collections.abc import Sequence
from typing import Final

from msgspec import Struct

from llmd.core import mlx_compute as mlx
from llmd.core.shape import Format, LayerCache, ModelShape, Platform


__all__ = [
    "Footprint",
    "LayerCache",
    "ModelShape",
    "Platform",
    "default_context",
    "estimate",
    "spare_bytes",
]

MIB: Final = 2**20

DEFAULT_CONTEXT_TOKENS: Final = 32768
"""A profile without `context` gets the model's own, at most this."""

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
    ("gguf", "linux"): 42 * MIB,
    ("gguf", "darwin"): 128 * MIB,
}

_LLAMA_SEQUENCE_BYTES: Final = MIB
"""Threads and buffers of the server for one more sequence: 49 MiB with eight, 43 with one."""

# A token of the vocabulary with its merges, in the tokenizer's tables. Measured with 152,000
# tokens: mlx_lm (transformers, tokenizers) 146 MiB; llama.cpp 56 MiB.
_TOKEN_BYTES: Final[dict[Format, int]] = {"mlx": 1010, "gguf": 400}

_CACHE_STEP_TOKENS: Final = 256
"""Both engines allocate the key-value cache in steps of so many tokens."""

_CACHE_TYPE_BYTES: Final = {
    "f32": 4.0, "f16": 2.0, "bf16": 2.0, "q8_0": 34 / 32, "q5_1": 24 / 32, "q5_0": 22 / 32,
    "q4_1": 20 / 32, "q4_0": 18 / 32, "iq4_nl": 18 / 32,
}  # fmt: skip

_REPACKED_X86: Final = {"Q4_0", "Q4_K", "IQ4_NL", "MXFP4"}
_REPACKED_ARM: Final = _REPACKED_X86 | {"Q8_0", "Q5_K", "Q6_K"}
"""Types of which llama.cpp makes a second, rearranged copy for the CPU, beside the mapped file
(`CPU_REPACK` in its log): seen on x86-64, assumed for arm64."""


class Footprint(Struct, frozen=True):
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
        return sum(getattr(self, name) for name in self.__struct_fields__)

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
        step = _number(args, "--prefill-step-size") or mlx.prefill_tokens(
            shape, context_tokens=context_tokens, sequences=sequences, platform=platform
        )
        return Footprint(
            weights_bytes=shape.weights_bytes,
            cache_bytes=_cache_bytes(size, step, mlx.cache_tokens(context_tokens, step, sequences)),
            prompt_cache_bytes=prompt_cache_bytes,
            compute_bytes=mlx.compute_bytes(shape, step, context_tokens, sequences, platform),
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
        cache_bytes=_cache_bytes(size, step, context_tokens) + _checkpoint_bytes(size),
        prompt_cache_bytes=prompt_cache_bytes,
        compute_bytes=_llama_compute(size, step),
        runtime_bytes=runtime + sequences * _LLAMA_SEQUENCE_BYTES,
    )


class _Size(Struct, frozen=True):
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


def _cache_bytes(size: _Size, step_tokens: int, most_tokens: int) -> int:
    """Keys and values of every sequence at its full length, *most_tokens*; and recurrent state.

    A window holds *step_tokens* more: a chunk of the prompt is appended before old tokens go.
    """
    total = 0.0
    for layer in size.shape.layers:
        tokens = most_tokens
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
