"""What the GPU of a Mac may use, asked of a child: Metal must never be loaded here."""

import contextlib
import json
import sys
from collections.abc import Callable
from typing import Final

from llmd.platform.run import Ran, run


GPU_PROGRAM: Final = (sys.executable, "-m", "llmd.hosts.gpu_limit")
ASK_S: Final = 20.0
"""For a program that imports MLX: 0.3 s, much more right after login."""


def ask_gpu_limit(run: Callable[..., Ran] = run) -> int:
    """Metal's recommended working set in bytes, from a child: the daemon must not load Metal.

    Raises:
        LookupError: The child could not tell, failed, or took longer than `ASK_S`.
    """
    ran = run(GPU_PROGRAM, timeout_s=ASK_S)
    lines = ran.output.split("\n") if ran.ok else []
    for line in lines:  # libraries may have something to say, too
        with contextlib.suppress(ValueError, KeyError, TypeError):
            answer = json.loads(line)["gpu_limit_bytes"]
            if isinstance(answer, int) and answer > 0:
                return answer
    last = ran.output.strip().splitlines()[-1:] or ["nothing"]
    raise LookupError(f"{' '.join(GPU_PROGRAM)} ended with {ran.code} and said: {last[0]}")
