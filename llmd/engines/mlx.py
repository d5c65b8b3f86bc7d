"""MLX weights, on mlx_lm.server's own classes in a host of ours."""

import os
from typing import Any, Final

from llmd.config.models import MlxProfile
from llmd.engines.recipe import Materials, Recipe, fingerprint_of, launch_content
from llmd.errors import ConfigError
from llmd.hosts.protocol import Launch
from llmd.proxy.gate import BodyEdits


_EMBEDDINGS: Final = frozenset({"/v1/embeddings"})
"""Only of a profile that asks for them: most models that mlx_lm runs are trained to go on with a
text, and their states rank texts badly while looking like vectors. That is worse than a 501."""

UNSUPPORTED: Final = frozenset(
    {
        "/v1/rerank",
        "/v1/reranking",
        "/v1/audio/transcriptions",
        "/v1/audio/speech",
        "/v1/images/generations",
    }
)

_READ_BYTES_PER_S: Final = 2e9
_PREPARED_S: Final = 0.5


def recipe(profile: MlxProfile, materials: Materials) -> Recipe:
    """What MLX is for *profile*.

    Raises:
        ConfigError: mlx_lm is not installed.
    """
    if not materials.installed.mlx:
        raise ConfigError(
            "mlx_lm cannot be imported here",
            remedy="reinstall llmd with its dependencies",
            param=f"profiles.{profile.name}.engine",
        )
    step = materials.prefill_tokens
    options: dict[str, Any] = {
        "model": os.fspath(materials.model or profile.model),
        "context": materials.context_tokens,
        "parallel": profile.parallel,
        "prompt_cache_bytes": materials.prompt_cache_bytes,
        # The profile's own flags come last, and the last of a kind counts.
        "args": [*(("--prefill-step-size", str(step)) if step else ()), *profile.args],
    }
    if materials.buffer_cache_bytes is not None:
        options["buffer_cache_bytes"] = materials.buffer_cache_bytes
    if materials.saved_prompts_dir is not None:
        options["saved_prompts_dir"] = os.fspath(materials.saved_prompts_dir)
    if materials.draft is not None:
        options["draft_model"] = os.fspath(materials.draft)
    if materials.adapters is not None:
        options["adapters"] = os.fspath(materials.adapters)
    launch = Launch(
        profile=profile.name,
        kind="mlx",
        options=options,
        env=dict(profile.env),
        load_timeout_s=profile.load_timeout,
    )
    # mlx_lm takes these one at a time, and everybody else waits meanwhile.
    alone = materials.draft is not None or any(a.startswith("--kv-bits") for a in profile.args)
    embeds = bool({"--embeddings", "--embedding"} & set(profile.args))
    return Recipe(
        launch=launch,
        sequences=1 if alone else profile.parallel,
        runner="mlx_lm",
        unsupported=UNSUPPORTED if embeds else UNSUPPORTED | _EMBEDDINGS,
        own_paths=frozenset(),
        edits=BodyEdits(
            defaults=profile.defaults,
            force=profile.force,
            tool_description_limit=profile.tool_description_limit,
        ),
        # A spare has imported MLX already, too early for variables that it reads at import.
        spare_kind=None if profile.env else "mlx",
        fingerprint=fingerprint_of(launch_content(launch), materials.stamps),
        load_s=_PREPARED_S + materials.weights_bytes / _READ_BYTES_PER_S,
    )
