"""Key-value state is given up as soon as nothing needs it: counted by MLX's own allocator."""

import argparse

import pytest

from llmd.hosts.mlx import MlxEngine


pytest.importorskip("mlx_lm")

TOKENS, WIDTH = 256, 1024
ONE = 2 * TOKENS * WIDTH * 4
"""Bytes of one sequence in one layer: keys and values in 32 bits."""
LAYERS = 8


@pytest.fixture(scope="module", autouse=True)
def imported():
    MlxEngine(None).prepare()


def batch(sequences, kind=None):
    """A batch of that many full sequences, computed; of no model."""
    import mlx.core as mx
    from mlx_lm.models.cache import BatchKVCache

    from llmd.hosts import mlx_caches

    made = (kind or mlx_caches.Prompts).empty(None, lambda x: x)
    made.uids = list(range(sequences))
    made.tokens = [[] for _ in range(sequences)]
    for each in ("samplers", "logits_processors", "max_tokens", "stop_sequences"):
        setattr(made, each, [None] * sequences)
    for _ in range(LAYERS):
        layer = BatchKVCache([0] * sequences)
        shape = (sequences, 1, TOKENS, WIDTH)
        layer.update_and_fetch(mx.ones(shape), mx.ones(shape))
        made.prompt_cache.append(layer)
        mx.eval(layer.state)
    return made


def held(job):
    """What *job* adds to the bytes held before, at most and in the end: in layers of a sequence."""
    import mlx.core as mx

    mx.clear_cache()
    before = mx.get_active_memory()
    mx.reset_peak_memory()
    kept = job()
    mx.synchronize()
    figures = (mx.get_peak_memory() - before) / ONE, (mx.get_active_memory() - before) / ONE
    del kept
    return figures


def test_prompts_that_are_split_are_never_there_twice():
    prompts = batch(4)
    most, after = held(lambda: prompts.split([1]))
    assert most <= 2 * 4  # a layer of the old beside the new, and one on its way
    assert after <= 0.1


def test_batches_that_are_joined_are_never_there_twice():
    prompts, others = batch(3), batch(2)
    most, after = held(lambda: prompts.extend(others))
    assert most <= 2 * 5
    assert after <= 0.1


def test_first_prompts_come_into_an_empty_batch():
    prompts, others = batch(0), batch(2)
    prompts.prompt_cache.clear()
    prompts.extend(others)
    assert len(prompts.prompt_cache) == LAYERS


def test_answers_that_end_together_are_kept_one_after_the_other():
    """All of them are in the same responses, and the cache has room for one."""
    from llmd.hosts.mlx_caches import PromptCache

    prompts = batch(4)
    cache = PromptCache(8, LAYERS * ONE)

    def end():
        states = [prompts.extract_cache(index) for index in range(4)]
        prompts.prompt_cache.clear()
        for index, state in enumerate(states):
            cache.insert_cache("model", [index, 1, 2], state)
        return states

    most, after = held(end)
    assert most <= LAYERS + 2
    assert after == pytest.approx(LAYERS - 4 * LAYERS, abs=0.1)
    assert cache.nbytes == LAYERS * ONE


def test_state_too_large_to_be_kept_is_not_computed():
    from llmd.hosts.mlx_caches import PromptCache

    prompts = batch(2)
    cache = PromptCache(8, ONE)
    state = prompts.extract_cache(0)
    most, _ = held(lambda: cache.insert_cache("model", [1, 2], state))
    assert most <= 0.1
    assert len(cache) == 0


def test_recurrent_state_does_not_hold_on_to_what_it_was_cut_from():
    import mlx.core as mx
    from mlx_lm.models.cache import ArraysCache

    def step():
        whole = mx.ones((2, TOKENS, WIDTH))
        state = ArraysCache(2)
        state[0] = whole[:, -3:]
        state[1] = None
        mx.eval(state.state)
        return state

    assert held(step)[1] <= 0.05

    state = ArraysCache(1)
    state[0] = mx.ones((16, TOKENS, WIDTH))
    mx.eval(state.state)

    def cut():
        alone = state.extract(3)
        state.cache = [None]
        mx.eval(alone.state)
        return alone

    assert held(cut)[1] == pytest.approx(-7.5, abs=0.1)


def test_the_server_makes_its_batches_so(demo_models):
    import mlx_lm.server

    from llmd.hosts import mlx_caches

    made = mlx_lm.server.BatchGenerator(argparse.Namespace())
    assert isinstance(made._prompt_batch, mlx_caches.Prompts)
    assert isinstance(made._generation_batch, mlx_caches.Answers)
