"""Key-value state in mlx_lm that is given up as soon as nothing needs it.

mlx_lm computes lazily: to take a sequence out of a batch is to promise a copy, and the promise
holds on to the whole batch until it is kept, often several steps later. Sequences then took up to
twice their bytes. Here copies are made where they are promised, layer by layer, so that no more
than one layer of the old batch is there beside the new.
"""

from collections.abc import Iterable
from itertools import zip_longest
from typing import Any

import mlx.core as mx
import mlx_lm.server
from mlx_lm.generate import BatchGenerator, GenerationBatch, PromptProcessingBatch
from mlx_lm.models.cache import (
    ArraysCache,
    LRUPromptCache,
    can_trim_prompt_cache,
    trim_prompt_cache,
)

from llmd.hosts.mlx_saved import SavedStates
from llmd.hosts.saved_prompts import Allowance


class PromptCache(LRUPromptCache):  # type: ignore[misc]
    """Key-value state of earlier prompts, bounded in bytes.

    Attributes:
        saved: Those of earlier hosts, on disk; None when none are kept.
    """

    def __init__(
        self, most_prompts: int, most_bytes: int, saved: SavedStates | None = None
    ) -> None:
        super().__init__(most_prompts, most_bytes)
        self.saved = saved

    def fetch_nearest_cache(self, model: Any, tokens: list[int]) -> tuple[Any, list[int]]:
        """The state that covers most of *tokens*, and the tokens that remain: at least one."""
        state, rest = self._in_memory(model, tokens)
        if self.saved is None:
            return state, rest
        return self.saved.nearest(tokens, beyond=len(tokens) - len(rest)) or (state, rest)

    def save(self, allowance: Allowance) -> None:
        """Write to disk what *allowance* admits: of each kind the newest first, in turn.

        Conversations, prompts without their answer, system prompts: mlx_lm keeps the latter two of
        models whose state cannot be cut back.
        """
        if self.saved is None:
            return
        kinds = self._lru._lrus.values()  # noqa: SLF001 - mlx_lm tells the order nowhere else
        newest = zip_longest(*map(reversed, kinds))
        keys = [key for turn in newest for key in turn if key is not None]
        self.saved.save(
            ((tokens, self._trie.get(model, tokens).prompt_cache) for model, tokens in keys),
            allowance,
        )

    def _in_memory(self, model: Any, tokens: list[int]) -> tuple[Any, list[int]]:
        """What mlx_lm finds.

        It answers a prompt that it has seen to the last token with nothing left to process, which
        ends its generation thread.
        """
        state, rest = super().fetch_nearest_cache(model, tokens)
        if rest or not tokens:
            return state, rest
        if can_trim_prompt_cache(state):
            trim_prompt_cache(state, 1)
            return state, tokens[-1:]
        state, rest = super().fetch_nearest_cache(model, tokens[:-1])
        return (state, rest + tokens[-1:]) if rest else (None, tokens)

    def insert_cache(
        self, model: Any, tokens: list[int], prompt_cache: list[Any], **options: Any
    ) -> None:
        """Keep the state of *tokens*, and empty *prompt_cache*.

        What comes is a slice of a batch that is not copied yet. It is, once older entries have made
        room for it; or never, when it is larger than all that may be kept. mlx_lm holds on to the
        list until all sequences that ended in the same step have been through here.
        """
        layers = list(prompt_cache)
        prompt_cache.clear()
        super().insert_cache(model, tokens, layers, **options)
        if self._trie.search(model, tokens).exact is not None:
            settle(layers)


class Prompts(PromptProcessingBatch):  # type: ignore[misc]
    """Prompts that are processed together."""

    def extend(self, batch: Any) -> None:
        """Take in the prompts of *batch*."""
        super().extend(batch)
        release(batch, self)

    def split(self, indices: list[int]) -> Any:
        """Give away the prompts at *indices*, which have been processed."""
        taken = super().split(indices)
        # Side by side: a layer of the old batch is free once both have their share of it.
        for index, layer in enumerate(taken.prompt_cache):
            mx.eval(layer.state, [rest.state for rest in self.prompt_cache[index : index + 1]])
        return taken


class Answers(GenerationBatch):  # type: ignore[misc]
    """Answers that are generated together."""

    thinned = False
    """Whether some have ended since the last step."""

    def extend(self, batch: Any) -> None:
        """Take in the answers of *batch*."""
        super().extend(batch)
        release(batch, self)

    def filter(self, keep: list[int]) -> None:
        """Go on with those at *keep*.

        The others' state has yet to be copied to the prompt cache, so that nothing would be free.
        """
        super().filter(keep)
        self.thinned = True

    def next(self) -> Any:
        """The next token of each."""
        if self.thinned:
            settle(self.prompt_cache)
            self.thinned = False
        return super().next()


class Batches(BatchGenerator):  # type: ignore[misc]
    """mlx_lm's two batches, of prompts and of answers."""

    def __init__(self, model: Any, **options: Any) -> None:
        super().__init__(model, **options)
        self._prompt_batch = Prompts.empty(
            model, self.sampler, prefill_step_size=self.prefill_step_size
        )
        self._generation_batch = Answers.empty(model, self.sampler)


def release(taken: Any, by: Any) -> None:
    """Compute the state of the batch *by*, which has taken in *taken*, and free that as it goes."""
    if taken.prompt_cache is not by.prompt_cache:  # which it is when there was nothing before
        taken.prompt_cache.clear()
    settle(by.prompt_cache)


def settle(layers: Iterable[Any]) -> None:
    """Compute the state of *layers*, one after the other."""
    for layer in layers:
        mx.eval(layer.state)


def _set(state: Any, index: int, value: Any) -> None:
    """Keep *value* without what it is a part of.

    Most recurrent models keep the end of a convolution's input, as a view that holds on to all of
    it: 12 layers of Mamba2 with a state of 3 MiB took 22.
    """
    state.cache[index] = None if value is None else mx.contiguous(value)


def _extract(state: Any, index: int) -> Any:
    """The state of the sequence at *index* alone, without the rest of its batch."""
    alone = ArraysCache(len(state.cache))
    for at, value in enumerate(state.cache):
        alone[at] = value[index : index + 1]
    return alone


# Models and the server make these themselves, by name.
mlx_lm.server.BatchGenerator = Batches
ArraysCache.__setitem__ = _set
ArraysCache.extract = _extract
