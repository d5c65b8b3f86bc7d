"""Models of any shape, for measurements: noise for weights, the demo model's tokens."""

import json
import subprocess
import sys
from pathlib import Path


PROGRAMS = {"mlx": "generated_mlx.py", "llama.cpp": "generated_gguf.py"}


def generate(engine, config, weights, directory):
    """Make a model of *config*, in Hugging Face's words; what a profile names as its model.

    *weights* are their type, in the engine's words. It is made in a process of its own, which gives
    its memory back.
    """
    target = directory / ("model" if engine == "mlx" else "model.gguf")
    program = [sys.executable, Path(__file__).with_name(PROGRAMS[engine])]
    subprocess.run([*program, json.dumps(config), target, weights], check=True)
    return target
