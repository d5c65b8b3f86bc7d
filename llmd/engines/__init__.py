"""What each engine is: a profile goes in, and what it takes to run it comes out. No I/O."""

from typing import assert_never

from llmd.config.models import (
    CommandProfile,
    LlamaProfile,
    MlxProfile,
    Profile,
    RemoteProfile,
)
from llmd.engines import command, llama, mlx, remote
from llmd.engines.recipe import (
    DEFAULT_PROMPT_CACHE_BYTES,
    Installed,
    Materials,
    Recipe,
    Stamp,
)
from llmd.engines.remote import upstream_for_remote


__all__ = [
    "DEFAULT_PROMPT_CACHE_BYTES",
    "Installed",
    "Materials",
    "Recipe",
    "Stamp",
    "recipe_for",
    "upstream_for_remote",
]


def recipe_for(profile: Profile, materials: Materials) -> Recipe:
    """What *profile*'s engine is, with what the caller found for it.

    Raises:
        ConfigError: The engine is not installed or cannot do what the profile asks for.
    """
    match profile:
        case MlxProfile():
            return mlx.recipe(profile, materials)
        case LlamaProfile():
            return llama.recipe(profile, materials)
        case CommandProfile():
            return command.recipe(profile, materials)
        case RemoteProfile():
            return remote.recipe(profile)
        case _:
            assert_never(profile)
