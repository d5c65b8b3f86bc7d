"""Any program that serves HTTP on the port it is given."""

from typing import Final

from llmd.config.models import CommandProfile
from llmd.engines.recipe import Materials, Recipe, fingerprint_of, launch_content
from llmd.hosts.protocol import Launch
from llmd.proxy.gate import BodyEdits


_LOAD_S: Final = 10.0


def recipe(profile: CommandProfile, materials: Materials) -> Recipe:
    """What the command of *profile* is."""
    launch = Launch(
        profile=profile.name,
        kind="exec",
        options={"argv": [*profile.cmd, *profile.args], "ready": profile.ready},
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
