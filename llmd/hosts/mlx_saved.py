"""Prompts that outlive an MLX host: a safetensors file each, as mlx_lm writes them.

A file is read when a prompt comes that it covers more of than memory does, and not before: a load
waits for none of them. On the generation thread alone.
"""

import hashlib
import logging
import time
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import Any, Final, NamedTuple, cast

import mlx.core as mx
from mlx_lm.models.cache import (
    can_trim_prompt_cache,
    load_prompt_cache,
    save_prompt_cache,
    trim_prompt_cache,
)

from llmd.hosts.saved_prompts import MIN_TOKENS, Allowance, forget, newest_first, place, used


_TOKENS, _TRIMMABLE = "tokens", "trimmable"
_MOST: Final = 64
"""Files that are looked at, the newest; once, by whoever comes first with a long prompt."""

log = logging.getLogger("llmd.host")


class Saved(NamedTuple):
    """A file, and which tokens its state is of. *trimmable*: also of any beginning of them."""

    file: Path
    tokens: list[int]
    trimmable: bool

    def covers(self, tokens: list[int]) -> bool:
        """Whether whoever asks for exactly *tokens* is served as well by this file."""
        return self.tokens == tokens or (self.trimmable and self.tokens[: len(tokens)] == tokens)

    def usable(self, tokens: list[int]) -> int:
        """How many of the prompt *tokens* need not be processed; one has to be."""
        shared = min(common_prefix(self.tokens, tokens), len(tokens) - 1)
        return shared if self.trimmable or shared == len(self.tokens) else 0


class SavedStates:
    """The files in *directory*, which is made if need be.

    Raises:
        OSError: It cannot be made.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = place(directory)

    @cached_property
    def _known(self) -> list[Saved]:
        """What is there, newest first; looked at when first asked for, not during the load."""
        files = newest_first(self._directory, "*.safetensors")
        return [saved for file in files[:_MOST] if (saved := _read(file)) is not None]

    def nearest(self, tokens: list[int], *, beyond: int) -> tuple[list[Any], list[int]] | None:
        """State for the prompt *tokens*, and those that remain to be processed.

        None unless it spares `MIN_TOKENS` more than *beyond*, which are spared already.
        """
        found, most = None, beyond + MIN_TOKENS - 1
        if len(tokens) <= most:
            return None
        for saved in self._known:
            if (usable := saved.usable(tokens)) > most:
                found, most = saved, usable
        if found is None:
            return None
        began_s = time.monotonic()
        try:
            state = load_prompt_cache(str(found.file))
            if len(found.tokens) > most:
                trim_prompt_cache(state, len(found.tokens) - most)
            for layer in state:
                mx.eval(layer.state)
        except Exception as error:  # noqa: BLE001 - whatever is in the file; the prompt is processed
            log.warning("%s is of no use: %r", found.file.name, error)
            self._forget(found)
            return None
        used(found.file)
        log.info("%d tokens of a prompt read in %.3f s", most, time.monotonic() - began_s)
        return state, tokens[most:]

    def save(self, states: Iterable[tuple[list[int], list[Any]]], allowance: Allowance) -> None:
        """Write what *allowance* admits of *states*, which come in the order of their worth.

        Raises:
            OSError: The directory cannot be made.
        """
        place(self._directory)
        for tokens, state in states:
            if len(tokens) < MIN_TOKENS:
                continue
            if (known := next((k for k in self._known if k.covers(tokens)), None)) is not None:
                used(known.file)
                continue
            if not allowance.admits(sum(layer.nbytes for layer in state)):
                continue
            try:
                self._write(tokens, state, allowance)
            except (OSError, RuntimeError, ValueError) as error:
                log.warning("a prompt of %d tokens is not saved: %s", len(tokens), error)
                return

    def _write(self, tokens: list[int], state: list[Any], allowance: Allowance) -> None:
        text = " ".join(map(str, tokens))
        name = hashlib.sha256(text.encode()).hexdigest()[:24] + ".safetensors"
        unfinished = self._directory / f"new-{name}"
        trimmable = can_trim_prompt_cache(state)
        metadata = {_TOKENS: text, _TRIMMABLE: str(int(trimmable))}
        try:
            save_prompt_cache(str(unfinished), state, metadata)
            file = unfinished.replace(self._directory / name)
        except BaseException:
            forget(unfinished)
            raise
        allowance.spend(file)
        saved = Saved(file, list(tokens), trimmable)
        for other in [other for other in self._known if saved.covers(other.tokens)]:
            self._forget(other)
        self._known.insert(0, saved)

    def _forget(self, saved: Saved) -> None:
        self._known.remove(saved)
        forget(saved.file)


def common_prefix(some: list[int], others: list[int]) -> int:
    """How many tokens both begin with; compared in stretches, for prompts are long."""
    low, high = 0, min(len(some), len(others))
    while low < high:
        middle = (low + high + 1) // 2
        if some[low:middle] == others[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low


def _read(file: Path) -> Saved | None:
    """What *file* is of; its state stays on disk. A file that cannot be read is deleted."""
    try:
        _, metadata = cast("tuple[Any, dict[str, str]]", mx.load(str(file), return_metadata=True))
        tokens = [int(token) for token in metadata[f"0.{_TOKENS}"].split()]
        return Saved(file, tokens, metadata[f"0.{_TRIMMABLE}"] == "1")
    except Exception as error:  # noqa: BLE001 - damaged, or of another program
        log.warning("%s is no saved prompt: %r", file.name, error)
        forget(file)
        return None
