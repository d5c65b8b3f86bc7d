"""From what a person typed to a profile's name."""

import difflib
from collections.abc import Iterable

from llmd.admin import wire
from llmd.errors import ModelNotFoundError


def find_profile(wanted: str, profiles: Iterable[wire.Profile]) -> wire.Profile:
    """The profile that *wanted* names, by its name or an alias.

    Raises:
        ModelNotFoundError: There is none; names the nearest, and all.
    """
    profiles = tuple(profiles)
    known = {alias: p for p in profiles for alias in p.aliases} | {p.name: p for p in profiles}
    if wanted in known:
        return known[wanted]
    nearest = difflib.get_close_matches(wanted, known, n=1)
    hint = f"did you mean {nearest[0]}? " if nearest else ""
    names = ", ".join(p.name for p in profiles) or "none is configured"
    raise ModelNotFoundError(
        f"no profile is called {wanted[:80]!r}", remedy=f"{hint}profiles: {names}"
    )
