"""The files that llmd keeps: how each is written and read, for tests that hold for all of them."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llmd.config.edit import with_profile
from llmd.config.load import load_config
from llmd.core.facts import Stock
from llmd.core.shape import ModelShape
from llmd.runtime.learned import Learned
from llmd.runtime.ledger import Ledger
from llmd.weights.remembered import Shapes


def names_in(directory):
    """What is in *directory*, in order."""
    return sorted(entry.name for entry in Path(directory).iterdir())


@dataclass(frozen=True)
class LedgerFile:
    """Says which profiles are pinned; a value is such a profile."""

    path: Path

    def write(self, value):
        Ledger(self.path).write((), Stock(pins={value: True}))

    def read(self):
        """What it holds (None: nothing), and what was wrong with it."""
        ledger = Ledger(self.path)
        return next(iter(ledger.read().stock.pins), None), ledger.warning


@dataclass(frozen=True)
class LearnedFile:
    """A value is what has a mark."""

    path: Path

    def write(self, value):
        learned = Learned(self.path)
        learned.record(value, 2**30)
        learned.save()

    def read(self):
        learned = Learned.load(self.path)
        return next((v for v in ("old", "new", "last") if learned.mark(v)), None), learned.warning


def _shape(architecture):
    return ModelShape(
        format="gguf", architecture=architecture, weights_bytes=1, parameters=1, layers=(),
        quantization="Q8_0", hidden=1, intermediate=1, heads=1, head_dim=1, vocab=1,
        context_tokens=1,
    )  # fmt: skip


@dataclass(frozen=True)
class ShapesFile:
    """A value is an architecture. Nothing is ever wrong with a cache: it is read again."""

    path: Path

    def write(self, value):
        shapes = Shapes(self.path)
        shapes._shapes = {"key": _shape(value)}
        shapes._changed = True
        shapes.save()

    def read(self):
        kept = Shapes(self.path)._shapes
        return next((shape.architecture for shape in kept.values()), None), None


@dataclass(frozen=True)
class ConfigFile:
    """A value is a profile's name; the file always has one profile more, named `a`."""

    path: Path

    def write(self, value):
        first = "profiles:\n  a: {engine: mlx, model: m, port: 8081}\n"
        if value == "old":
            self.path.write_text(f"{first}  old: {{engine: mlx, model: m, port: 8081}}\n")
            self.path.chmod(0o600)
            return
        with_profile(self.path, value, {"engine": "mlx", "model": "m", "port": 8081}).write()

    def read(self):
        names: Any = list(load_config(self.path).profiles)
        assert re.fullmatch("a,old(,new)?(,last)?", ",".join(names))
        return names[-1], None


KINDS = {
    "ledger": LedgerFile,
    "learned": LearnedFile,
    "shapes": ShapesFile,
    "config": ConfigFile,
}
