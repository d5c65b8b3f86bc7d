"""Somebody else's server: an address, a key, and the name it has for its model."""

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from llmd.config.keyfile import read_key_file
from llmd.config.models import RemoteProfile
from llmd.engines.recipe import Recipe, fingerprint_of
from llmd.errors import ConfigError
from llmd.proxy.gate import BodyEdits, Upstream


def recipe(profile: RemoteProfile) -> Recipe:
    """What the server of *profile* is: nothing that runs here."""
    force: dict[str, Any] = dict(profile.force)
    if profile.model is not None:
        force["model"] = profile.model
    return Recipe(
        launch=None,
        sequences=profile.parallel,
        runner="remote",
        edits=BodyEdits(
            defaults=profile.defaults,
            force=force,
            tool_description_limit=profile.tool_description_limit,
        ),
        fingerprint=fingerprint_of({"url": profile.url, "key": _where(profile)}),
    )


def upstream_for_remote(profile: RemoteProfile, env: Mapping[str, str]) -> Upstream:
    """The address of *profile*'s server; the path of its `url` takes the place of `/v1`.

    Raises:
        ConfigError: The variable that should hold its key is not set, or the file is unusable.
    """
    parts = urlsplit(profile.url)
    tls = parts.scheme == "https"
    headers = {}
    if profile.api_key_file is not None:
        keys = read_key_file(profile.api_key_file, param=f"profiles.{profile.name}.api_key_file")
        headers["Authorization"] = f"Bearer {keys[0].get_secret_value()}"
    if profile.api_key_env is not None:
        key = env.get(profile.api_key_env, "").strip()
        if not key:
            raise ConfigError(
                f"the environment has no {profile.api_key_env}",
                remedy="set it where the daemon is started (the service's environment)",
                param=f"profiles.{profile.name}.api_key_env",
            )
        headers["Authorization"] = f"Bearer {key}"
    port = parts.port or (443 if tls else 80)
    return Upstream(
        host=parts.hostname or "",
        port=port,
        tls=tls,
        prefix=parts.path.rstrip("/") or "/v1",
        headers=headers,
    )


def _where(profile: RemoteProfile) -> str | None:
    """What names the key; never the key itself."""
    if profile.api_key_file is not None:
        return str(profile.api_key_file)
    return profile.api_key_env
