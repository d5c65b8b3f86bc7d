"""Small helper programs: run one to its end, and read what it printed.

Through `llmd.platform.spawn`, since every way that the standard library offers may fork.
"""

import os
import shutil
import signal
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from llmd.platform.spawn import spawn


_KILLED_WITHIN_S: Final = 2.0
_OUTPUT_MAX_BYTES: Final = 2**20


@dataclass(frozen=True, slots=True)
class Ran:
    """How a program ended, and what it printed.

    Attributes:
        code: Its exit status; 127 when there is no such program, None when a signal ended it or
            it ran out of time.
        output: Standard output and error, as they came.
    """

    code: int | None
    output: str

    @property
    def ok(self) -> bool:
        """Whether it ended with status 0."""
        return self.code == 0


def run(
    argv: Sequence[str | Path], *, timeout_s: float, env: Mapping[str, str] | None = None
) -> Ran:
    """Run *argv* to its end; blocks for *timeout_s* seconds at most, then kills it.

    The program is looked up on PATH. *env* is its whole environment, by default ours.
    """
    program = shutil.which(argv[0], path=None if env is None else env.get("PATH"))
    if program is None:
        return Ran(127, f"{argv[0]}: no such program")
    with tempfile.TemporaryDirectory(prefix="llmd-run-") as directory:
        log = Path(directory) / "output"
        try:
            child = spawn(
                [Path(program).absolute(), *argv[1:]],
                env=os.environ if env is None else env,
                log=log,
            )
        except OSError as error:
            return Ran(127, f"{argv[0]}: {error.strerror}")
        ended = child.wait(timeout_s)
        if ended is None:
            child.kill(signal.SIGKILL)
            child.wait(_KILLED_WITHIN_S)
        with log.open("rb") as file:
            output = file.read(_OUTPUT_MAX_BYTES).decode(errors="replace")
    return Ran(None if ended is None else ended.code, output)
