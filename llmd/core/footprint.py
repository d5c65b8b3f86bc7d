"""How many bytes a profile will hold: weights, context, caches, buffers and the runtime itself.

Pure arithmetic on what the headers of the weights say (`llmd.weights.shape` reads them). The sum is
meant as a ceiling that real use reaches: every sequence at its full context, the prompt cache full.
"""

from dataclasses import dataclass, fields
from typing import Final, Literal


MIB: Final = 2**20

Format = Literal["mlx", "gguf"]
Platform = Literal["linux", "darwin"]

DEFAULT_CONTEXT_TOKENS: Final = 32768
"""A profile without `context` gets the model's own, at most this."""


MLX_PREFILL_TOKENS: Final = 2048
"""Tokens of a prompt that mlx_lm processes at once (`--prefill-step-size`)."""

MLX_PREFILL_TOGETHER: Final = 8
"""Prompts that the MLX host processes at once, at most (`--prompt-concurrency`)."""

MLX_BUFFER_CACHE_BYTES: Final = 2**30
"""Freed Metal buffers that the MLX host keeps for reuse (its `buffer_cache_bytes`)."""

LLAMA_UBATCH_TOKENS: Final = 512
"""Tokens that llama.cpp computes at once (`--ubatch-size`)."""

_SPARE_BYTES: Final[dict[Platform, int]] = {"linux": 96 * MIB, "darwin": 192 * MIB}

_RUNTIME_BYTES: Final[dict[tuple[Format, Platform], int]] = {
    ("mlx", "linux"): 96 * MIB,
    ("mlx", "darwin"): 192 * MIB,
    ("gguf", "linux"): 48 * MIB,
    ("gguf", "darwin"): 128 * MIB,
}

_TOKEN_BYTES: Final = 400
"""A token of the vocabulary in the tokenizer's tables, with its merges."""

_CACHE_STEP_TOKENS: Final = 256
"""Both engines allocate the key-value cache in steps of so many tokens."""

_FUSED_HEAD_DIMS: Final = {64, 80, 128}
"""Where MLX has a Metal kernel that never writes attention scores out."""


@dataclass(frozen=True, slots=True)
class LayerCache:
    """What one layer keeps of one sequence.

    Attributes:
        key_elements: Numbers kept per token as keys (heads x dimension; the latent for MLA).
        value_elements: The same for values; 0 where values are a view of the keys.
        window_tokens: Only so many tokens are kept (sliding window); None keeps all.
        state_bytes: Kept whatever the length: recurrent and convolution state.
    """

    key_elements: int = 0
    value_elements: int = 0
    window_tokens: int | None = None
    state_bytes: int = 0


@dataclass(frozen=True, slots=True)
class ModelShape:
    """What the headers of a model say, as far as memory and `llmd-ctl models` are concerned.

    Attributes:
        format: `mlx` (a directory of safetensors) or `gguf`.
        architecture: The model type as the format calls it: `qwen3`, `llama`.
        weights_bytes: All tensors.
        parameters: How many weights, as far as packed ones can be counted.
        quantization: `4-bit`, `Q4_K_M`, `bf16`.
        layers: One entry for each layer.
        hidden: Width of the residual stream.
        intermediate: Width of the feed-forward layers; of one expert's where there are experts.
        heads: Attention heads (queries).
        head_dim: Width of one head's keys.
        vocab: Tokens in the vocabulary.
        context_tokens: What the model was trained for; 0 when it does not say.
        experts_used: Experts that one token passes through; 0 in a dense model.
        element_bytes: Bytes per number in activations, and so in MLX's key-value cache.
        files: Every file the engine reads weights from, in order.
        fingerprint: Changes when the files do: names, sizes, modification times.
        chat_template: Whether a chat template comes with it.
    """

    format: Format
    architecture: str
    weights_bytes: int
    parameters: int
    quantization: str
    layers: tuple[LayerCache, ...]
    hidden: int
    intermediate: int
    heads: int
    head_dim: int
    vocab: int
    context_tokens: int
    experts_used: int = 0
    element_bytes: int = 2
    files: tuple[str, ...] = ()
    fingerprint: str = ""
    chat_template: bool = False

    @property
    def n_layers(self) -> int:
        """How many layers it has."""
        return len(self.layers)


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
) -> Footprint:
    """What a host of *shape* holds when all *sequences* have filled *context_tokens* each.

    Args:
        shape: The weights.
        context_tokens: Tokens of one sequence, prompt and answer together.
        sequences: Sequences generated at the same time.
        prompt_cache_bytes: Bound of the cache of earlier prompts, beside the sequences' own.
        platform: `darwin` runs on the GPU (Metal), `linux` on the CPU.
    """
    compute = _mlx_compute if shape.format == "mlx" else _llama_compute
    return Footprint(
        weights_bytes=shape.weights_bytes + _repacked_bytes(shape, platform),
        cache_bytes=_cache_bytes(shape, context_tokens, sequences),
        prompt_cache_bytes=prompt_cache_bytes,
        compute_bytes=compute(shape, context_tokens, sequences, platform),
        runtime_bytes=_RUNTIME_BYTES[shape.format, platform] + shape.vocab * _TOKEN_BYTES,
    )


def _cache_bytes(shape: ModelShape, context_tokens: int, sequences: int) -> int:
    """Keys and values of every sequence at its full context."""
    step = MLX_PREFILL_TOKENS if shape.format == "mlx" else LLAMA_UBATCH_TOKENS
    total = 0
    for layer in shape.layers:
        tokens = context_tokens
        if layer.window_tokens is not None:
            # A chunk of the prompt is appended before the oldest tokens are let go.
            tokens = min(tokens, layer.window_tokens + step)
        tokens = -(-tokens // _CACHE_STEP_TOKENS) * _CACHE_STEP_TOKENS
        per_token = (layer.key_elements + layer.value_elements) * shape.element_bytes
        total += tokens * per_token + layer.state_bytes
    return total * sequences


def _mlx_compute(shape: ModelShape, context_tokens: int, sequences: int, platform: Platform) -> int:
    """Intermediate results of the largest step: a chunk of a prompt for several sequences."""
    together = min(sequences, MLX_PREFILL_TOGETHER)
    chunk = min(MLX_PREFILL_TOKENS, context_tokens)
    rows = together * chunk
    widest = max(3 * shape.intermediate, 3 * shape.heads * shape.head_dim) + 4 * shape.hidden
    total = rows * widest * shape.element_bytes
    total += 3 * sequences * shape.vocab * 4  # logits, log-probabilities, their sorted copy
    fused = platform == "darwin" and shape.head_dim in _FUSED_HEAD_DIMS
    if not fused:  # the scores of every head are written out, before and after the softmax
        total += rows * shape.heads * context_tokens * shape.element_bytes
    if platform == "darwin":
        total += MLX_BUFFER_CACHE_BYTES
    return total


def _llama_compute(
    shape: ModelShape, context_tokens: int, sequences: int, _platform: Platform
) -> int:
    """llama.cpp's compute buffer, which is allocated whole at load, and its output buffer."""
    rows = min(LLAMA_UBATCH_TOKENS, context_tokens * sequences)
    widest = max(3 * shape.intermediate, 3 * shape.heads * shape.head_dim) + 5 * shape.hidden
    widest += 2 * shape.experts_used * shape.hidden
    mask = rows * context_tokens * 2
    return rows * widest * 4 + mask + sequences * shape.vocab * 4 * 4


def _repacked_bytes(_shape: ModelShape, _platform: Platform) -> int:
    return 0
