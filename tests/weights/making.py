"""Small model files, whole and damaged, for the tests of this directory."""

import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final


QWEN: Final[dict[str, Any]] = {
    "model_type": "qwen3",
    "num_hidden_layers": 4,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "vocab_size": 100,
    "max_position_embeddings": 4096,
}

LLAMA: Final[dict[str, Any]] = {
    "general.architecture": "llama",
    "general.file_type": 1,
    "llama.block_count": 4,
    "llama.embedding_length": 64,
    "llama.feed_forward_length": 128,
    "llama.attention.head_count": 4,
    "llama.attention.head_count_kv": 2,
    "llama.context_length": 4096,
    "tokenizer.chat_template": "{{ messages }}",
    "tokenizer.ggml.tokens": ["a", "b", "c"],
}

_WIDTHS: Final = {"F32": 4, "F16": 2, "BF16": 2, "U32": 4}
_KINDS: Final = {"F32": (0, 4), "F16": (1, 2)}


def safetensors_bytes(header: Any, data: int = 0) -> bytes:
    """A safetensors file with *header* as it is, and so many bytes of data."""
    raw = json.dumps(header).encode()
    return len(raw).to_bytes(8, "little") + raw + bytes(data)


def safetensors_header(tensors: Mapping[str, tuple[str, tuple[int, ...]]]) -> tuple[Any, int]:
    """A right header for *tensors*, and how many bytes of data it announces."""
    header: dict[str, Any] = {"__metadata__": {"format": "mlx"}}
    end = 0
    for name, (dtype, shape) in tensors.items():
        size = _WIDTHS[dtype]
        for dimension in shape:
            size *= dimension
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [end, end + size]}
        end += size
    return header, end


def write_safetensors(file: Path, tensors: Mapping[str, tuple[str, tuple[int, ...]]]) -> None:
    """*tensors* (type and shape) with zeros for weights."""
    file.write_bytes(safetensors_bytes(*safetensors_header(tensors)))


def write_mlx(
    directory: Path,
    config: Mapping[str, Any] = QWEN,
    tensors: Mapping[str, tuple[str, tuple[int, ...]]] | None = None,
) -> Path:
    """An MLX directory with one file of weights."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "config.json").write_text(json.dumps(config))
    weights = tensors or {"model.embed_tokens.weight": ("F16", (100, 64))}
    write_safetensors(directory / "model.safetensors", weights)
    return directory


def write_sharded_mlx(directory: Path, shards: int) -> Path:
    """An MLX directory with an index and so many files of weights."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "config.json").write_text(json.dumps(QWEN))
    names = [f"model-{n + 1:05d}-of-{shards:05d}.safetensors" for n in range(shards)]
    for number, name in enumerate(names):
        write_safetensors(directory / name, {f"layer.{number}": ("F16", (8, 8))})
    index = {"weight_map": {f"layer.{n}": name for n, name in enumerate(names)}}
    (directory / "model.safetensors.index.json").write_text(json.dumps(index))
    return directory


def text(value: str | bytes) -> bytes:
    """A GGUF string."""
    raw = value if isinstance(value, bytes) else value.encode()
    return struct.pack("<Q", len(raw)) + raw


def typed(value: Any) -> bytes:
    """A GGUF value with its type before it."""
    match value:
        case bool():
            return struct.pack("<I?", 7, value)
        case int():
            return struct.pack("<IQ", 10, value)
        case float():
            return struct.pack("<If", 6, value)
        case str():
            return struct.pack("<I", 8) + text(value)
        case [str(), *_]:
            return struct.pack("<IIQ", 9, 8, len(value)) + b"".join(map(text, value))
        case [bool(), *_]:
            return struct.pack(f"<IIQ{len(value)}?", 9, 7, len(value), *value)
        case [*_]:
            return struct.pack(f"<IIQ{len(value)}I", 9, 4, len(value), *value)
    raise TypeError(value)


def gguf_bytes(
    metadata: Mapping[str, Any] = LLAMA,
    tensors: Mapping[str, tuple[str, tuple[int, ...]]] | None = None,
    *,
    version: int = 3,
    offset: int | None = None,
) -> bytes:
    """A GGUF file, at most 1 MiB of data; *offset* puts every tensor at the same wrong place."""
    weights = {"token_embd.weight": ("F16", (64, 100))} if tensors is None else tensors
    head = b"GGUF" + struct.pack("<IQQ", version, len(weights), len(metadata))
    head += b"".join(text(key) + typed(value) for key, value in metadata.items())
    end = 0
    for name, (kind, shape) in weights.items():
        number, width = _KINDS[kind]
        head += text(name) + struct.pack(f"<I{len(shape)}Q", len(shape), *shape)
        head += struct.pack("<IQ", number, end if offset is None else offset)
        for dimension in shape:
            width *= dimension
        end += -(-width // 32) * 32
    return head + bytes(-len(head) % 32) + bytes(min(end, 2**20))


def write_gguf(file: Path, *args: Any, **options: Any) -> Path:
    """`gguf_bytes` in *file*."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(gguf_bytes(*args, **options))
    return file
