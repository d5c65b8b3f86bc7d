"""The shape of a GGUF model, from its metadata."""

from pathlib import Path
from typing import Any, Final

from llmd.core.shape import LayerCache, ModelShape
from llmd.errors import WeightsError
from llmd.weights import gguf
from llmd.weights.abilities import abilities_in
from llmd.weights.numbers import LAYERS_MAX, count, per_layer


_WINDOW_EVERY: Final = {
    "gemma2": 2, "gemma3": 6, "gemma3n": 5, "gpt-oss": 2, "cohere2": 4, "olmo2": 4, "olmo3": 4,
    "exaone4": 4, "llama4": 4,
}  # fmt: skip
"""Architectures whose every n-th layer sees everything and whose others have a window, where the
file does not say so itself (llama.cpp, `set_swa_pattern`)."""

_FULL_EVERY: Final = {"qwen3next": 4, "qwen35": 4, "qwen35moe": 4}
"""Architectures whose every n-th layer is attention and whose others are recurrent."""


def gguf_shape(path: Path, shards: list[Path], fingerprint: str) -> ModelShape:
    """The shape of the model in *shards*; the first holds the metadata.

    Raises:
        WeightsError: A shard is damaged, or the metadata lacks what is needed.
    """
    headers = [gguf.read_header(shard) for shard in shards]
    first = headers[0]
    architecture = first.metadata.get("general.architecture")
    # It is shown on terminals.
    if not isinstance(architecture, str) or not architecture or not architecture.isprintable():
        raise WeightsError(
            f"{path} names no architecture", remedy="it may be an adapter or a vocabulary only"
        )
    prefix = f"{architecture}."
    data = {
        key.removeprefix(prefix): value
        for key, value in first.metadata.items()
        if key.startswith(prefix)
    }
    layers = count(data, "block_count")
    if not 0 < layers <= LAYERS_MAX:
        raise WeightsError(
            f"{path} ({architecture}) is no language model: it has {layers or 'no'} layers",
            remedy="name the model itself in `model:`, not a projector or an adapter",
        )
    tensors = {name: tensor for header in headers for name, tensor in header.tensors.items()}
    hidden = count(data, "embedding_length")
    heads = max(per_layer(data.get("attention.head_count"), layers, 0))
    width = max(per_layer(data.get("feed_forward_length"), layers, 0))
    expert_width = count(data, "expert_feed_forward_length", default=width)  # Mixtral has no other
    embedding = tensors.get("token_embd.weight")
    vocab = embedding.shape[-1] if embedding and embedding.shape else 0
    return ModelShape(
        format="gguf",
        architecture=architecture[:64],
        weights_bytes=sum(tensor.bytes for tensor in tensors.values()),
        parameters=sum(_elements(tensor) for tensor in tensors.values()),
        quantization=_quantization(first.metadata, tensors),
        layers=_layers(architecture, data, layers, hidden, heads),
        hidden=hidden,
        intermediate=max(width, expert_width * count(data, "expert_used_count")),
        heads=heads,
        head_dim=count(data, "attention.key_length", default=hidden // heads if heads else 0),
        vocab=vocab or count(data, "vocab_size") or first.lengths.get("tokenizer.ggml.tokens", 0),
        context_tokens=count(data, "context_length"),
        experts_used=count(data, "expert_used_count"),
        element_bytes=2,  # llama.cpp keeps keys and values as f16 whatever the weights are
        files=tuple(str(shard) for shard in shards),
        fingerprint=fingerprint,
        chat_template="tokenizer.chat_template" in first.metadata,
        abilities=abilities_in(str(first.metadata.get("tokenizer.chat_template", ""))),
        matrix_bytes=_matrix_bytes(tensors),
    )


def _layers(
    architecture: str, data: dict[str, Any], layers: int, hidden: int, heads: int
) -> tuple[LayerCache, ...]:
    """What each layer keeps of a sequence in llama.cpp."""
    head_dim = hidden // heads if heads else 0
    key = count(data, "attention.key_length", default=head_dim)
    value = count(data, "attention.value_length", default=head_dim)
    kv_heads = per_layer(data.get("attention.head_count_kv"), layers, heads)
    latent = count(data, "attention.kv_lora_rank")
    if latent and "attention.key_length_mla" in data:
        # Multi-head latent attention: one head whose values are the first part of its keys.
        kv_heads, value = [1] * layers, 0
    windows = _windows(architecture, data, layers)
    state = _state_bytes(data, hidden)
    every = count(data, "full_attention_interval", default=_FULL_EVERY.get(architecture, 0))
    result = []
    for index in range(layers):
        recurrent = (every and (index + 1) % every) or not kv_heads[index]
        if state and architecture in {"mamba", "mamba2"}:
            recurrent = True
        if recurrent:
            result.append(LayerCache(state_bytes=state))
        else:
            both = state if architecture == "falcon-h1" else 0
            swa_key = count(data, "attention.key_length_swa", default=key)
            swa_value = count(data, "attention.value_length_swa", default=value)
            width = (swa_key, swa_value) if windows[index] else (key, value)
            result.append(
                LayerCache(
                    kv_heads[index] * width[0], kv_heads[index] * width[1], windows[index], both
                )
            )
    shared = count(data, "attention.shared_kv_layers")
    return tuple(result[: layers - shared] + [LayerCache()] * min(shared, layers))


def _windows(architecture: str, data: dict[str, Any], layers: int) -> list[int | None]:
    """The sliding window of each layer, where llama.cpp uses one."""
    window = count(data, "attention.sliding_window")
    pattern = data.get("attention.sliding_window_pattern")
    if not window:
        return [None] * layers
    if isinstance(pattern, tuple) and len(pattern) >= layers:
        return [window if slides else None for slides in pattern[:layers]]
    every = pattern if type(pattern) is int else _WINDOW_EVERY.get(architecture, 1)
    if every < 1:
        return [None] * layers
    return [window if index % every < every - 1 else None for index in range(layers)]


def _state_bytes(data: dict[str, Any], hidden: int) -> int:
    """Recurrent state of one layer and sequence, in f32 (llama.cpp, `n_embd_r`, `n_embd_s`)."""
    if kernel := count(data, "shortconv.l_cache"):
        return (kernel - 1) * hidden * 4
    if head := count(data, "wkv.head_size"):
        return (2 * hidden + hidden * head) * 4
    inner, size = count(data, "ssm.inner_size"), count(data, "ssm.state_size")
    if not inner or not size:
        return 0
    kernel, groups = count(data, "ssm.conv_kernel"), count(data, "ssm.group_count")
    return (max(kernel - 1, 0) * (inner + 2 * groups * size) + size * inner) * 4


def _matrix_bytes(tensors: dict[str, gguf.Tensor]) -> tuple[tuple[str, int], ...]:
    """Bytes of what is multiplied with, by type: no vectors, and no embedding that is only read."""
    totals: dict[str, int] = {}
    for name, tensor in tensors.items():
        only_read = name == "token_embd.weight" and "output.weight" in tensors
        if len(tensor.shape) > 1 and not only_read:
            totals[tensor.type] = totals.get(tensor.type, 0) + tensor.bytes
    return tuple(sorted(totals.items()))


def _elements(tensor: gguf.Tensor) -> int:
    total = 1
    for dimension in tensor.shape:
        total *= dimension
    return total


def _quantization(metadata: dict[str, Any], tensors: dict[str, gguf.Tensor]) -> str:
    """What the file is called, else the type that most of its bytes have."""
    named = gguf.FILE_TYPES.get(metadata.get("general.file_type", -1))
    if named:
        return named
    totals: dict[str, int] = {}
    for tensor in tensors.values():
        totals[tensor.type] = totals.get(tensor.type, 0) + tensor.bytes
    return max(totals, key=lambda kind: totals[kind], default="")
