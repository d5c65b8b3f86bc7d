"""Results of tools: text for whoever reads it, and the same as data."""

import logging
from collections.abc import Iterator
from typing import Any, Final

import msgspec
from mcp.types import CallToolResult, TextContent

from llmd.admin import wire
from llmd.errors import LlmdError, describe_bytes


_LOG: Final = logging.getLogger(__name__)


def success(text: str, document: Any) -> CallToolResult:
    """A result that is *text* for a reader and *document*, a struct or a dict, for a program."""
    return CallToolResult(
        content=[TextContent(text=text)], structured_content=msgspec.to_builtins(document)
    )


def failure(error: Exception) -> CallToolResult:
    """The error of a tool: what happened and what to do, for the model to read.

    Anything but an `LlmdError` is a bug; it is logged, and the server goes on.
    """
    if not isinstance(error, LlmdError):
        _LOG.error("a tool failed unexpectedly", exc_info=error)
        what = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        error = LlmdError(
            f"something unexpected happened: {what}", remedy="llmd-mcp tells more on its stderr"
        )
    text = f"{error.message}\nWhat to do: {error.remedy}" if error.remedy else error.message
    return CallToolResult(
        content=[TextContent(text=text)], structured_content=error.to_openai(), is_error=True
    )


def status_text(status: wire.Status) -> str:
    """The status in lines."""
    budget = status.budget
    used, total = describe_bytes(budget.used_bytes), describe_bytes(budget.total_bytes)
    head = (
        f"llmd {status.version}: {used} of {total} used, {describe_bytes(budget.free_bytes)} free"
    )
    problems = (*([status.config_error] if status.config_error else []), *status.warnings)
    warnings = [f"warning: {problem}" for problem in problems]
    return "\n".join([head, profiles_text(status.profiles), *warnings])


def profiles_text(profiles: tuple[wire.Profile, ...]) -> str:
    """One line for each profile."""
    return "\n".join(", ".join(_profile_parts(profile)) for profile in profiles)


def _profile_parts(profile: wire.Profile) -> Iterator[str]:
    names = f" (also {', '.join(profile.aliases)})" if profile.aliases else ""
    yield f"{profile.name}{names}: {profile.state}"
    yield f"{profile.engine} on port {profile.port}"
    if profile.context:
        yield f"context {profile.context} tokens"
    if size := profile.footprint_bytes or profile.estimated_bytes:
        yield describe_bytes(size)
    if profile.in_flight or profile.queued:
        yield f"{profile.in_flight} requests in flight, {profile.queued} queued"
    if profile.pinned:
        yield "pinned"
    if profile.last_error and profile.state == "failed":
        yield profile.last_error


def load_text(report: wire.LoadReport) -> str:
    """What a load did."""
    if not report.changed:
        return f"{report.profile} was ready already, on port {report.port}"
    evicted = f"; evicted {', '.join(report.evicted)}" if report.evicted else ""
    return f"{report.profile} is ready on port {report.port} after {report.seconds:.1f} s{evicted}"


def unload_text(profile: str, report: wire.UnloadReport) -> str:
    """What an unload did."""
    if not report.unloaded:
        return f"{profile} was not loaded"
    return f"unloaded {profile}, {describe_bytes(report.freed_bytes)} freed"


def plan_text(report: wire.PlanReport) -> str:
    """What a load would do."""
    verdict = "fits" if report.fits else "does not fit"
    need, free = describe_bytes(report.need_bytes), describe_bytes(report.free_bytes)
    parts = [f"{report.profile} {verdict}: needs {need}, {free} free"]
    parts += [f"evicts {victim.profile}" for victim in report.evict]
    if report.fits and report.expected_s is not None:
        parts.append(f"takes about {report.expected_s:.1f} s")
    return "; ".join([*parts, *([report.reason] if report.reason else [])])
