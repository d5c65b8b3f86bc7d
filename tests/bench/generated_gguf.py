"""GGUF models of the commoner architectures, with noise for weights.

    python generated_gguf.py CONFIG FILE QUANTIZATION

takes the same CONFIG as `generated_mlx.py`, in Hugging Face's words. QUANTIZATION is `F16`, `Q8_0`,
`Q4_0` or `Q4_K_M`. Quantized blocks are not computed from anything: random bytes with small scales.
"""

import json
import sys
from pathlib import Path

import gguf
import numpy as np


ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "etc" / "demo"))

from variants import SOURCE, add_tokenizer  # noqa: E402 - found through the line above


ARCHITECTURES = {
    "llama": "llama", "mistral": "llama", "mixtral": "llama", "qwen2": "qwen2", "qwen3": "qwen3",
    "qwen3_moe": "qwen3moe", "gemma2": "gemma2", "gemma3_text": "gemma3", "gpt_oss": "gpt-oss",
    "deepseek_v3": "deepseek2", "lfm2": "lfm2", "mamba2": "mamba2",
}  # fmt: skip
KINDS = gguf.GGMLQuantizationType
SCALES = {KINDS.Q8_0: (0,), KINDS.Q4_0: (0,), KINDS.Q4_K: (0, 2), KINDS.Q6_K: (208,)}
"""Where a block has its scales: half-precision numbers, which must not be infinite."""

BARE = ("ssm_a", "ssm_d", ".bias")
"""Tensors that are no `.weight`."""

ENDS = {"eos_token_id": 1017, "pad_token_id": 1015}


class Model:
    """A file in the making."""

    def __init__(self, config, file, quantization):
        self.config = config
        self.architecture = ARCHITECTURES[config["model_type"]]
        self.writer = gguf.GGUFWriter(file, self.architecture)
        self.quantization = quantization
        self.noise = np.random.default_rng(1)
        self.hidden = config["hidden_size"]
        self.heads = config.get("num_attention_heads", 0)
        self.head_dim = config.get("head_dim") or (self.hidden // self.heads if self.heads else 0)
        self.kv_heads = config.get("num_key_value_heads", self.heads)
        self.experts = config.get("num_local_experts", config.get("n_routed_experts", 0))
        self.experts = config.get("num_experts", self.experts)

    def write(self):
        self.settings()
        self.matrix("token_embd", self.hidden, self.config["vocab_size"])
        if not self.config.get("tie_word_embeddings"):
            self.matrix("output", self.hidden, self.config["vocab_size"])
        self.vector("token_embd_norm" if self.architecture == "lfm2" else "output_norm")
        for index in range(self.config["num_hidden_layers"]):
            self.layer(index)
        self.writer.write_header_to_file()
        self.writer.write_kv_data_to_file()
        self.writer.write_tensors_to_file()
        self.writer.close()

    # --- metadata

    def settings(self):
        config, writer = self.config, self.writer
        writer.add_file_type({"F16": 1, "Q4_0": 2, "Q8_0": 7, "Q4_K_M": 15}[self.quantization])
        writer.add_block_count(config["num_hidden_layers"])
        writer.add_context_length(config["max_position_embeddings"])
        writer.add_embedding_length(self.hidden)
        writer.add_layer_norm_rms_eps(1e-6)
        writer.add_vocab_size(config["vocab_size"])
        add_tokenizer(writer, SOURCE, {"vocab_size": 1024, **ENDS})
        if self.architecture == "mamba2":
            writer.add_ssm_conv_kernel(config["conv_kernel"])
            writer.add_ssm_inner_size(config["num_heads"] * config["head_dim"])
            writer.add_ssm_state_size(config["state_size"])
            writer.add_ssm_time_step_rank(config["num_heads"])
            writer.add_ssm_group_count(config["n_groups"])
            writer.add_feed_forward_length(0)
            writer.add_head_count(0)
            return
        writer.add_feed_forward_length(config["intermediate_size"])
        writer.add_head_count(self.heads)
        writer.add_rope_freq_base(10_000.0)
        if self.architecture == "deepseek2":
            self.latent_settings()
        else:
            writer.add_key_length(self.head_dim)
            writer.add_value_length(self.head_dim)
        if self.architecture == "lfm2":
            kinds = config["layer_types"]
            writer.add_head_count_kv([self.kv_heads if k == "full_attention" else 0 for k in kinds])
            writer.add_shortconv_l_cache(config["conv_L_cache"])
        elif self.architecture != "deepseek2":
            writer.add_head_count_kv(self.kv_heads)
        if self.experts:
            writer.add_expert_count(self.experts)
            writer.add_expert_used_count(config["num_experts_per_tok"])
            writer.add_expert_feed_forward_length(self.expert_width)
        if window := config.get("sliding_window"):
            writer.add_sliding_window(window)

    @property
    def expert_width(self):
        return self.config.get("moe_intermediate_size", self.config["intermediate_size"])

    def latent_settings(self):
        config, writer = self.config, self.writer
        latent, rope = config["kv_lora_rank"], config["qk_rope_head_dim"]
        writer.add_head_count_kv(1)
        writer.add_key_length(latent + rope)
        writer.add_value_length(latent)
        writer.add_key_length_mla(config["qk_nope_head_dim"] + rope)
        writer.add_value_length_mla(config["v_head_dim"])
        writer.add_kv_lora_rank(latent)
        writer.add_q_lora_rank(config["q_lora_rank"])
        writer.add_rope_dimension_count(rope)
        writer.add_leading_dense_block_count(config["first_k_dense_replace"])
        writer.add_expert_shared_count(config["n_shared_experts"])
        writer.add_expert_weights_scale(1.0)
        writer.add_expert_gating_func(gguf.ExpertGatingFuncType.SIGMOID)

    # --- tensors

    def layer(self, index):
        def matrix(name, *shape):
            self.matrix(f"blk.{index}.{name}", *shape)

        def vector(name, *shape):
            self.vector(f"blk.{index}.{name}", *shape)

        vector("attn_norm")
        if self.architecture == "mamba2":
            self.state_space(matrix, vector)
            return
        if self.architecture == "deepseek2":
            self.latent(matrix, vector)
        elif self.config.get("layer_types", ["full"] * (index + 1))[index] == "conv":
            matrix("shortconv.in_proj", self.hidden, 3 * self.hidden)
            matrix("shortconv.out_proj", self.hidden, self.hidden)
            vector("shortconv.conv", self.config["conv_L_cache"], self.hidden)
        else:
            self.attention(matrix, vector)
        if self.architecture == "gpt-oss":
            vector("post_attention_norm")
        else:
            vector("ffn_norm")
        if self.architecture in {"gemma2", "gemma3"}:
            vector("post_attention_norm")
            vector("post_ffw_norm")
        if self.experts and index >= self.config.get("first_k_dense_replace", 0):
            self.feed_forward_of_experts(matrix, vector)
        else:
            width = self.config["intermediate_size"]
            matrix("ffn_gate", self.hidden, width)
            matrix("ffn_up", self.hidden, width)
            matrix("ffn_down", width, self.hidden)

    def attention(self, matrix, vector):
        queries, keys = self.heads * self.head_dim, self.kv_heads * self.head_dim
        matrix("attn_q", self.hidden, queries)
        matrix("attn_k", self.hidden, keys)
        matrix("attn_v", self.hidden, keys)
        matrix("attn_output", queries, self.hidden)
        if self.architecture in {"qwen3", "qwen3moe", "gemma3", "lfm2"}:
            vector("attn_q_norm", self.head_dim)
            vector("attn_k_norm", self.head_dim)
        if self.architecture in {"qwen2", "gpt-oss"}:
            vector("attn_q.bias", queries)
            vector("attn_k.bias", keys)
            vector("attn_v.bias", keys)
        if self.architecture == "gpt-oss":
            vector("attn_output.bias", self.hidden)
            vector("attn_sinks", self.heads)

    def latent(self, matrix, vector):
        config, heads = self.config, self.heads
        latent, rope = config["kv_lora_rank"], config["qk_rope_head_dim"]
        plain, value = config["qk_nope_head_dim"], config["v_head_dim"]
        matrix("attn_q_a", self.hidden, config["q_lora_rank"])
        vector("attn_q_a_norm", config["q_lora_rank"])
        matrix("attn_q_b", config["q_lora_rank"], heads * (plain + rope))
        matrix("attn_kv_a_mqa", self.hidden, latent + rope)
        vector("attn_kv_a_norm", latent)
        matrix("attn_k_b", plain, latent, heads)
        matrix("attn_v_b", latent, value, heads)
        matrix("attn_output", heads * value, self.hidden)

    def feed_forward_of_experts(self, matrix, vector):
        width = self.expert_width
        vector("ffn_gate_inp", self.hidden, self.experts)
        matrix("ffn_gate_exps", self.hidden, width, self.experts)
        matrix("ffn_up_exps", self.hidden, width, self.experts)
        matrix("ffn_down_exps", width, self.hidden, self.experts)
        if shared := self.config.get("n_shared_experts", 0) * width:
            matrix("ffn_gate_shexp", self.hidden, shared)
            matrix("ffn_up_shexp", self.hidden, shared)
            matrix("ffn_down_shexp", shared, self.hidden)
        if self.architecture == "gpt-oss":
            vector("ffn_gate_inp.bias", self.experts)
            for name, out in (("gate", width), ("up", width), ("down", self.hidden)):
                vector(f"ffn_{name}_exps.bias", out, self.experts)

    def state_space(self, matrix, vector):
        config = self.config
        inner = config["num_heads"] * config["head_dim"]
        channels = inner + 2 * config["n_groups"] * config["state_size"]
        matrix("ssm_in", self.hidden, inner + channels + config["num_heads"])
        vector("ssm_conv1d", config["conv_kernel"], channels)
        vector("ssm_conv1d.bias", channels)
        vector("ssm_dt.bias", config["num_heads"])
        vector("ssm_a", 1, config["num_heads"])
        vector("ssm_d", 1, config["num_heads"])
        vector("ssm_norm", inner // config["n_groups"], config["n_groups"])
        matrix("ssm_out", inner, self.hidden)

    def vector(self, name, *shape):
        """Numbers in 32 bits, which are never quantized; as wide as the model unless told."""
        suffix = "" if name.endswith(BARE) else ".weight"
        data = self.noise.standard_normal(shape[::-1] or self.hidden, np.float32) * 0.02
        self.writer.add_tensor(name + suffix, -abs(data) if name.endswith("ssm_a") else data)

    def matrix(self, name, *shape):
        """As llama.cpp counts dimensions: the innermost first."""
        kind = self.kind(name, shape[0])
        per_block, block_bytes = gguf.GGML_QUANT_SIZES[kind]
        numbers = int(np.prod(shape))
        if kind == KINDS.F16:
            some = (self.noise.standard_normal(2**16, np.float32) * 0.02).astype(np.float16)
            data = np.resize(some, shape[::-1])
        else:
            blocks = self.noise.integers(0, 256, (numbers // per_block, block_bytes), np.uint8)
            small = np.frombuffer(np.float16(1e-4).tobytes(), np.uint8)
            for at in SCALES[kind]:
                blocks[:, at : at + 2] = small
            data = blocks.reshape(*shape[:0:-1], shape[0] // per_block * block_bytes)
        self.writer.add_tensor(f"{name}.weight", data, raw_dtype=kind)

    def kind(self, name, width):
        """The type of a matrix; `Q4_K_M` keeps more of some than of others."""
        if self.quantization != "Q4_K_M":
            return KINDS[self.quantization]
        if width % 256:
            return KINDS.Q8_0
        return KINDS.Q6_K if name.endswith(("output", "attn_v", "ffn_down")) else KINDS.Q4_K


if __name__ == "__main__":
    Model(json.loads(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]).write()
