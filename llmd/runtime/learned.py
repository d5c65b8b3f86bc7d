"""What hosts turned out to hold: high-water marks of earlier runs, kept across restarts.

A mark belongs to one way of running one set of weights (its name changes with weights, context,
sequences, prompt cache, engine and flags).

A mark is only as good as the use behind it. The key-value cache of MLX grows with the conversation,
so the mark of a day of short questions says little about the next long one. Therefore:

- a mark above the estimate counts: the estimate was too low;
- a mark below it counts only when it covers weights, runtime and the full caches all the same: then
  everything that grows with use has grown, and only the guess for compute buffers was too high;
- any other mark is from light use, and the estimate stands;
- no mark counts for more than `EXCESS_MAX` times the estimate: after one leak the profile would
  never be loaded again, and so never be measured again.
"""

import json
from pathlib import Path
from typing import Any, Final, Self

from msgspec import Struct, field

from llmd.config.replace import replace_file
from llmd.core.footprint import Footprint
from llmd.runtime.statefile import read_state


MARKS_MAX: Final = 512
"""Kept at most; the ones longest unused go first."""

EXCESS_MAX: Final = 1.5

_VERSION: Final = 1


def charge(estimate: Footprint, mark_bytes: int) -> int:
    """What to charge by *estimate* and the high-water mark of earlier runs (0: there is none)."""
    filled = estimate.total_bytes - estimate.compute_bytes
    if mark_bytes > estimate.total_bytes:
        return min(mark_bytes, int(estimate.total_bytes * EXCESS_MAX))
    return mark_bytes if mark_bytes >= filled else estimate.total_bytes


class Learned(Struct):
    """High-water marks by name, in order of use.

    Attributes:
        path: The file they are kept in.
        warning: What was wrong with it, for the log; None when nothing was.
    """

    path: Path
    warning: str | None = None
    _marks: dict[str, int] = field(default_factory=dict)

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read the marks of earlier runs. A file that cannot be used is set aside, never fatal."""
        marks, wrong = read_state(path, _parse)
        return cls(path, f"{wrong}; footprints are learned anew" if wrong else None, marks or {})

    def footprint(self, name: str, estimate: Footprint) -> int:
        """Bytes to charge what *name* stands for; see `charge`."""
        return charge(estimate, self._marks.get(name, 0))

    def mark(self, name: str) -> int:
        """The high-water mark in bytes; 0 when there is none."""
        return self._marks.get(name, 0)

    def record(self, name: str, peak_bytes: int) -> bool:
        """Note that a run held *peak_bytes*; whether that is new and `save` is due."""
        before = self._marks.pop(name, 0)
        self._marks[name] = max(before, peak_bytes)
        while len(self._marks) > MARKS_MAX:
            del self._marks[next(iter(self._marks))]
        return peak_bytes > before

    def save(self) -> None:
        """Replace the file in one step, readable by its owner alone.

        Raises:
            OSError: The directory cannot be written to; the marks stay in memory.
        """
        text = json.dumps({"version": _VERSION, "marks": self._marks}, indent=1)
        replace_file(self.path, text.encode(), lasting=True)


def _parse(raw: bytes) -> dict[str, int]:
    """The marks in *raw*.

    Raises:
        ValueError: It is not such a file.
    """
    data: Any = json.loads(raw)
    marks = data.get("marks") if isinstance(data, dict) else None
    if not isinstance(marks, dict) or data.get("version") != _VERSION:
        raise ValueError("no marks of this version")
    if not all(type(value) is int and 0 <= value < 2**60 for value in marks.values()):
        raise ValueError("a mark is a number of bytes")
    return dict(list(marks.items())[-MARKS_MAX:])
