"""Qwen3 in PyTorch, just large enough to train the demo model, with the names MLX loads.

The state dict's keys and shapes are those of a Hugging Face Qwen3 checkpoint. Matrices can be
rounded to 4 bits on the fly, so that the quantised variant learns to be exact too.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional


@dataclass(frozen=True)
class Shape:
    """The model's dimensions, under the names config.json gives them."""

    vocab_size: int = 1024
    hidden_size: int = 128
    intermediate_size: int = 320
    num_hidden_layers: int = 4
    num_attention_heads: int = 4
    num_key_value_heads: int = 2
    head_dim: int = 64
    max_position_embeddings: int = 32_768
    rms_norm_eps: float = 1e-6
    rope_theta: float = 1_000_000.0

    def config(self, *, eos_token_id: int, pad_token_id: int) -> dict[str, object]:
        """Return config.json: model type qwen3, half precision, tied embeddings."""
        return {
            "architectures": ["Qwen3ForCausalLM"],
            "model_type": "qwen3",
            **asdict(self),
            "attention_bias": False,
            "attention_dropout": 0.0,
            "eos_token_id": eos_token_id,
            "hidden_act": "silu",
            "initializer_range": 0.02,
            "pad_token_id": pad_token_id,
            "rope_scaling": None,
            "tie_word_embeddings": True,
            "torch_dtype": "float16",
            "use_cache": True,
            "use_sliding_window": False,
        }


def round_to_4_bits(weight: Tensor, group: int = 64) -> Tensor:
    """Return *weight* as MLX's affine 4-bit quantisation would give it back.

    Groups of *group* along the last axis share a scale and a bias. The gradient passes straight
    through.
    """
    with torch.no_grad():
        w = weight.reshape(-1, group)
        low, high = w.amin(1, keepdim=True), w.amax(1, keepdim=True)
        flip = low.abs() > high.abs()
        scale = ((high - low) / 15).clamp_min(1e-7)
        scale = torch.where(flip, scale, -scale)
        edge = torch.where(flip, low, high)
        steps = torch.round(edge / scale)
        scale = torch.where(steps != 0, edge / steps, scale).half().float()
        bias = torch.where(steps != 0, edge, torch.zeros_like(edge)).half().float()
        rounded = (torch.round((w - bias) / scale).clamp(0, 15) * scale + bias).view_as(weight)
    return weight + (rounded - weight).detach()


def rotate(x: Tensor, rope: tuple[Tensor, Tensor]) -> Tensor:
    """Apply rotary positions to (batch, heads, tokens, head_dim), the halves paired."""
    cos, sin = rope
    a, b = x.chunk(2, -1)
    return torch.cat((a * cos - b * sin, b * cos + a * sin), -1)


class Norm(nn.Module):
    """RMS norm over the last axis."""

    def __init__(self, size: int, eps: float, gain: float = 1.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((size,), gain))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """Return *x* with a root mean square of one, times the weight."""
        return functional.rms_norm(x, self.weight.shape, self.weight, self.eps)


class Linear(nn.Module):
    """A matrix without bias, which can pretend to be quantised."""

    def __init__(self, inputs: int, outputs: int, std: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs) * std)
        self.coarse = False

    def effective(self) -> Tensor:
        """Return the matrix as an inference engine will see it."""
        return round_to_4_bits(self.weight) if self.coarse else self.weight

    def forward(self, x: Tensor) -> Tensor:
        """Return *x* (…, inputs) times the matrix: (…, outputs)."""
        return functional.linear(x, self.effective())


class Attention(nn.Module):
    """Grouped-query attention with normed queries and keys and rotary positions."""

    def __init__(self, s: Shape) -> None:
        super().__init__()
        self.shape = s
        queries, keys = s.num_attention_heads * s.head_dim, s.num_key_value_heads * s.head_dim
        std = s.hidden_size**-0.5
        self.q_proj = Linear(s.hidden_size, queries, std)
        self.k_proj = Linear(s.hidden_size, keys, std)
        self.v_proj = Linear(s.hidden_size, keys, std)
        self.o_proj = Linear(queries, s.hidden_size, queries**-0.5 / s.num_hidden_layers)
        # Thousands of filler tokens compete for attention: start with sharper scores than 1 gives.
        self.q_norm = Norm(s.head_dim, s.rms_norm_eps, gain=1.5)
        self.k_norm = Norm(s.head_dim, s.rms_norm_eps, gain=1.5)

    def forward(self, x: Tensor, rope: tuple[Tensor, Tensor]) -> Tensor:
        """Return what each of (batch, time, hidden) gathers from the tokens before it."""
        b, t, _ = x.shape
        s = self.shape
        q = rotate(self.q_norm(self.q_proj(x).view(b, t, -1, s.head_dim)).transpose(1, 2), rope)
        k = rotate(self.k_norm(self.k_proj(x).view(b, t, -1, s.head_dim)).transpose(1, 2), rope)
        v = self.v_proj(x).view(b, t, -1, s.head_dim).transpose(1, 2)
        repeat = s.num_attention_heads // s.num_key_value_heads
        k, v = k.repeat_interleave(repeat, 1), v.repeat_interleave(repeat, 1)
        out = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        return cast("Tensor", self.o_proj(out.transpose(1, 2).reshape(b, t, -1)))


class Mlp(nn.Module):
    """The gated feed-forward part."""

    def __init__(self, s: Shape) -> None:
        super().__init__()
        std = s.hidden_size**-0.5
        self.gate_proj = Linear(s.hidden_size, s.intermediate_size, std)
        self.up_proj = Linear(s.hidden_size, s.intermediate_size, std)
        down = s.intermediate_size**-0.5 / s.num_hidden_layers
        self.down_proj = Linear(s.intermediate_size, s.hidden_size, down)

    def forward(self, x: Tensor) -> Tensor:
        """Return a tensor of the shape of *x*."""
        gate = functional.silu(self.gate_proj(x))
        return cast("Tensor", self.down_proj(gate * self.up_proj(x)))


class Block(nn.Module):
    """Attention, then feed-forward, each on a normed copy of the stream."""

    def __init__(self, s: Shape) -> None:
        super().__init__()
        self.self_attn = Attention(s)
        self.mlp = Mlp(s)
        self.input_layernorm = Norm(s.hidden_size, s.rms_norm_eps)
        self.post_attention_layernorm = Norm(s.hidden_size, s.rms_norm_eps)

    def forward(self, x: Tensor, rope: tuple[Tensor, Tensor]) -> Tensor:
        """Return the stream (batch, time, hidden) after this layer."""
        x = x + self.self_attn(self.input_layernorm(x), rope)
        return cast("Tensor", x + self.mlp(self.post_attention_layernorm(x)))


class Trunk(nn.Module):
    """Everything below the logits."""

    def __init__(self, s: Shape) -> None:
        super().__init__()
        self.embed_tokens = Linear(s.hidden_size, s.vocab_size, 0.05)
        self.layers = nn.ModuleList(Block(s) for _ in range(s.num_hidden_layers))
        self.norm = Norm(s.hidden_size, s.rms_norm_eps)


class Network(nn.Module):
    """A Qwen3 with tied embeddings. Tokens in; logits at chosen positions out."""

    def __init__(self, s: Shape) -> None:
        super().__init__()
        self.shape = s
        self.model = Trunk(s)

    def forward(self, tokens: Tensor, where: Tensor) -> Tensor:
        """Return logits (chosen, vocab) of *tokens* (batch, time) where the mask *where* is set."""
        s = self.shape
        embedding = self.model.embed_tokens.effective()
        x = functional.embedding(tokens, embedding)
        half = torch.arange(0, s.head_dim, 2, dtype=torch.float32) / s.head_dim
        angle = torch.arange(tokens.shape[1], dtype=torch.float32)[:, None] / s.rope_theta**half
        rope = (angle.cos(), angle.sin())
        for block in self.model.layers:
            x = block(x, rope)
        return functional.linear(self.model.norm(x[where]), embedding)

    def set_coarse(self, *, coarse: bool) -> None:
        """Round every matrix to 4 bits from now on, or stop doing so."""
        for module in self.modules():
            if isinstance(module, Linear):
                module.coarse = coarse

    def parameter_count(self) -> int:
        """Return how many numbers are learnt; the embedding counts once."""
        return sum(parameter.numel() for parameter in self.parameters())
