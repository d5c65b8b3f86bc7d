"""MLX models of any architecture that mlx_lm knows, with noise for weights.

    python generated_mlx.py CONFIG DIRECTORY QUANTIZATION

in a process of its own, which gives its memory back. QUANTIZATION is `f32`, `f16`, `bf16` or bits.
"""

import json
import shutil
import sys
from pathlib import Path

import mlx.core as mx
from mlx_lm.utils import _get_classes, quantize_model, save_config, save_model


TOKENIZER = Path(__file__).parents[2] / "etc" / "demo" / "model"
TYPES = {"f32": mx.float32, "f16": mx.float16, "bf16": mx.bfloat16}


def write(config, directory, quantization):
    kind, arguments = _get_classes(config)
    model = kind(arguments.from_dict(config))
    model.set_dtype(TYPES.get(quantization, mx.float32))
    if quantization not in TYPES:
        model, config = quantize_model(model, config, group_size=64, bits=int(quantization))
    save_model(directory, model, donate_model=True)
    save_config(config, directory / "config.json")
    for file in TOKENIZER.iterdir():
        if file.name.startswith(("tokenizer", "chat_template", "generation_config")):
            shutil.copy(file, directory)


if __name__ == "__main__":
    write(json.loads(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])
