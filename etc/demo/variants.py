"""Make the demo model's variants: MLX in 32 and 4 bits, GGUF in F16 and Q8_0.

    python etc/demo/variants.py OUTDIR

writes `tiny-mlx/`, `tiny-mlx-4bit/`, `tiny-f16.gguf` and `tiny-q8_0.gguf` from `etc/demo/model`, in
a few seconds and without a network. Run it as often as you like: what is up to date is left alone.
Each variant is built beside its place and renamed into it, so none is ever half there. Needs `gguf`
and `numpy`; the MLX variants need `mlx-lm` and are left out where that is not installed.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import importlib.util
import io
import json
import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

import gguf
import numpy as np


SOURCE: Final = Path(__file__).resolve().parent / "model"
STAMP: Final = ".tiny-variants.json"
LAYER_NAMES: Final = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}


def read_tensors(path: Path) -> dict[str, np.ndarray[Any, Any]]:
    """Return the F16 tensors of a safetensors file: u64 header length, JSON header, data."""
    raw = path.read_bytes()
    start = 8 + int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8:start])
    header.pop("__metadata__", None)
    out = {}
    for name, entry in header.items():
        if entry["dtype"] != "F16":
            raise ValueError(f"{name} is {entry['dtype']}; train.py writes F16")
        first, last = entry["data_offsets"]
        data = np.frombuffer(raw[start + first : start + last], np.float16)
        out[name] = data.reshape(entry["shape"])
    return out


def gguf_name(name: str) -> str:
    """Return llama.cpp's name of the Hugging Face tensor *name*."""
    if name == "model.embed_tokens.weight":
        return "token_embd.weight"
    if name == "model.norm.weight":
        return "output_norm.weight"
    layer, part = name.removeprefix("model.layers.").removesuffix(".weight").split(".", 1)
    return f"blk.{layer}.{LAYER_NAMES[part]}.weight"


def add_tokenizer(writer: gguf.GGUFWriter, source: Path, config: dict[str, Any]) -> None:
    """Embed tokenizer.json as llama.cpp's `gpt2` vocabulary, and the chat template."""
    tokenizer = json.loads((source / "tokenizer.json").read_text("utf-8"))
    vocab: dict[str, int] = tokenizer["model"]["vocab"]
    added = {row["id"]: row for row in tokenizer["added_tokens"]}
    tokens = {index: token for token, index in vocab.items()}
    tokens |= {index: row["content"] for index, row in added.items()}
    types = []
    for index in range(config["vocab_size"]):
        if index not in added:
            types.append(gguf.TokenType.NORMAL)
        elif added[index]["special"]:
            types.append(gguf.TokenType.CONTROL)
        else:
            types.append(gguf.TokenType.USER_DEFINED)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list([tokens[index] for index in range(config["vocab_size"])])
    writer.add_token_types(types)
    writer.add_token_merges([" ".join(pair) for pair in tokenizer["model"]["merges"]])
    writer.add_eos_token_id(config["eos_token_id"])
    writer.add_pad_token_id(config["pad_token_id"])
    writer.add_add_bos_token(value=False)
    writer.add_chat_template((source / "chat_template.jinja").read_text("utf-8"))


def write_gguf(source: Path, target: Path, kind: gguf.GGMLQuantizationType) -> None:
    """Write *source* to the file *target*: matrices as *kind*, vectors in 32 bits."""
    config = json.loads((source / "config.json").read_text("utf-8"))
    writer = gguf.GGUFWriter(target, "qwen3")
    writer.add_name("llmd demo")
    writer.add_size_label("1M")
    writer.add_file_type(
        gguf.LlamaFileType.MOSTLY_Q8_0
        if kind == gguf.GGMLQuantizationType.Q8_0
        else gguf.LlamaFileType.MOSTLY_F16
    )
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_key_length(config["head_dim"])
    writer.add_value_length(config["head_dim"])
    writer.add_rope_freq_base(config["rope_theta"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    add_tokenizer(writer, source, config)
    for name, tensor in read_tensors(source / "model.safetensors").items():
        if tensor.ndim == 1:
            writer.add_tensor(gguf_name(name), tensor.astype(np.float32))
        else:
            data = gguf.quantize(tensor.astype(np.float32), kind)
            writer.add_tensor(gguf_name(name), data, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def write_mlx(source: Path, target: Path, **quantization: Any) -> None:
    """Write *source* to the directory *target* with mlx-lm's converter, in 32 bits or quantised.

    Scales and what is not quantised are 32 bits wide, too: MLX on a CPU takes three to ten times
    as long with 16.
    """
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    from mlx_lm import convert  # noqa: PLC0415  (seconds, for this variant alone)

    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        convert(str(source), str(target), dtype="float32", **quantization)


def put(built: Path, target: Path) -> None:
    """Move *built* to *target*, whatever was there."""
    if target.is_dir():
        target.rename(built.with_name(f"old-{target.name}"))
    built.rename(target)


def fingerprint(source: Path) -> str:
    """Return a digest of everything the variants depend on."""
    digest = hashlib.sha256()
    for path in [*sorted(source.iterdir()), Path(__file__)]:
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def make(outdir: Path, *, source: Path = SOURCE) -> list[Path]:
    """Bring the variants in *outdir* up to date and return them all."""
    builders: dict[str, Callable[[Path, Path], None]] = {
        "tiny-f16.gguf": partial(write_gguf, kind=gguf.GGMLQuantizationType.F16),
        "tiny-q8_0.gguf": partial(write_gguf, kind=gguf.GGMLQuantizationType.Q8_0),
    }
    if importlib.util.find_spec("mlx_lm"):
        builders["tiny-mlx"] = write_mlx
        builders["tiny-mlx-4bit"] = partial(write_mlx, quantize=True, q_bits=4, q_group_size=64)
    outdir.mkdir(parents=True, exist_ok=True)
    stamp, current = outdir / STAMP, fingerprint(source)
    try:
        done = json.loads(stamp.read_text("utf-8"))
    except (OSError, ValueError):
        done = {}
    with tempfile.TemporaryDirectory(dir=outdir, prefix=".tiny-") as scratch:
        for name, build in builders.items():
            if done.get(name) == current and (outdir / name).exists():
                continue
            build(source, Path(scratch) / name)
            put(Path(scratch) / name, outdir / name)
            done[name] = current
        (Path(scratch) / STAMP).write_text(json.dumps(done), "utf-8")
        put(Path(scratch) / STAMP, stamp)
    return [outdir / name for name in builders]


def main(arguments: Sequence[str] | None = None) -> int:
    """Make the variants and print their paths."""
    parser = argparse.ArgumentParser(description="Make the demo model's variants.")
    parser.add_argument("outdir", type=Path)
    for path in make(parser.parse_args(arguments).outdir):
        print(path)
    if not importlib.util.find_spec("mlx_lm"):
        print("mlx-lm is not installed: no tiny-mlx-4bit", file=sys.stderr)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
