"""`llmd-ctl fit`: whether a model would fit, before it is loaded. Needs no daemon."""

import difflib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click
from msgspec import Struct
from msgspec.structs import replace

from llmd.admin import wire
from llmd.cli.invocation import Command, Invocation, complete_profile, pass_invocation
from llmd.cli.models import describe_footprint, size_options
from llmd.cli.surroundings import Surroundings, config_option, look_around
from llmd.cli.terminal import describe_bytes, describe_victims
from llmd.errors import LlmdError, WeightsError


if TYPE_CHECKING:
    from llmd.config.models import LlamaProfile, MlxProfile, Profile
    from llmd.core.footprint import Footprint
    from llmd.weights.sizing import Use


class Verdict(Struct, frozen=True):
    """Whether it fits, and the numbers.

    Attributes:
        name: As it was asked for.
        fits: It could be loaded now, if need be once idle residents have gone.
        need_bytes: What it would be charged.
        footprint: By cause; None when the profile's `memory` decides.
        budget_bytes: The whole budget.
        free_bytes: Of it now; None when no daemon runs.
        context: Tokens of one sequence; None when llmd does not set it.
        parallel: Sequences.
        largest_context: That fits the budget with nothing beside it.
        largest_beside: That fits beside what is resident now.
        resident: What is loaded now, besides itself.
        evict: What would have to go.
        reason: Why it does not fit.
    """

    name: str
    fits: bool
    need_bytes: int
    footprint: "Footprint | None"
    budget_bytes: int
    free_bytes: int | None = None
    context: int | None = None
    parallel: int | None = None
    largest_context: int | None = None
    largest_beside: int | None = None
    resident: tuple[str, ...] = ()
    evict: tuple[str, ...] = ()
    reason: str = ""


@click.command(cls=Command)
@click.argument("what", metavar="PROFILE|NAME|PATH", shell_complete=complete_profile)
@size_options
@config_option()
@pass_invocation
def fit(
    invocation: Invocation,
    *,
    what: str,
    context: int | None,
    parallel: int | None,
    chosen: str | None,
) -> int:
    """Say whether a model fits the budget, beside what, and the largest context that does.

    Exit status 0 when it fits, 1 when it does not.
    """
    around = look_around(invocation, chosen)
    profile = around.config.profiles.get(what) if around.config is not None else None
    if profile is None:
        use: Use | None = replace(_use_of_name(what, around), context_tokens=context)
    else:
        use = _use_of_profile(profile, around)
    if use is not None:
        use = replace(
            use,
            context_tokens=context or use.context_tokens,
            sequences=parallel or use.sequences,
        )
    as_written = profile is not None and context is None and parallel is None
    charged = profile.memory if profile is not None and as_written else None
    verdict = _judge(what, use, charged, around)
    if as_written and around.status is not None:
        verdict = _as_planned(verdict, invocation)
    if invocation.as_json:
        invocation.emit(verdict)
    else:
        invocation.say("\n".join(_lines(verdict)))
    return 0 if verdict.fits else 1


def _judge(name: str, use: "Use | None", charged: int | None, around: Surroundings) -> Verdict:
    """The arithmetic: against the budget, and against what cannot be evicted from it."""
    from llmd.weights.sizing import largest_context

    budget = around.budget_bytes()
    footprint = use.footprint() if use is not None and charged is None else None
    need = charged if charged is not None else footprint.total_bytes if footprint else 0
    verdict = Verdict(name, need <= budget, need, footprint, budget)
    if not verdict.fits:
        verdict = replace(verdict, reason="it needs more than the whole budget")
    if use is not None:
        verdict = replace(
            verdict,
            context=use.context,
            parallel=use.sequences,
            largest_context=largest_context(use, budget) if charged is None else None,
        )
    if around.status is None:
        return verdict
    others = [p for p in around.status.profiles if p.footprint_bytes and p.name != name]
    stay = sum(p.footprint_bytes for p in others if p.pinned)
    free = budget - sum(p.footprint_bytes for p in others)
    if verdict.fits and need > budget - stay:
        pinned = describe_victims([p.name for p in others if p.pinned])
        verdict = replace(verdict, fits=False, reason=f"pinned, and so never evicted: {pinned}")
    return replace(
        verdict,
        free_bytes=max(0, free),
        resident=tuple(p.name for p in others),
        evict=_victims(need - free, others) if verdict.fits else (),
        largest_beside=largest_context(use, free) if use is not None and charged is None else None,
    )


def _victims(short_bytes: int, residents: list[wire.Profile]) -> tuple[str, ...]:
    """Whom to expect gone: the longest idle first. Only the daemon knows what each is worth."""
    gone: list[str] = []
    for resident in sorted(residents, key=lambda p: -(p.idle_s or 0.0)):
        if short_bytes <= 0:
            break
        if not resident.pinned:
            gone.append(resident.name)
            short_bytes -= resident.footprint_bytes
    return tuple(gone)


def _as_planned(verdict: Verdict, invocation: Invocation) -> Verdict:
    """What the daemon itself would do: it knows what it has learned, and what is busy."""
    try:
        plan = invocation.client().plan(verdict.name)
    except LlmdError:
        return verdict  # it does not know the profile yet
    return replace(
        verdict,
        fits=plan.fits,
        need_bytes=plan.need_bytes or verdict.need_bytes,
        free_bytes=plan.free_bytes,
        evict=tuple(victim.profile for victim in plan.evict),
        reason="" if plan.fits else plan.reason or verdict.reason,
    )


def _use_of_name(what: str, around: Surroundings) -> "Use":
    """The weights called *what*, or at that path, as a profile without options would run them."""
    from llmd.weights.discover import discover, named
    from llmd.weights.shape import read_shape
    from llmd.weights.sizing import Use

    path = Path(what).expanduser()
    if path.exists() and (path.is_file() or (path / "config.json").exists()):
        return Use(read_shape(path, "llama.cpp" if path.is_file() else "mlx"))
    found = discover(around.models_dirs)
    chosen = named(what, found)
    if len(chosen) > 1:
        several = describe_victims(sorted(weights.name for weights in chosen)[:6])
        raise WeightsError(
            f"{what!r} may mean {several}", remedy="write the whole name, or the path"
        )
    if not chosen:
        profiles = list(around.config.profiles) if around.config is not None else []
        names = {w.name.rpartition("/")[2].lower(): w.name for w in found}
        names.update((name.lower(), name) for name in profiles)
        close = difflib.get_close_matches(what.rpartition("/")[2].lower(), names, n=3, cutoff=0.5)
        hint = f"did you mean {' or '.join(names[name] for name in close)}?" if close else ""
        raise WeightsError(
            f"no profile and no model on disk is called {what!r}",
            remedy=hint or "llmd-ctl models lists what is there",
        )
    weights = chosen[0]
    if weights.partial_bytes is not None and not weights.size_bytes:
        raise WeightsError(f"the download of {weights.name} has not ended", remedy="resume it")
    return Use(read_shape(weights.path, "llama.cpp" if weights.format == "gguf" else "mlx"))


def _use_of_profile(profile: "Profile", around: Surroundings) -> "Use | None":
    """How *profile* runs its weights; None when llmd does not know them."""
    from llmd.config.models import LocalWeights

    return use_of(profile, around) if isinstance(profile, LocalWeights) else None


def use_of(profile: "MlxProfile | LlamaProfile", around: Surroundings) -> "Use":
    """How *profile* runs its weights.

    Raises:
        WeightsError: They are not there, or are not what its engine can read.
    """
    from llmd.weights.located import locate_all

    return locate_all(
        profile, models_dirs=around.models_dirs, config_dir=around.config_file.parent
    ).use()


def _lines(verdict: Verdict) -> Iterator[str]:
    answer = "fits" if verdict.fits else "does not fit"
    reason = f": {verdict.reason}" if verdict.reason else ""
    yield f"{verdict.name} {answer}{reason}"
    how = f" for {verdict.parallel} x {verdict.context} tokens" if verdict.context else ""
    yield f"  needs {describe_bytes(verdict.need_bytes)}{how}"
    if verdict.footprint is not None:
        yield f"    {describe_footprint(verdict.footprint)}"
        estimated = verdict.footprint.total_bytes
        if abs(estimated - verdict.need_bytes) > estimated // 100:
            yield f"    earlier runs have shown that {describe_bytes(verdict.need_bytes)} are right"
    budget = describe_bytes(verdict.budget_bytes)
    if verdict.free_bytes is None:
        yield f"  budget {budget}"
    else:
        yield f"  budget {budget}, of it {describe_bytes(verdict.free_bytes)} free"
        if verdict.evict:
            yield f"  evicts {describe_victims(verdict.evict)}"
        elif verdict.resident and verdict.fits:
            yield f"  beside {describe_victims(verdict.resident)}"
    if verdict.largest_context is not None:
        yield f"  largest context: {_contexts(verdict)}"


def _contexts(verdict: Verdict) -> str:
    def tokens(count: int) -> str:
        return f"{count} tokens" if count else "none"

    alone = tokens(verdict.largest_context or 0)
    if verdict.resident and verdict.largest_beside != verdict.largest_context:
        beside = tokens(verdict.largest_beside or 0)
        return f"{alone}; beside {describe_victims(verdict.resident)}: {beside}"
    return alone
