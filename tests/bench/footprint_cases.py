"""Which models, run in which ways, `footprint.py` measures."""

from dataclasses import dataclass


KEPT = {"max_position_embeddings": 131_072, "rms_norm_eps": 1e-6, "vocab_size": 1024}
DENSE = {
    **KEPT, "hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 6,
    "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 64, "rope_theta": 10_000.0,
    "tie_word_embeddings": True,
}  # fmt: skip
EXPERTS = {"num_experts_per_tok": 4, "moe_intermediate_size": 256, "norm_topk_prob": True}
LATENT = {
    "kv_lora_rank": 256, "q_lora_rank": 128, "qk_rope_head_dim": 64, "qk_nope_head_dim": 64,
    "v_head_dim": 64, "n_shared_experts": 1, "n_routed_experts": 16, "num_experts_per_tok": 4,
    "moe_intermediate_size": 256, "first_k_dense_replace": 1, "n_group": 1, "topk_group": 1,
    "topk_method": "noaux_tc", "num_key_value_heads": 4, "tie_word_embeddings": False,
    "moe_layer_freq": 1, "scoring_func": "sigmoid",
}  # fmt: skip
SLIDING = ["sliding_attention", "full_attention"] * 3
CONV = ["conv", "conv", "full_attention"] * 2

MODELS = {
    "llama": {**DENSE, "model_type": "llama"},
    "qwen2": {**DENSE, "model_type": "qwen2"},
    "qwen3": {**DENSE, "model_type": "qwen3"},
    "mistral": {**DENSE, "model_type": "mistral", "sliding_window": 256},
    "qwen3_moe": {
        **DENSE, **EXPERTS, "model_type": "qwen3_moe", "num_experts": 32, "decoder_sparse_step": 1,
        "mlp_only_layers": [],
    },
    "mixtral": {
        **DENSE, "model_type": "mixtral", "num_local_experts": 8, "num_experts_per_tok": 2,
        "num_hidden_layers": 4,
    },
    "gemma2": {**DENSE, "model_type": "gemma2", "sliding_window": 256},
    "gemma3_text": {
        **DENSE, "model_type": "gemma3_text", "sliding_window": 256, "sliding_window_pattern": 6,
        "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 256,
    },
    "gpt_oss": {
        **DENSE, "model_type": "gpt_oss", "num_local_experts": 16, "num_experts_per_tok": 4,
        "intermediate_size": 512, "sliding_window": 128, "layer_types": SLIDING,
        "tie_word_embeddings": False,
    },
    "deepseek_v2": {
        **DENSE, **LATENT, "model_type": "deepseek_v2", "topk_method": "greedy",
        "rope_scaling": {"type": "yarn", "factor": 1.0, "mscale_all_dim": 0.0},
    },
    "deepseek_v3": {**DENSE, **LATENT, "model_type": "deepseek_v3"},
    "lfm2": {
        **DENSE, "model_type": "lfm2", "layer_types": CONV, "conv_L_cache": 3, "conv_bias": False,
        "norm_eps": 1e-6, "block_dim": 256, "block_ff_dim": 512, "block_multiple_of": 256,
        "block_ffn_dim_multiplier": 1.0, "block_auto_adjust_ff_dim": False,
    },
    "mamba2": {
        **KEPT, "model_type": "mamba2", "num_heads": 8, "head_dim": 64, "hidden_size": 256,
        "intermediate_size": 512, "state_size": 128, "num_hidden_layers": 12, "conv_kernel": 4,
        "layer_norm_epsilon": 1e-6, "n_groups": 1, "use_bias": False, "use_conv_bias": True,
        "tie_word_embeddings": True, "time_step_limit": [0.0, 1e9], "time_step_rank": 16,
    },
    "qwen3_next": {
        **DENSE, **EXPERTS, "model_type": "qwen3_next", "num_experts": 16, "decoder_sparse_step": 1,
        "mlp_only_layers": [], "shared_expert_intermediate_size": 256, "partial_rotary_factor": 0.5,
        "linear_num_value_heads": 8, "linear_num_key_heads": 4, "linear_key_head_dim": 64,
        "linear_value_head_dim": 64, "linear_conv_kernel_dim": 4, "full_attention_interval": 4,
    },
}  # fmt: skip


@dataclass(frozen=True)
class Case:
    """One model, run in one way.

    Attributes:
        model: In `MODELS`.
        weights: Quantization: GGUF's are in capitals.
        context: Tokens of one sequence.
        sequences: At the same time.
        more: Changes to the model's proportions.
        args: Flags of the engine.
        rounds: How often every sequence is filled, with other text each time.
    """

    model: str
    weights: str
    context: int = 4096
    sequences: int = 2
    more: tuple[tuple[str, int], ...] = ()
    args: tuple[str, ...] = ()
    rounds: int = 2
    again: bool = False

    @property
    def engine(self):
        return "llama.cpp" if self.weights[0] in "FQ" else "mlx"

    @property
    def config(self):
        return {**MODELS[self.model], **dict(self.more)}

    def __str__(self):
        sizes = "".join(f", {name} {value}" for name, value in self.more)
        flags = "".join(f" {word}" for word in self.args)
        return f"{self.model} {self.weights}, {self.sequences} x {self.context}{sizes}{flags}"


WIDE = (("hidden_size", 1024), ("intermediate_size", 4096), ("num_hidden_layers", 12))
DEEP = (("num_hidden_layers", 24),)
NARROW = (("num_hidden_layers", 2), ("num_attention_heads", 2), ("num_key_value_heads", 1))
NARROWEST = (("num_hidden_layers", 1), ("num_attention_heads", 1), ("num_key_value_heads", 1))
FAT = (("num_attention_heads", 4), ("num_key_value_heads", 4), ("head_dim", 128))
MANY = (("num_experts", 128),)

# MLX computes on one thread of a CPU, slowly: small models and few tokens there.
CASES = [
    *(Case(model, "f32", 512) for model in MODELS),
    Case("qwen3", "4", 512),
    Case("qwen3", "6", 512, 1),
    Case("qwen3", "8", 512, 4),
    Case("llama", "bf16", 256, 1),
    Case("llama", "f16", 256, 1),
    Case("qwen3_moe", "4", 512, 1, MANY),
    Case("qwen3_moe", "f32", 512, 2, MANY),
    Case("qwen3", "f32", 512, 8),
    Case("qwen3", "f32", 1024, 2, FAT, again=True),
    Case("qwen3", "f32", 512, 4, FAT),
    Case("qwen3", "f32", 512, 2, (*FAT, *DEEP)),
    Case("llama", "f32", 256, 1, WIDE),
    Case("qwen3", "f32", 4096, 1, NARROWEST),
    Case("qwen3", "f32", 16_384, 1, NARROWEST, rounds=1),
    *(
        Case(model, "Q4_K_M", 2048, again=model == "gemma2")
        for model in MODELS
        if model not in {"deepseek_v2", "qwen3_next"}
    ),
    Case("qwen3", "Q8_0", 2048, 8, again=True),
    Case("llama", "F16", 2048, 1),
    Case("llama", "Q4_0", 1024, 2, WIDE),
    Case("qwen3", "Q8_0", 8192, 2, FAT),
    Case("qwen3", "Q8_0", 16_384, 4, NARROW),
    Case("qwen3", "Q8_0", 131_072, 1, NARROWEST, rounds=1),
    Case("gemma3_text", "Q8_0", 8192, 2),
    Case("qwen3", "Q8_0", 4096, 2, FAT, ("--cache-type-k", "q8_0", "--cache-type-v", "q8_0")),
]

# The estimate was made without a look at these.
HELD_OUT = [
    Case("qwen2", "f32", 768, 6, again=True),
    Case("gemma3_text", "f32", 1024, 3, again=True),
    Case("deepseek_v3", "8", 768, 1),
    Case("qwen3_moe", "6", 640, 3, again=True),
    Case("llama", "bf16", 512, 2, again=True),
    Case("qwen2", "Q8_0", 2048, 3, again=True),
    Case("gpt_oss", "Q8_0", 4096, 1, again=True),
    Case("deepseek_v3", "Q4_K_M", 3072, 2, again=True),
    Case("llama", "Q4_0", 12_288, 1, NARROW, rounds=1),
    Case("gemma2", "Q8_0", 1024, 6),
]
