"""The prompts that hosts leave on disk for those that follow: where, and how much of it.

Hosts write and read the files (`llmd.hosts.saved_prompts`); here they are only counted, and the
ones that were not used for longest deleted.
"""

import contextlib
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from llmd.config.models import LlamaProfile, MlxProfile
from llmd.config.paths import prompts_dir
from llmd.engines.recipe import Stamp, fingerprint_of


KEPT_S: Final = 7 * 24 * 3600.0
"""Unused for longer, a prompt is deleted: it can hold a conversation."""

FREE_MIN_BYTES: Final = 5 * 2**30
"""Left free on the disk, whatever `saved_prompts` allows."""


def directory_of(
    profile: MlxProfile | LlamaProfile, stamps: tuple[Stamp, ...], *, context: int
) -> Path:
    """Where the prompts of *profile* are while its weights and programs are as *stamps* say.

    Key-value state belongs to whatever enters its computation; the context does in models that
    choose by it how they tell positions. Hosts add the version of their engine.
    """
    content = {
        "engine": profile.engine,
        "args": profile.args,
        "env": profile.env,
        "adapters": getattr(profile, "adapters", None),
        "context": context,
    }
    return prompts_dir() / f"{profile.name}-{fingerprint_of(content, stamps)}"


def room_bytes(limit_bytes: int) -> int:
    """How many bytes may be written now; never less than 0."""
    directory = prompts_dir()
    present = next((each for each in (directory, *directory.parents) if each.exists()), directory)
    try:
        free_bytes = shutil.disk_usage(present).free
    except OSError:
        return 0
    return max(min(limit_bytes, free_bytes - FREE_MIN_BYTES), 0)


def tidy(limit_bytes: int) -> None:
    """Delete what is old, and of the rest so much that *limit_bytes* are not passed."""
    total_bytes, oldest = 0, time.time() - KEPT_S
    for file, status in sorted(_files(), key=lambda found: found[1].st_mtime, reverse=True):
        total_bytes += status.st_size
        if total_bytes > limit_bytes or status.st_mtime < oldest:
            with contextlib.suppress(OSError):
                file.unlink()
    for directory, _, _ in os.walk(prompts_dir(), topdown=False):
        with contextlib.suppress(OSError):  # of one that is not empty
            Path(directory).rmdir()


def _files() -> Iterator[tuple[Path, os.stat_result]]:
    for directory, _, names in os.walk(prompts_dir()):
        for name in names:
            file = Path(directory, name)
            with contextlib.suppress(OSError):
                yield file, file.lstat()
