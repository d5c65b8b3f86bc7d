"""Limits that the system sets for this process."""

import resource
from typing import Final


WANTED_FILES: Final = 8192
"""launchd starts agents with 256; each stream takes two."""


def raise_file_limit() -> int:
    """Raise the soft limit of open files as far as allowed; returns what it is now.

    To a finite number: macOS refuses infinity (man getrlimit).
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = WANTED_FILES if hard == resource.RLIM_INFINITY else min(WANTED_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        return wanted
    return soft
