"""Models of a wanted size, in the demo model's shape and with noise for weights.

    python -m tests.bench.weights mlx 500 DIRECTORY        or llama.cpp

in a process of its own, which gives its memory back.
"""

import json
import shutil
import sys
from pathlib import Path

import gguf
import numpy as np


ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "etc" / "demo"))

from variants import SOURCE, write_gguf  # noqa: E402 - found through the line above


KINDS = {"mlx": ("F32", np.float32), "llama.cpp": ("F16", np.float16)}
"""MLX takes long with 16 bits on a CPU; llama.cpp's weights are written from these."""
HIDDEN, INNER, HEADS, KV_HEADS, HEAD, VOCABULARY = 1024, 4096, 16, 8, 64, 1024
LAYER = {
    "self_attn.q_proj": (HEADS * HEAD, HIDDEN),
    "self_attn.k_proj": (KV_HEADS * HEAD, HIDDEN),
    "self_attn.v_proj": (KV_HEADS * HEAD, HIDDEN),
    "self_attn.o_proj": (HIDDEN, HEADS * HEAD),
    "self_attn.q_norm": (HEAD,),
    "self_attn.k_norm": (HEAD,),
    "mlp.gate_proj": (INNER, HIDDEN),
    "mlp.up_proj": (INNER, HIDDEN),
    "mlp.down_proj": (HIDDEN, INNER),
    "input_layernorm": (HIDDEN,),
    "post_attention_layernorm": (HIDDEN,),
}


def shapes(layers):
    yield "model.embed_tokens.weight", (VOCABULARY, HIDDEN)
    for index in range(layers):
        for name, shape in LAYER.items():
            yield f"model.layers.{index}.{name}.weight", shape
    yield "model.norm.weight", (HIDDEN,)


def write_safetensors(file, tensors, name, kind):
    """u64 header length, JSON header, data: noise around 0, and ones for the norms."""
    header, at = {}, 0
    for tensor, shape in tensors:
        size = int(np.prod(shape)) * np.dtype(kind).itemsize
        header[tensor] = {"dtype": name, "shape": shape, "data_offsets": [at, at + size]}
        at += size
    noise = np.random.default_rng(1)
    head = json.dumps(header).encode()
    head += b" " * (-len(head) % 8)
    with file.open("wb") as out:
        out.write(len(head).to_bytes(8, "little") + head)
        for _, shape in tensors:
            if len(shape) == 1:
                out.write(np.ones(shape, kind).tobytes())
            else:
                out.write((noise.standard_normal(shape, np.float32) * 0.02).astype(kind).tobytes())


def write(engine, size_mb, directory):
    """A directory of safetensors for MLX, a file `model.gguf` in it for llama.cpp."""
    name, kind = KINDS[engine]
    layer_bytes = sum(int(np.prod(shape)) for shape in LAYER.values()) * np.dtype(kind).itemsize
    layers = max(round(size_mb * 1e6 / layer_bytes), 1)
    for file in SOURCE.iterdir():
        if file.suffix != ".safetensors":
            shutil.copy(file, directory)
    config = json.loads((directory / "config.json").read_text())
    config |= {
        "hidden_size": HIDDEN, "intermediate_size": INNER, "num_attention_heads": HEADS,
        "num_key_value_heads": KV_HEADS, "head_dim": HEAD, "num_hidden_layers": layers,
    }  # fmt: skip
    (directory / "config.json").write_text(json.dumps(config))
    tensors = directory / "model.safetensors"
    write_safetensors(tensors, list(shapes(layers)), name, kind)
    if engine == "llama.cpp":
        write_gguf(directory, directory / "model.gguf", gguf.GGMLQuantizationType.F16)
        tensors.unlink()


if __name__ == "__main__":
    write(sys.argv[1], float(sys.argv[2]), Path(sys.argv[3]))
