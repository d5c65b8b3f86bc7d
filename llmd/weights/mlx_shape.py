"""The shape of an MLX model, from `config.json` and the headers of its safetensors."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from llmd.core.mlx_compute import RECURRENT_TOKENS
from llmd.core.shape import LayerCache, ModelShape
from llmd.errors import WeightsError
from llmd.weights import safetensors
from llmd.weights.abilities import abilities_in
from llmd.weights.files import read_json
from llmd.weights.numbers import LAYERS_MAX, count, per_layer


TEMPLATE_MAX_BYTES: Final = 4 * 2**20
"""Real ones stay below 64 KiB."""

_ROTATING: Final = {
    "afmoe", "cohere2", "exaone4", "exaone_moe", "gemma3_text", "gemma3", "gemma3n", "gemma4_text",
    "gemma4", "gpt_oss", "laguna", "llama", "mellum", "mimo_v2_flash", "ministral3", "mistral3",
    "olmo3", "plamo3", "step3p5",
}  # fmt: skip
"""Model types whose `make_cache` in mlx_lm keeps a window; the others keep everything, whatever
their configuration says about sliding windows."""

_PATTERNS: Final = {"gemma3_text": 6, "gemma3": 6, "cohere2": 4}
_LATENT: Final = {
    "bailing_hybrid", "deepseek_v3", "deepseek_v32", "glm4_moe_lite", "glm_moe_dsa",
    "joyai_llm_flash", "kimi_k2", "kimi_k3", "kimi_linear", "longcat_flash", "longcat_flash_ngram",
    "mistral4",
}  # fmt: skip
"""Model types that cache the latent of multi-head latent attention; the others with a
`kv_lora_rank` cache all heads (in mlx_lm, what they give to `update_and_fetch`)."""

_LINEAR: Final = {"linear_attention", "conv", "mamba", "recurrent", "kda"}
_FLOATS: Final = {"F16": 2, "BF16": 2, "F32": 4}


def mlx_shape(path: Path, shards: list[Path], fingerprint: str) -> ModelShape:
    """The shape of the model in directory *path* with weights in *shards*.

    Raises:
        WeightsError: A file is damaged, or the configuration lacks what is needed.
    """
    whole = read_json(path / "config.json")
    inner = whole.get("text_config")
    config = {**whole, **inner} if isinstance(inner, dict) else whole
    tensors: dict[str, safetensors.Tensor] = {}
    for shard in shards:
        tensors |= safetensors.read_header(shard)
    layers = count(config, "num_hidden_layers", "n_layers", "n_layer", "num_layers")
    if not 0 < layers <= LAYERS_MAX:
        raise WeightsError(
            f"{path} is no language model: its config.json tells no number of layers",
            remedy="name the model itself in `model:`, not an adapter or an encoder",
        )
    architecture = str(config.get("model_type") or whole.get("model_type") or "unknown")[:64]
    if not architecture.isprintable():  # it is shown on terminals
        architecture = "unknown"
    hidden = count(config, "hidden_size", "n_embd", "d_model", "dim")
    heads = count(config, "num_attention_heads", "n_head", "n_heads")
    head_dim = count(config, "head_dim", default=hidden // heads if heads else 0)
    experts = count(config, "num_experts_per_tok", "moe_topk", "top_k_experts")
    element_bytes = _element_bytes(tensors)
    bits = _bits(config)
    template = _template(path)
    return ModelShape(
        format="mlx",
        architecture=architecture,
        weights_bytes=sum(tensor.bytes for tensor in tensors.values()),
        parameters=sum(_parameters(name, tensor, bits) for name, tensor in tensors.items()),
        quantization=f"{bits}-bit" if bits else _float_name(tensors),
        layers=_layers(architecture, config, layers, heads, head_dim, element_bytes),
        hidden=hidden,
        intermediate=_intermediate(config, hidden, experts),
        heads=heads,
        head_dim=head_dim,
        vocab=count(config, "vocab_size"),
        context_tokens=count(config, "max_position_embeddings", "n_positions", "max_seq_len"),
        experts_used=experts,
        expanded=_expanded(architecture, config, heads),
        element_bytes=element_bytes,
        files=tuple(str(shard) for shard in shards),
        fingerprint=fingerprint,
        chat_template=bool(template),
        abilities=abilities_in(template),
    )


def _layers(
    architecture: str,
    config: Mapping[str, Any],
    layers: int,
    heads: int,
    head_dim: int,
    element_bytes: int,
) -> tuple[LayerCache, ...]:
    """What each layer keeps of a sequence in mlx_lm."""
    kv_heads = per_layer(config.get("num_key_value_heads", config.get("n_kv_heads")), layers, heads)
    key = value = head_dim
    latent = count(config, "kv_lora_rank")
    if latent and architecture in _LATENT:
        kv_heads, key, value = [1] * layers, latent, count(config, "qk_rope_head_dim")
    elif latent:
        kv_heads = [heads] * layers
        key = count(config, "qk_nope_head_dim") + count(config, "qk_rope_head_dim")
        value = count(config, "v_head_dim", default=head_dim)
    kinds = _kinds(architecture, config, layers)
    window = count(config, "sliding_window", "attention_chunk_size") or None
    state = _state_bytes(config, element_bytes)
    scratch = _scratch_bytes(config, state)
    wide = count(config, "global_head_dim", default=key)
    result = []
    for index, kind in enumerate(kinds):
        if kind in _LINEAR:
            result.append(LayerCache(state_bytes=state, scratch_bytes=scratch))
        elif kind == "sliding":
            result.append(LayerCache(kv_heads[index] * key, kv_heads[index] * value, window))
        else:
            full = count(config, "num_global_key_value_heads", default=kv_heads[index])
            size = (wide, wide) if wide != key and not latent else (key, value)
            result.append(LayerCache(full * size[0], full * size[1]))
    shared = min(layers, count(config, "num_kv_shared_layers"))
    return tuple(result[: layers - shared] + [LayerCache()] * shared)


def _intermediate(config: Mapping[str, Any], hidden: int, experts: int) -> int:
    """Numbers that the feed-forward part makes of one token: of all experts that it passes through.

    Mixtral and gpt-oss call an expert's width `intermediate_size`, having no other. Mamba2 has a
    projection instead: a gate, and the input of a convolution.
    """
    width = count(config, "intermediate_size", "ffn_dim", "n_inner", default=4 * hidden)
    one = count(config, "moe_intermediate_size")
    if experts and not one and count(config, "num_local_experts"):
        one = width
    inner, state = _mamba_widths(config)
    return max(width, one * experts, 2 * (inner + state) if state else 0)


def _expanded(architecture: str, config: Mapping[str, Any], heads: int) -> int:
    """See `ModelShape.expanded`."""
    if architecture not in _LATENT:
        return 0
    return heads * (count(config, "qk_nope_head_dim") + count(config, "v_head_dim"))


def _kinds(architecture: str, config: Mapping[str, Any], layers: int) -> list[str]:
    """For each layer `full`, `sliding`, or one of the recurrent kinds."""
    rotates = architecture in _ROTATING
    listed = config.get("layer_types")
    if isinstance(listed, list) and len(listed) >= layers:
        return [_kind(str(kind), rotates=rotates) for kind in listed[:layers]]
    every = count(config, "full_attention_interval")
    if every:
        return [
            "full" if (index + 1) % every == 0 else "linear_attention" for index in range(layers)
        ]
    attention = config.get("full_attn_idxs", config.get("attn_layer_indices"))
    if isinstance(attention, list) and attention:
        return ["full" if index in attention else "conv" for index in range(layers)]
    pattern = config.get("hybrid_override_pattern")
    if isinstance(pattern, str) and len(pattern) >= layers:
        # Nemotron-H: M is Mamba, * attention, - and E feed-forward layers that keep nothing.
        return [{"M": "mamba", "*": "full"}.get(mark, "kda") for mark in pattern[:layers]]
    if architecture in {"mamba", "mamba2", "rwkv7"}:
        return ["mamba"] * layers
    window = count(config, "sliding_window", "attention_chunk_size")
    every = count(config, "sliding_window_pattern", default=_PATTERNS.get(architecture, 0))
    if architecture in {"llama4", "llama4_text"}:
        return ["full"] * layers  # a chunked cache is trimmed late: count it whole
    if rotates and window and every:
        return ["full" if (index + 1) % every == 0 else "sliding" for index in range(layers)]
    return ["full"] * layers


def _kind(name: str, *, rotates: bool) -> str:
    if name in _LINEAR:
        return name
    return "sliding" if rotates and name in {"sliding_attention", "chunked_attention"} else "full"


def _state_bytes(config: Mapping[str, Any], element_bytes: int) -> int:
    """Recurrent state of one layer and sequence, in mlx_lm."""
    if heads := count(config, "linear_num_value_heads"):  # gated delta net (Qwen3-Next, Qwen3.5)
        key = count(config, "linear_num_key_heads") * count(config, "linear_key_head_dim")
        value = heads * count(config, "linear_value_head_dim")
        kernel = count(config, "linear_conv_kernel_dim", default=4)
        state = value * count(config, "linear_key_head_dim")
        return (kernel - 1) * (2 * key + value) * element_bytes + state * 4
    if kernel := count(config, "conv_L_cache"):  # LFM2
        return (kernel - 1) * count(config, "hidden_size") * element_bytes
    inner, groups = _mamba_widths(config)
    size = count(config, "ssm_state_size", "mamba_d_state", "state_size")
    kernel = count(config, "conv_kernel", "mamba_d_conv", default=4)
    return ((kernel - 1) * (inner + 2 * groups) + inner * size) * 4


def _mamba_widths(config: Mapping[str, Any]) -> tuple[int, int]:
    """What a Mamba layer makes of one token: its inner width; and all groups' input to the state.

    The second is 0 for models of other kinds.
    """
    heads = count(config, "mamba_num_heads", "mamba_n_heads", "num_heads")
    inner = count(config, "mamba_d_ssm", "intermediate_size", "d_inner")
    if dim := count(config, "mamba_head_dim", "mamba_d_head", "head_dim"):
        inner = heads * dim or inner
    groups = count(config, "n_groups", "mamba_n_groups", default=1)
    return inner, groups * count(config, "ssm_state_size", "mamba_d_state", "state_size")


def _scratch_bytes(config: Mapping[str, Any], state_bytes: int) -> int:
    """See `LayerCache.scratch_bytes`. Measured with a gated delta net, Mamba2 and LFM2.

    Mamba2 has a product of the state with every token; and, for each head and pair of tokens of a
    chunk, what has decayed between the two, in float32 (mlx_lm's `ssm_attn` and `segsum`: repeated,
    cut off, summed up, raised, multiplied and cut off again).
    """
    if count(config, "conv_L_cache"):
        return 0
    if count(config, "linear_num_value_heads"):
        return 2 * state_bytes
    heads = count(config, "mamba_num_heads", "mamba_n_heads", "num_heads")
    return state_bytes + 6 * heads * RECURRENT_TOKENS * 4


def _element_bytes(tensors: Mapping[str, safetensors.Tensor]) -> int:
    """Bytes per number in activations: of the embedding, or of the norms where those are wider.

    MLX promotes: one norm in float32 makes everything after it float32, the cache included.
    """
    widths = [
        _FLOATS[tensor.dtype]
        for name, tensor in tensors.items()
        if tensor.dtype in _FLOATS
        and ("embed_tokens" in name or "wte" in name or name.endswith("layernorm.weight"))
    ]
    return max(widths, default=2)


def _bits(config: Mapping[str, Any]) -> int:
    """Bits of a quantized weight; 0 when the model is not quantized."""
    for key in ("quantization", "quantization_config"):
        settings = config.get(key)
        if isinstance(settings, dict):
            return count(settings, "bits", default=4 if settings.get("quant_method") else 0)
    return 0


def _parameters(name: str, tensor: safetensors.Tensor, bits: int) -> int:
    """Weights in one tensor; packed ones are counted by their bits, scales and biases are not."""
    if bits and name.endswith((".scales", ".biases")):
        return 0
    if bits and tensor.dtype == "U32":
        return tensor.bytes * 8 // bits
    return tensor.bytes * 8 // safetensors.DTYPE_BITS.get(tensor.dtype, 16)


def _float_name(tensors: Mapping[str, safetensors.Tensor]) -> str:
    totals: dict[str, int] = {}
    for tensor in tensors.values():
        totals[tensor.dtype] = totals.get(tensor.dtype, 0) + tensor.bytes
    return max(totals, key=lambda kind: totals[kind], default="").lower()


def _template(path: Path) -> str:
    """The text of the chat template that comes with the tokenizer, in whatever wrapping; or ""."""
    plain = path / "chat_template.jinja"
    try:
        if plain.is_file():
            with plain.open("rb") as file:
                return file.read(TEMPLATE_MAX_BYTES).decode("utf-8", "replace")
        for name in ("chat_template.json", "tokenizer_config.json"):
            if (path / name).is_file():
                template = read_json(path / name).get("chat_template")
                if template:
                    return template if isinstance(template, str) else json.dumps(template)
    except (WeightsError, OSError):
        pass  # a model without a template, as far as can be told
    return ""
