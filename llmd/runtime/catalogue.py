"""The profiles made ready to run: weights found and read, footprints known, launches written.

Built whole from a configuration before anything is changed, and replaced whole on a reload. What is
wrong with one profile (no such weights) is kept as its fault and hinders no other.
"""

import importlib.util
import os
import shutil
import sys
from collections.abc import ItemsView
from functools import cached_property
from math import inf
from pathlib import Path

from msgspec import Struct
from msgspec.structs import replace

from llmd.config.budget import budget_bytes
from llmd.config.models import (
    STALL_TIMEOUT_S,
    Config,
    LlamaProfile,
    MlxProfile,
    Profile,
    RemoteProfile,
)
from llmd.core.facts import Residency, Rules
from llmd.core.footprint import (
    Footprint,
    ModelShape,
    spare_bytes,
)
from llmd.core.mlx_compute import kept_buffer_bytes, prefill_tokens
from llmd.core.reduction import Extent, smaller_sizes
from llmd.engines import (
    Installed,
    Materials,
    Recipe,
    Stamp,
    recipe_for,
    upstream_for_remote,
)
from llmd.errors import LlmdError, describe_bytes
from llmd.hosts.protocol import Launch
from llmd.proxy.gate import BodyEdits, Upstream
from llmd.runtime.learned import Learned
from llmd.runtime.memory import gpu_limit, machine_memory
from llmd.runtime.saved_prompts import directory_of
from llmd.weights.located import Located, locate_all
from llmd.weights.sizing import PLATFORM


class Entry(Struct, frozen=True):
    """One profile with all that is needed to run it.

    Attributes:
        recipe: What its engine is; None while something is wrong with it (`residency.fault`).
        remote: Where a remote profile's requests go.
        context: Tokens of one sequence; None when llmd does not set it.
        shape: What the headers of its weights say; None where llmd does not read them.
        footprint: The estimate by cause; None when the profile's `memory` decides.
        mapped_files: Weights that the host maps rather than reads.
        mark: Under which name its high-water mark is learned; None when it is not.
        smaller: The same in smaller sizes, for when it dies of memory.
    """

    profile: Profile
    residency: Residency
    recipe: Recipe | None = None
    remote: Upstream | None = None
    context: int | None = None
    shape: ModelShape | None = None
    footprint: Footprint | None = None
    mapped_files: tuple[Path, ...] = ()
    mark: str | None = None
    smaller: tuple["Entry", ...] = ()

    def at(self, size: int) -> "Entry":
        """The entry of one of its sizes: 0 is the full one."""
        return self.smaller[size - 1] if size else self

    def like(self, fingerprint: str) -> "Entry | None":
        """Its size that a host with *fingerprint* honours, if any."""
        sizes = (self, *self.smaller)
        return next((e for e in sizes if e.residency.fingerprint == fingerprint), None)

    @property
    def launch(self) -> Launch | None:
        """What its host is told; None when nothing runs here."""
        return self.recipe.launch if self.recipe is not None else None

    @property
    def saves_prompts(self) -> bool:
        """Whether its host may leave prompts to the one that follows."""
        return self.launch is not None and "saved_prompts_dir" in self.launch.options

    @property
    def edits(self) -> BodyEdits:
        """Changes to request bodies."""
        return self.recipe.edits if self.recipe is not None else BodyEdits()

    @property
    def unsupported(self) -> frozenset[str]:
        """Paths that the engine lacks."""
        return self.recipe.unsupported if self.recipe is not None else frozenset()

    @property
    def own_paths(self) -> frozenset[str] | None:
        """Paths that the engine gets to see beside those that llmd knows; None is all."""
        return self.recipe.own_paths if self.recipe is not None else None


class Catalogue(Struct, frozen=True, dict=True):
    """All profiles of one configuration, by name, in file order."""

    config: Config
    rules: Rules
    entries: dict[str, Entry]

    @classmethod
    def build(cls, config: Config, learned: Learned) -> "Catalogue":
        """Look at everything that *config* names. Reads headers of weights; changes nothing."""
        installed = find_installed()
        machine = machine_memory(gpu_limit() if config.budget == "auto" else None)
        rules = Rules(
            budget_bytes=budget_bytes(config, machine),
            gateway_port=config.gateway.port if config.gateway is not None else None,
            eviction=config.eviction,
            patience_s=config.patience,
            min_residency_s=config.min_residency,
            queue_limit=config.queue_limit,
            queue_timeout_s=config.queue_timeout,
            spare_bytes=spare_bytes(PLATFORM) if config.warm_spare else 0,
        )
        entries = {
            name: look_at(profile, config, installed, learned)
            for name, profile in config.profiles.items()
        }
        return cls(config, rules, entries)

    def __getitem__(self, name: str) -> Entry:
        """The profile called *name*."""
        return self.entries[name]

    def items(self) -> ItemsView[str, Entry]:
        """Names and profiles."""
        return self.entries.items()

    def stall_timeout_s(self, name: str) -> float:
        """How long the host called *name* may show no sign of work; also of a spare."""
        entry = self.entries.get(name)
        return entry.profile.stall_timeout if entry is not None else STALL_TIMEOUT_S

    @cached_property
    def faulty(self) -> frozenset[str]:
        """Profiles that cannot be loaded."""
        return frozenset(n for n, e in self.entries.items() if e.residency.fault is not None)

    def examine(self, name: str, learned: Learned) -> "Catalogue | None":
        """Look at one profile again; None when it is as it was."""
        before = self.entries[name]
        entry = look_at(before.profile, self.config, find_installed(), learned)
        if entry.residency.fault is not None:
            return None
        return replace(self, entries={**self.entries, name: entry})

    def relearned(self, learned: Learned) -> "Catalogue":
        """With what is charged by *learned*; nothing is looked at again."""
        entries = {name: _relearned(entry, learned) for name, entry in self.entries.items()}
        return replace(self, entries=entries)

    @property
    def residencies(self) -> tuple[Residency, ...]:
        """What the scheduler must know."""
        return tuple(entry.residency for entry in self.entries.values())

    @property
    def warnings(self) -> tuple[str, ...]:
        """What is wrong with single profiles, for people."""
        found = []
        for name, entry in self.entries.items():
            fault = entry.residency.fault
            if fault is not None:
                found.append(f"{name}: {fault.message}; {fault.remedy}")
            elif entry.residency.footprint_bytes > self.rules.budget_bytes:
                need = describe_bytes(entry.residency.footprint_bytes)
                budget = describe_bytes(self.rules.budget_bytes)
                found.append(f"{name}: needs {need}, more than the budget of {budget}")
        return tuple(found)


def look_at(profile: Profile, config: Config, installed: Installed, learned: Learned) -> Entry:
    """One profile; what is wrong with it becomes its residency's fault."""
    try:
        if isinstance(profile, RemoteProfile):
            return _remote(profile, installed)
        if isinstance(profile, MlxProfile | LlamaProfile):
            return _local(profile, config, installed, learned)
        materials = Materials(installed=installed, python=sys.executable)
        recipe = recipe_for(profile, materials)
        return Entry(profile, _residency(profile, profile.memory or 0, recipe), recipe)
    except LlmdError as fault:
        return Entry(profile, _faulty(profile, fault))


def _remote(profile: RemoteProfile, installed: Installed) -> Entry:
    recipe = recipe_for(profile, Materials(installed=installed))
    upstream = upstream_for_remote(profile, os.environ)
    return Entry(profile, _residency(profile, 0, recipe), recipe, remote=upstream)


def _local(
    profile: MlxProfile | LlamaProfile, config: Config, installed: Installed, learned: Learned
) -> Entry:
    found = locate_all(profile, models_dirs=config.models_dirs, config_dir=Path.cwd())
    stamps = tuple(_stamp(file) for file in found.files)
    saves = config.saved_prompts > 0
    full = _sized(found, stamps, installed, learned, saves=saves)
    extent = full.residency.extent
    if extent is None:
        return full
    smaller = tuple(
        _sized(found.at(size), stamps, installed, learned, saves=saves)
        for size in smaller_sizes(extent)
    )
    residency = replace(full.residency, smaller=tuple(entry.residency for entry in smaller))
    return replace(full, residency=residency, smaller=smaller)


def _stamp(file: Path) -> Stamp:
    status = file.stat()
    return Stamp(str(file), status.st_size, status.st_mtime_ns)


def _sized(
    found: Located,
    stamps: tuple[Stamp, ...],
    installed: Installed,
    learned: Learned,
    *,
    saves: bool,
) -> Entry:
    """What was found, run the way that its profile says."""
    profile, use = found.profile, found.use()
    context, footprint = use.context, use.footprint()
    adapters = None
    if isinstance(profile, MlxProfile) and profile.adapters is not None:
        adapters = Path(profile.adapters)
    prompts = None
    if saves:
        server = installed.llama_server if profile.engine == "llama.cpp" else None
        programs = (_stamp(server),) if server is not None else ()
        prompts = directory_of(profile, (*stamps, *programs), context=context)
    step = prefill_tokens(
        found.shape, context_tokens=context, sequences=profile.parallel, platform=PLATFORM
    )
    materials = Materials(
        installed=installed, python=sys.executable, model=found.model, draft=found.draft,
        adapters=adapters, projector=found.projector, context_tokens=context,
        prompt_cache_bytes=footprint.prompt_cache_bytes,
        prefill_tokens=step,
        buffer_cache_bytes=kept_buffer_bytes(
            found.shape, step_tokens=step, context_tokens=context, sequences=profile.parallel,
            platform=PLATFORM,
        ),
        stamps=stamps,
        saved_prompts_dir=prompts,
        token_bytes=footprint.cache_bytes // (context * profile.parallel),
    )  # fmt: skip
    recipe = recipe_for(profile, materials)
    mark = f"{recipe.fingerprint}-{PLATFORM}"
    charged_bytes = profile.memory or learned.footprint(mark, footprint)
    return Entry(
        profile,
        replace(
            _residency(profile, charged_bytes, recipe),
            extent=Extent(footprint.prompt_cache_bytes, profile.parallel, context),
        ),
        recipe,
        context=context,
        shape=found.shape,
        footprint=None if profile.memory else footprint,
        mapped_files=found.weights if profile.engine == "llama.cpp" else (),
        mark=mark,
    )


def _relearned(entry: Entry, learned: Learned) -> Entry:
    if entry.mark is None or entry.footprint is None:
        return entry
    smaller = tuple(_relearned(each, learned) for each in entry.smaller)
    residency = replace(
        entry.residency,
        footprint_bytes=learned.footprint(entry.mark, entry.footprint),
        smaller=tuple(each.residency for each in smaller),
    )
    return replace(entry, residency=residency, smaller=smaller)


def _residency(profile: Profile, footprint_bytes: int, recipe: Recipe) -> Residency:
    return Residency(
        name=profile.name,
        port=profile.port,
        footprint_bytes=footprint_bytes,
        parallel=recipe.sequences,
        idle_ttl_s=profile.idle_ttl if recipe.launch is not None else inf,
        pinned=profile.pinned,
        preload=profile.preload,
        default=profile.default,
        aliases=profile.aliases,
        load_s=recipe.load_s,
        spare_kind=recipe.spare_kind,
        fingerprint=recipe.fingerprint,
    )


def _faulty(profile: Profile, fault: LlmdError) -> Residency:
    """A profile that cannot be loaded, and why."""
    return Residency(
        name=profile.name,
        port=profile.port,
        footprint_bytes=0,
        pinned=profile.pinned,
        default=profile.default,
        aliases=profile.aliases,
        fault=fault,
    )


def find_installed() -> Installed:
    """Which engines this machine has; imports none of them."""
    server = shutil.which("llama-server")
    return Installed(
        mlx=importlib.util.find_spec("mlx_lm") is not None,
        llama_server=Path(server).absolute() if server else None,
        xllamacpp=importlib.util.find_spec("xllamacpp") is not None,
        llama_cpp_python=importlib.util.find_spec("llama_cpp") is not None,
    )
