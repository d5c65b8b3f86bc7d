"""Vectors of texts from a model that mlx_lm runs: the states of its last layer, pooled.

Only where the profile asks for it (`args: [--embeddings]`): of a model that was not trained for it,
such vectors rank texts badly and look like any others.
"""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Final, Literal

import mlx.core as mx
import numpy as np
from mlx_lm.models.cache import make_prompt_cache

from llmd.hosts.embeddings_body import Vector, Wanted, response, unit
from llmd.hosts.engine import LoadError
from llmd.hosts.mlx_generate import CancelledError, ContextExceededError, Generator
from llmd.hosts.openai_body import RequestError


Pooling = Literal["last", "mean"]

_MODES: Final[dict[str, Pooling]] = {
    "pooling_mode_lasttoken": "last",
    "pooling_mode_mean_tokens": "mean",
}


def pooling_of(directory: Path, named: Pooling | None) -> Pooling:
    """How the states of the tokens of one text become one vector.

    Args:
        directory: Of the weights; `1_Pooling/config.json` there, as sentence-transformers has it.
        named: What the profile says; it has the last word.

    Raises:
        LoadError: Neither tells, or it is a way that llmd does not have.
    """
    if named is not None:
        return named
    path = directory / "1_Pooling" / "config.json"
    try:
        told = json.loads(path.read_text("utf-8"))
        modes = [
            mode for mode, on in told.items() if mode.startswith("pooling_mode") and on is True
        ]
    except FileNotFoundError:
        raise LoadError(
            f"{directory.name} does not say how its vectors are made; add `--pooling, last` "
            "(Qwen3-Embedding and most others) or `--pooling, mean` to `args`, as its page tells"
        ) from None
    except (OSError, ValueError, AttributeError) as error:
        raise LoadError(f"{path} cannot be read: {error}") from error
    if len(modes) != 1 or modes[0] not in _MODES:
        raise LoadError(
            f"{path} asks for {' and '.join(modes) or 'nothing'}; llmd has last and mean"
        )
    return _MODES[modes[0]]


class Embedder:
    """Makes vectors on the generation thread, one text at a time."""

    def __init__(self, generator: Generator, pooling: Pooling, context_tokens: int) -> None:
        self._generator = generator
        self._pooling = pooling
        self._context_tokens = context_tokens

    def probe(self) -> None:
        """Prove that the model gives vectors.

        Raises:
            LoadError: It has no layers that can be asked without its last one.
        """
        if not callable(getattr(self._generator.model_provider.model, "model", None)):
            raise LoadError("mlx_lm gives no vectors for this architecture")
        vector = self._generator.call(partial(self._vector, self._tokens("a")))
        if vector.ndim != 1 or not np.isfinite(vector).all():
            raise LoadError("the vector of a first text makes no sense")

    def answer(self, wanted: Wanted, *, profile: str, gone: Callable[[], bool]) -> dict[str, Any]:
        """The response to *wanted*; other requests get their turn between two texts.

        Raises:
            RequestError: A text is too long, or names tokens that are none.
            CancelledError: *gone* says that nobody waits for it.
        """
        vectors, prompt_tokens = [], 0
        for n, text in enumerate(wanted.inputs):
            if gone():
                raise CancelledError
            try:
                tokens = self._tokens(text)
            except ContextExceededError as error:
                raise RequestError(
                    f"input[{n}]: {error}", code="context_length_exceeded", param="input"
                ) from error
            except ValueError as error:
                raise RequestError(f"input[{n}]: {error}", param="input") from error
            vectors.append(self._generator.call(partial(self._vector, tokens)))
            prompt_tokens += len(tokens)
        if wanted.dimensions is not None and wanted.dimensions > len(vectors[0]):
            raise RequestError(f"dimensions must be at most {len(vectors[0])}", param="dimensions")
        return response(vectors, wanted, profile=profile, prompt_tokens=prompt_tokens)

    def _tokens(self, text: str | list[int]) -> list[int]:
        provider = self._generator.model_provider
        tokens = provider.tokenizer.encode(text) if isinstance(text, str) else text
        if len(tokens) > self._context_tokens:
            raise ContextExceededError(len(tokens), self._context_tokens)
        if not tokens:
            raise ValueError("no token comes of it")
        if not all(0 <= token < provider.vocabulary for token in tokens):
            raise ValueError("it names a token that this model does not have")
        return list(tokens)

    def _vector(self, tokens: list[int]) -> Vector:
        """On the generation thread: in steps, as a prompt is read, so that memory stays bounded."""
        model = self._generator.model_provider.model
        step = self._generator.cli_args.prefill_step_size
        cache = make_prompt_cache(model)
        total: Any = None
        for start in range(0, len(tokens), step):
            states = model.model(mx.array([tokens[start : start + step]]), cache=cache)[0]
            states = states.astype(mx.float32)
            last = states[-1]
            total = states.sum(axis=0) if total is None else total + states.sum(axis=0)
            mx.eval(last, total, [layer.state for layer in cache])
        pooled = last if self._pooling == "last" else total / len(tokens)
        return unit(np.array(pooled, dtype=np.float32))
