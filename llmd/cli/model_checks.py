"""Checks of `llmd-ctl doctor` that concern weights and engines."""

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final

from llmd.cli.findings import Check, Examined, Finding
from llmd.cli.terminal import describe_bytes
from llmd.errors import WeightsError


if TYPE_CHECKING:
    from llmd.config.models import LlamaProfile, MlxProfile

NEEDED: Final = {
    "mlx-lm": ("0.32", "0.33"),
    "xllamacpp": ("2026.10", None),
    "llama-cpp-python": ("0.3.16", None),
}
"""Packages of engines: from which version on, and before which. As in pyproject.toml."""

LLAMA_SERVER_KNOWS: Final = ("--cache-ram", "--reasoning-format", "--slots")
"""Flags that llmd starts llama-server with; an old one ends at the first it does not know."""


def directories_can_be_read(seen: Examined) -> Iterator[Finding]:
    """Whether the folders of models are there, and open to us."""
    from llmd.weights.locate import hub_cache

    named = seen.config is not None and "models_dirs" in seen.config.model_fields_set
    wanted = seen.config.models_dirs if seen.config is not None else ()
    for directory in (*wanted, hub_cache()):
        why = seen.machine.why_unreadable(directory)
        if why == "ENOENT":
            if named and directory in wanted:
                yield Finding(
                    f"{directory} is not there",
                    "`models_dirs` names it",
                    f"mkdir -p {directory}, or take it out of {seen.config_file}",
                )
        elif why is not None:
            yield _closed(directory, why)


def _closed(directory: Path, why: str) -> Finding:
    allow = (
        f"allow {Path(sys.executable).resolve()} under System Settings, Privacy & Security, "
        "Full Disk Access"
    )
    reason, remedy = {
        "EPERM": ("macOS protects it (privacy)", f"move the models elsewhere, or {allow}"),
        "EACCES": ("its mode forbids it", f"ls -ld {directory}; chmod u+rx {directory}"),
        "hangs": (
            "it does not answer: its server is gone, or macOS asks where nobody sees it",
            f"df {directory}; on a Mac also {allow}",
        ),
    }.get(why, (why, f"ls -ld {directory}"))
    return Finding(f"{directory} cannot be read", reason, remedy, serious=True)


def weights_are_there(seen: Examined) -> Iterator[Finding]:
    """Whether each profile's weights are found, whole, and small enough ever to be loaded."""
    from llmd.weights.located import locate_all
    from llmd.weights.sizing import largest_context

    if seen.config is None:
        return
    budget = seen.budget_bytes()
    for profile in _local(seen):
        try:
            use = locate_all(
                profile,
                models_dirs=seen.config.models_dirs,
                config_dir=seen.config_file.parent,
            ).use()
        except WeightsError as error:
            yield Finding(
                f"{profile.name} has no weights it can load",
                error.message,
                f"{error.remedy} (llmd-ctl models lists what is there)",
                serious=True,
            )
            continue
        need = profile.memory or use.footprint().total_bytes
        if budget is not None and need > budget:
            most = 0 if profile.memory else largest_context(use, budget)
            smaller = f"`context: {most}`" if most else "smaller weights"
            yield Finding(
                f"{profile.name} can never be loaded",
                f"it needs {describe_bytes(need)}, and the whole budget is "
                f"{describe_bytes(budget)}",
                f"{smaller} would fit; llmd-ctl fit {profile.name}",
                serious=True,
            )


def engines_are_there(seen: Examined) -> Iterator[Finding]:
    """Whether the engines that profiles name are installed, in versions that llmd knows."""
    python = seen.installed.python if seen.installed is not None else Path(sys.executable)
    engines = {profile.engine for profile in _local(seen)}
    runners = {getattr(profile, "runner", "") for profile in _local(seen)}
    versions = seen.machine.versions(python, list(NEEDED)) if engines else {}
    server = seen.machine.help_of("llama-server") if "llama.cpp" in engines else None
    needed = {"mlx-lm": "mlx" in engines}
    # `auto` takes llama-server where there is one, and needs nothing else then.
    needed["xllamacpp"] = "xllamacpp" in runners or ("auto" in runners and server is None)
    needed["llama-cpp-python"] = "llama-cpp-python" in runners
    for package, is_needed in needed.items():
        if is_needed:
            yield from _package(python, package, versions.get(package))
    if server is None and "llama-server" in runners:
        yield Finding(
            "llama-server is not installed",
            "a profile names it as its runner, and it is not on PATH",
            "brew install llama.cpp",
            serious=True,
        )
    missing = [flag for flag in LLAMA_SERVER_KNOWS if server and flag not in server]
    if missing:
        yield Finding(
            "llama-server is too old",
            f"it does not know {missing[0]}",
            "brew upgrade llama.cpp",
            serious=True,
        )


def _package(python: Path, package: str, version: str | None) -> Iterator[Finding]:
    least, below = NEEDED[package]
    wanted = f"{package}>={least}" + (f",<{below}" if below else "")
    remedy = f"{python} -m pip install '{wanted}'"
    if version is None:
        why = f"{python} cannot import it"
        yield Finding(f"{package} is not installed", why, remedy, serious=True)
    elif _numbers(version) < _numbers(least):
        why = f"it is {version}, and llmd needs {least}"
        yield Finding(f"{package} is too old", why, remedy, serious=True)
    elif below is not None and _numbers(version) >= _numbers(below):
        why = f"it is {version}, and this llmd knows it before {below}"
        yield Finding(f"{package} is newer than llmd", why, remedy)


def _numbers(version: str) -> tuple[int, ...]:
    """The release of *version*, comparable: `0.32.1rc1` is (0, 32, 1)."""
    return tuple(int(part) for part in re.findall(r"\d+", version.split("+", maxsplit=1)[0])[:3])


def _local(seen: Examined) -> "Iterator[MlxProfile | LlamaProfile]":
    from llmd.config.models import LocalWeights

    for profile in seen.config.profiles.values() if seen.config is not None else ():
        if isinstance(profile, LocalWeights):
            yield profile


CHECKS: Final[tuple[Check, ...]] = (
    directories_can_be_read,
    weights_are_there,
    engines_are_there,
)
