"""A tiny eye: a projector whose weights are noise, in the format that llama.cpp reads.

The demo model has learned nothing of pictures; what it shows is that a picture takes its way into
the prompt. A picture becomes `PICTURE_TOKENS` tokens.
"""

import struct
import zlib
from pathlib import Path

import gguf
import numpy as np


WIDTH, HIDDEN, PATCH, SIDE = 32, 64, 14, 56
PICTURE_TOKENS = (SIDE // PATCH) ** 2


def write_projector(path: Path, model_width: int) -> None:
    """A vision tower of one layer and a projection to embeddings of *model_width* numbers."""
    noise = np.random.default_rng(1)
    writer = gguf.GGUFWriter(path, "clip")
    writer.add_type("mmproj")
    writer.add_clip_has_vision_encoder(value=True)
    writer.add_clip_projector_type("mlp")
    writer.add_vision_image_size(SIDE)
    writer.add_vision_patch_size(PATCH)
    writer.add_vision_embedding_length(WIDTH)
    writer.add_vision_feed_forward_length(HIDDEN)
    writer.add_vision_projection_dim(model_width)
    writer.add_vision_block_count(1)
    writer.add_vision_head_count(2)
    writer.add_vision_attention_layernorm_eps(1e-5)
    writer.add_vision_image_mean([0.5] * 3)
    writer.add_vision_image_std([0.5] * 3)
    writer.add_vision_use_gelu(value=True)

    def tensor(name: str, *shape: int) -> None:
        writer.add_tensor(name, (noise.standard_normal(shape) * 0.02).astype(np.float32))

    def layer(name: str, out: int, into: int) -> None:
        tensor(f"{name}.weight", out, into)
        tensor(f"{name}.bias", out)

    def norm(name: str) -> None:
        tensor(f"{name}.weight", WIDTH)
        tensor(f"{name}.bias", WIDTH)

    tensor("v.patch_embd.weight", WIDTH, 3, PATCH, PATCH)
    tensor("v.class_embd", WIDTH)
    tensor("v.position_embd.weight", PICTURE_TOKENS + 1, WIDTH)
    for name in ("v.pre_ln", "v.post_ln", "v.blk.0.ln1", "v.blk.0.ln2"):
        norm(name)
    for name in ("attn_q", "attn_k", "attn_v", "attn_out"):
        layer(f"v.blk.0.{name}", WIDTH, WIDTH)
    layer("v.blk.0.ffn_up", HIDDEN, WIDTH)
    layer("v.blk.0.ffn_down", WIDTH, HIDDEN)
    layer("mm.0", model_width, WIDTH)
    layer("mm.2", model_width, model_width)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def png(width: int = 64, height: int = 64, rgb: tuple[int, int, int] = (200, 30, 30)) -> bytes:
    """A picture of one colour."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + check

    rows = b"".join(b"\0" + bytes(rgb) * width for _ in range(height))
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )
