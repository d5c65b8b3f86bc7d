"""What goes into an engine's description, and what comes out: plain data on both sides."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from msgspec import Struct, field

from llmd.hosts.protocol import Launch
from llmd.proxy.gate import BodyEdits


DEFAULT_PROMPT_CACHE_BYTES: Final = 2 * 2**30
"""For earlier prompts, where the profile has no `prompt_cache`."""


_FOR_THE_NEXT: Final = frozenset({"saved_prompts_dir", "token_bytes"})
"""Options of prompts that outlive a host."""


class Installed(Struct, frozen=True):
    """Which engines this machine has."""

    mlx: bool = True
    llama_server: Path | None = None
    """The program, by absolute path."""
    xllamacpp: bool = True
    llama_cpp_python: bool = False


class Stamp(Struct, frozen=True):
    """What tells one state of a file or directory of weights from another."""

    path: str
    bytes: int
    modified_ns: int = 0


class Materials(Struct, frozen=True):
    """All that a profile does not say and an engine must know; found by the caller.

    Attributes:
        installed: Which engines there are.
        python: The interpreter that runs hosts, for servers that are Python modules.
        model: The weights of a local profile: a GGUF file (the first) or an MLX directory.
        draft: Those of its draft model.
        adapters: Its LoRA adapters.
        projector: What gives it eyes or ears.
        context_tokens: Of one sequence: the profile's, else the model's own within the default.
        prompt_cache_bytes: The profile's, else what the caller finds right.
        stamps: One for each of the weights above; part of the fingerprint.
        prefill_tokens: Of a prompt, to be processed at once; None leaves it to the engine.
        buffer_cache_bytes: Of freed buffers, kept for reuse; None leaves it to the host.
        saved_prompts_dir: Private directory for prompts that outlive their host; None keeps none.
        token_bytes: What one token takes in a sequence's key-value cache, about.
    """

    installed: Installed = field(default_factory=Installed)
    python: str = "python3"
    model: Path | None = None
    draft: Path | None = None
    adapters: Path | None = None
    projector: Path | None = None
    context_tokens: int = 32_768
    prompt_cache_bytes: int = DEFAULT_PROMPT_CACHE_BYTES
    stamps: tuple[Stamp, ...] = ()
    prefill_tokens: int | None = None
    buffer_cache_bytes: int | None = None
    saved_prompts_dir: Path | None = None
    token_bytes: int = 0

    @property
    def weights_bytes(self) -> int:
        """Of everything that must be read to load."""
        return sum(stamp.bytes for stamp in self.stamps)


class Recipe(Struct, frozen=True):
    """What an engine is for one profile.

    Attributes:
        launch: For the host; None when nothing runs here.
        sequences: Requests that it serves at once.
        unsupported: Paths that it lacks and that are answered with a 501.
        own_paths: Those that it gets to see beside the ones that llmd knows; None is all.
        edits: Changes to request bodies.
        spare_kind: The kind of warm spare that the launch may be loaded into.
        fingerprint: Changes when, and only when, a resident must be reloaded to honour the profile.
        load_s: A guess at how long a load takes, in seconds; measurements replace it.
        runner: The program behind the engine's name, for people.
    """

    launch: Launch | None
    sequences: int
    runner: str
    unsupported: frozenset[str] = frozenset()
    own_paths: frozenset[str] | None = None
    edits: BodyEdits = field(default_factory=BodyEdits)
    spare_kind: str | None = None
    fingerprint: str = ""
    load_s: float = 0.0


def fingerprint_of(content: Mapping[str, Any], stamps: tuple[Stamp, ...] = ()) -> str:
    """A short name for *content* and the state of its weights; equal content, equal name."""
    text = json.dumps(
        [content, [(s.path, s.bytes, s.modified_ns) for s in stamps]], sort_keys=True, default=str
    )
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def launch_content(launch: Launch) -> dict[str, Any]:
    """What of *launch* a resident would have to be reloaded for.

    All but the patience, and what becomes of its prompts once it is gone.
    """
    content = launch.to_wire()
    del content["load_timeout_s"]
    content["options"] = {
        name: value for name, value in launch.options.items() if name not in _FOR_THE_NEXT
    }
    return content
