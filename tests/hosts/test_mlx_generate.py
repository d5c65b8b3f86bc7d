"""The generation thread and what takes the place of mlx_lm's parts, in this process."""

import argparse
import threading

import pytest

from llmd.hosts.mlx import MlxEngine, parse_flags
from llmd.hosts.protocol import Launch
from tests.hosts.conftest import mlx


pytest.importorskip("mlx_lm")


@pytest.fixture(scope="module")
def generator(demo_models):
    MlxEngine(None).prepare()
    from llmd.hosts.mlx_caches import PromptCache
    from llmd.hosts.mlx_generate import Generator, Provider

    args = parse_flags(Launch("demo", "mlx", mlx(demo_models)))
    died = []
    made = Generator(Provider(args), PromptCache(8, 2**20), context_tokens=64, on_death=died.append)
    made.loaded.result(30)
    yield made
    made.stop_and_join()
    assert died == []


def ask(generator, prompt="a", **sampling):
    """Submit a text completion; its inbox."""
    from mlx_lm.server import CompletionRequest

    from llmd.hosts.mlx_probe import one_token

    args = one_token(generator.cli_args)
    args.max_tokens = sampling.pop("max_tokens", 4)
    for name, value in sampling.items():
        setattr(args.sampling, name, value)
    return generator.submit(CompletionRequest("text", prompt, [], None, None), args)


def finish(inbox):
    """The number of tokens that came."""
    count = 0
    while (item := inbox.get(30)) is not None:
        count += hasattr(item, "finish_reason")
    return count


def test_failure_over_one_request_ends_those_in_flight_and_no_other(generator, monkeypatch):
    from llmd.hosts import mlx_generate

    monkeypatch.setattr(mlx_generate, "check_sampling", lambda _args, _vocabulary: None)
    poison = ask(generator, temperature=1.0, top_k=10**6)
    with pytest.raises(mlx_generate.EngineFailedError, match="top_k"):
        finish(poison)
    assert finish(ask(generator)) == 4


def test_job_runs_on_the_generation_thread_and_its_error_comes_back(generator):
    assert generator.call(lambda: threading.current_thread().name) != threading.main_thread().name
    with pytest.raises(ZeroDivisionError):
        generator.call(lambda: 1 // 0)


def test_cancelled_request_is_not_begun(generator):
    from llmd.hosts.mlx_generate import CancelledError

    gate = threading.Event()
    generator.requests.put(gate.wait)
    before = generator.generated_tokens
    inbox = ask(generator)
    inbox.cancel()
    gate.set()
    with pytest.raises(CancelledError):
        inbox.get(30)
    assert finish(ask(generator)) == 4
    assert generator.generated_tokens == before + 4


def test_answer_is_cut_to_what_the_context_leaves(generator):
    inbox = ask(generator, "a" * 50, max_tokens=10**9)
    context = inbox.get(30)
    left = 64 - len(context.prompt)
    assert finish(inbox) <= left


def test_first_token_of_an_exact_repetition_is_computed_again(generator):
    def fetch():
        state, rest = generator.prompt_cache.fetch_nearest_cache(key, tokens)
        return state is not None, rest

    inbox = ask(generator, "repeat after me")
    tokens = list(inbox.get(30).prompt)
    assert finish(inbox) > 0
    key = generator.model_provider.model_key
    known, rest = generator.call(fetch)
    assert known
    assert rest == tokens[-1:]


def test_flags_of_mlx_lm_are_understood_and_the_rest_pinned(demo_models):
    words = ["--temp", "0.5", "--chat-template-args", '{"enable_thinking": false}']
    args = parse_flags(Launch("demo", "mlx", mlx(demo_models, args=words, parallel=2)))
    assert isinstance(args, argparse.Namespace)
    assert (args.temp, args.chat_template_args) == (0.5, {"enable_thinking": False})
    assert (args.decode_concurrency, args.prompt_concurrency) == (2, 2)
    assert args.max_tokens == 1024


def test_kept_prompt_does_not_hold_on_to_the_batch_that_made_it():
    MlxEngine(None).prepare()
    import mlx.core as mx
    from mlx_lm.models.cache import KVCache

    from llmd.hosts.mlx_caches import PromptCache

    before = mx.get_active_memory()
    cache, batch, state = PromptCache(4, 2**30), mx.zeros((16, 1, 256, 64)), KVCache()
    state.keys = state.values = mx.contiguous(batch[:1])
    state.offset = 256
    cache.insert_cache("model", [1, 2, 3], [state])
    del batch, state
    assert mx.get_active_memory() - before <= cache.nbytes
