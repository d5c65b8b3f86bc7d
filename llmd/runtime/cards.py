"""What clients are told of a profile: from its entry in the catalogue and how it is now."""

from math import inf

from llmd.config.models import LlamaProfile, MlxProfile
from llmd.core.snapshot import ProfileView
from llmd.engines.llama import sees
from llmd.proxy.gate import ModelCard
from llmd.runtime.catalogue import Entry


def card_of(entry: Entry, view: ProfileView | None, *, since_s: int) -> ModelCard:
    """The card of one profile; *view* is None while the scheduler does not know it."""
    sized = entry if view is None else entry.at(view.size)
    profile, shape = entry.profile, entry.shape
    return ModelCard(
        name=profile.name,
        state="unloaded" if view is None else view.state,
        context=sized.context,
        aliases=profile.aliases,
        capabilities=capabilities_of(entry),
        since_s=since_s,
        format="" if shape is None else shape.format,
        family="" if shape is None else shape.architecture,
        quantization="" if shape is None else shape.quantization,
        parameters=0 if shape is None else shape.parameters,
        weights_bytes=0 if shape is None else shape.weights_bytes,
        held_bytes=0 if view is None else view.charged_bytes,
        idle_out_s=inf if view is None else max(0.0, view.idle_ttl_s - view.idle_s),
    )


def capabilities_of(entry: Entry) -> tuple[str, ...]:
    """What the profile is known to be able to do.

    A server that gives vectors or rankings does not chat. Of a server that llmd only
    passes requests to, nothing is known but what such servers are for.
    """
    profile = entry.profile
    words = {arg.partition("=")[0] for arg in profile.args}
    if isinstance(profile, MlxProfile) and words & {"--embeddings", "--embedding"}:
        return ("embeddings",)
    if isinstance(profile, LlamaProfile):
        if words & {"--reranking", "--rerank"}:
            return ("rerank",)
        if words & {"--embeddings", "--embedding"}:
            return ("embeddings",)
        if sees(profile):
            return ("chat", "completions", *_abilities(entry), "vision")
    return ("chat", "completions", *_abilities(entry))


def _abilities(entry: Entry) -> tuple[str, ...]:
    return entry.shape.abilities if entry.shape is not None else ()
