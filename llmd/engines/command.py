"""Any program that serves HTTP on the port it is given."""

from typing import Any, Final

from llmd.config.models import CommandProfile
from llmd.engines.recipe import Materials, Recipe, fingerprint_of, launch_content
from llmd.hosts.protocol import Launch
from llmd.proxy.gate import BodyEdits


_LOAD_S: Final = 10.0


def recipe(profile: CommandProfile, materials: Materials) -> Recipe:
    """What the command of *profile* is."""
    options: dict[str, Any] = {"argv": [*profile.cmd, *profile.args], "ready": profile.ready}
    if any("{key}" in word for word in (*options["argv"], *profile.env.values())):
        # It asks for the random key that its host makes up, and so keeps other users out.
        options["headers"] = {"Authorization": "Bearer {key}"}
    launch = Launch(
        profile=profile.name,
        kind="exec",
        options=options,
        env=dict(profile.env),
        load_timeout_s=profile.load_timeout,
    )
    return Recipe(
        launch=launch,
        sequences=profile.parallel,
        runner=profile.cmd[0],
        edits=BodyEdits(
            defaults=profile.defaults,
            force=profile.force,
            tool_description_limit=profile.tool_description_limit,
        ),
        fingerprint=fingerprint_of(launch_content(launch), materials.stamps),
        load_s=_LOAD_S,
    )
