"""Limits that the system sets for this process."""

import contextlib
import resource
from typing import Final


WANTED_FILES: Final = 8192
"""launchd starts agents with 256; each stream takes two."""


def raise_file_limit() -> int:
    """Raise the soft limit of open files as far as allowed; returns what it is now.

    To a finite number: macOS refuses infinity (man getrlimit). Children inherit it. A system that
    refuses leaves it as it was.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = WANTED_FILES if hard == resource.RLIM_INFINITY else min(WANTED_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
            return wanted
    return soft
