"""A home with models in it, for the commands that need no daemon."""

from pathlib import Path

import pytest

from tests.weights.making import QWEN, write_gguf, write_mlx


GIB = 2**30

CONFIG = """\
budget: 8GiB
models_dirs: [models]
gateway: null
profiles:
  code: {engine: mlx, model: org/Coder-4bit, port: 8081, context: 1024}
  raw: {engine: llama.cpp, model: Raw-F16, port: 8083, memory: 3GiB}
  twin: {engine: mlx, model: Coder-4bit, port: 8082}
  gone: {engine: mlx, model: org/Gone, port: 8085}
"""


@pytest.fixture
def home(short_dir, monkeypatch):
    """Two good models and a configuration of them; nothing else on this machine can be seen."""
    for name in ("HF_HOME", "HUGGINGFACE_HUB_CACHE", "OLLAMA_MODELS", "HF_TOKEN", "HF_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {
        "HOME": short_dir,
        "HF_HUB_CACHE": short_dir / "hub",
        "XDG_CACHE_HOME": short_dir / "cache",
        "LLMD_CONFIG": short_dir / "llmd.yaml",
        "LLMD_SOCKET": short_dir / "s",
        "COLUMNS": "100",
    }.items():
        monkeypatch.setenv(name, str(value))
    write_mlx(short_dir / "models" / "org" / "Coder-4bit")
    write_gguf(short_dir / "models" / "org" / "Raw-GGUF" / "Raw-F16.gguf")
    (short_dir / "llmd.yaml").write_text(CONFIG)
    return short_dir


def write_large(directory: Path, **config: object) -> Path:
    """An MLX model whose cache takes 128 KiB for each token: 4 GiB at its full 32768."""
    shape = {"num_hidden_layers": 32, "num_key_value_heads": 8, "head_dim": 128}
    return write_mlx(directory, {**QWEN, **shape, "max_position_embeddings": 32768, **config})
