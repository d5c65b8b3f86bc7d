"""What a profile is charged, against what hosts were seen to hold.

The measured rows are from live hosts on Linux x86-64: peak VmHWM in MiB after every sequence had
filled its context. All MLX models had the demo's tokenizer.
"""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from llmd.core.footprint import (
    Footprint,
    LayerCache,
    ModelShape,
    default_context,
    estimate,
    spare_bytes,
)
from llmd.core.mlx_compute import cache_tokens, kept_buffer_bytes, prefill_tokens


MIB = 2**20
GIB = 2**30


def shape(**changes) -> ModelShape:
    """A model of 30 GB-class proportions: Qwen3-Coder-30B-A3B in 4 bits."""
    fields = {
        "format": "mlx",
        "architecture": "qwen3_moe",
        "weights_bytes": 16 * GIB,
        "parameters": 30_500_000_000,
        "quantization": "4-bit",
        "layers": (LayerCache(512, 512),) * 48,
        "hidden": 2048,
        "intermediate": 8 * 768,
        "heads": 32,
        "head_dim": 128,
        "vocab": 151_936,
        "context_tokens": 262_144,
        "experts_used": 8,
    }
    return ModelShape(**{**fields, **changes})  # type: ignore[arg-type]


def tiny(form: str, **changes) -> ModelShape:
    """The demo model."""
    return shape(
        format=form,
        weights_bytes=2_034_944,
        quantization="f16",
        layers=(LayerCache(128, 128),) * 4,
        hidden=128,
        intermediate=320,
        heads=4,
        head_dim=64,
        vocab=1024,
        experts_used=0,
        **changes,
    )


def random_weights(form: str, weights_mib: float, **changes) -> ModelShape:
    """158 million random weights, of Qwen3's architecture."""
    return shape(
        format=form,
        weights_bytes=int(weights_mib * MIB),
        quantization="f16",
        layers=(LayerCache(1024, 1024),) * 8,
        hidden=1024,
        intermediate=3072,
        heads=16,
        head_dim=128,
        experts_used=0,
        **{"vocab": 32_000, **changes},
    )


def f32(**sizes) -> ModelShape:
    """Random weights in 32 bits."""
    return shape(quantization="f32", vocab=1024, experts_used=0, element_bytes=4, **sizes)


def small_f32() -> ModelShape:
    """41 million of them."""
    layers = (LayerCache(256, 256),) * 8
    return f32(weights_bytes=158 * MIB, layers=layers, hidden=512, intermediate=1536, heads=8,
               head_dim=64)  # fmt: skip


def narrow_f32() -> ModelShape:
    """Four million, where most is what MLX computes with."""
    layers = (LayerCache(128, 128),) * 6
    return f32(weights_bytes=15 * MIB, layers=layers, hidden=256, intermediate=512, heads=4,
               head_dim=64)  # fmt: skip


def measure(of: ModelShape, context: int, sequences: int, cache_mib: int = 0, **options):
    return estimate(
        of,
        context_tokens=context,
        sequences=sequences,
        prompt_cache_bytes=cache_mib * MIB,
        platform="linux",
        **options,
    )


MEASURED = [
    pytest.param(tiny("mlx"), 2048, 2, 16, 512, 145, id="MLX demo, 2 x 2048"),
    pytest.param(tiny("mlx"), 2048, 2, 64, 2048, 238, id="MLX demo, 2 x 2048, large chunks"),
    pytest.param(tiny("mlx"), 4096, 1, 32, 512, 152, id="MLX demo, 1 x 4096"),
    pytest.param(small_f32(), 512, 2, 16, 512, 347, id="MLX 158 MiB f32, 2 x 512"),
    pytest.param(small_f32(), 1024, 2, 16, 2048, 482, id="MLX 158 MiB f32, large chunks"),
    pytest.param(small_f32(), 1024, 2, 0, 2048, 469, id="MLX 158 MiB f32, no prompt cache"),
    pytest.param(
        random_weights("mlx", 302.5, vocab=1024),
        512,
        2,
        64,
        512,
        607,
        id="MLX 302 MiB f16, 2 x 512",
    ),
    pytest.param(narrow_f32(), 768, 6, 4, 256, 199, id="MLX 15 MiB f32, 6 x 768"),
    pytest.param(narrow_f32(), 768, 6, 4, 256, 223, id="MLX 15 MiB f32, 6 x 768, another time"),
    pytest.param(random_weights("gguf", 302.6), 1024, 2, 64, None, 508, id="GGUF F16, 2 x 1024"),
    pytest.param(random_weights("gguf", 160.8), 1024, 2, 64, None, 364, id="GGUF Q8_0, 2 x 1024"),
    pytest.param(
        random_weights("gguf", 85.2, matrix_bytes=(("F32", 4096), ("Q4_0", 85 * MIB))),
        1024,
        2,
        64,
        None,
        373,
        id="GGUF Q4_0, which is rearranged, 2 x 1024",
    ),
    pytest.param(tiny("gguf"), 8192, 4, 64, None, 195, id="GGUF demo, 4 x 8192"),
]


@pytest.mark.parametrize(("of", "context", "sequences", "cache", "step", "peak_mib"), MEASURED)
def test_estimate_is_a_ceiling_close_to_what_was_measured(
    of, context, sequences, cache, step, peak_mib
):
    args = () if step is None else ("--prefill-step-size", str(step))
    total = measure(of, context, sequences, cache, args=args).total_bytes / MIB
    assert total >= 0.95 * peak_mib
    assert total <= max(1.10 * peak_mib, peak_mib + 64)


def test_the_parts_are_what_they_say():
    parts = estimate(
        shape(), context_tokens=65_536, sequences=2, prompt_cache_bytes=4 * GIB, platform="darwin"
    )
    assert parts.weights_bytes == 16 * GIB
    assert parts.cache_bytes == 2 * 65_536 * 48 * 1024 * 2
    assert parts.prompt_cache_bytes == 4 * GIB
    assert GIB // 2 < parts.compute_bytes < 2 * GIB
    assert parts.runtime_bytes < GIB
    assert parts.total_bytes == sum(getattr(parts, part) for part in parts.__slots__)


CACHES = [
    pytest.param((LayerCache(64, 32),), 1000, 1, 96 * 1024 * 2, id="whole steps of 256 tokens"),
    pytest.param((LayerCache(64, 64, 512),), 4096, 2, 2 * 128 * 768 * 2, id="a window and a chunk"),
    pytest.param(
        (LayerCache(64, 64, 8192),), 256, 1, 128 * 256 * 2, id="a window beyond the context"
    ),
    pytest.param((LayerCache(state_bytes=100),), 4096, 3, 300, id="a state of fixed size"),
    pytest.param((LayerCache(),), 4096, 3, 0, id="a layer that shares"),
]


@pytest.mark.parametrize(("layers", "context", "sequences", "expected"), CACHES)
def test_key_value_cache(layers, context, sequences, expected):
    assert measure(shape(layers=layers), context, sequences).cache_bytes == expected


def test_llama_cpp_keeps_copies_of_what_cannot_be_rolled_back():
    layers = (LayerCache(64, 64, 512), LayerCache(64, 64), LayerCache(state_bytes=1000))
    plain = 32_768 * 128 * 2 + 1024 * 128 * 2 + 1000
    copies = 6 * (512 * 128 * 2 + 1000)
    assert measure(shape(format="gguf", layers=layers), 32_768, 1).cache_bytes == plain + copies


def test_only_the_cpu_has_a_second_copy_of_some_types():
    gguf = shape(format="gguf", matrix_bytes=(("Q4_K", 5), ("Q6_K", 7), ("Q8_0", 11)))
    base = gguf.weights_bytes
    assert measure(gguf, 512, 1).weights_bytes == base + 5
    assert measure(gguf, 512, 1, arm64=True).weights_bytes == base + 23
    on_metal = estimate(
        gguf, context_tokens=512, sequences=1, prompt_cache_bytes=0, platform="darwin"
    )
    assert on_metal.weights_bytes == base


FLAGS = [
    pytest.param((), 4096, id="none: f16"),
    pytest.param(("--cache-type-k", "q8_0"), 2048 + 1088, id="keys in q8_0"),
    pytest.param(("-ctk=q4_0", "-ctv", "q8_0"), 576 + 1088, id="short names, with and without ="),
    pytest.param(("-ctk", "f16", "-ctk", "f32"), 4096 + 2048, id="the last one counts"),
    pytest.param(("--cache-type-k", "unheard-of"), 4096, id="an unknown type"),
    pytest.param(("--cache-type-k",), 4096, id="a flag without its value"),
]


@pytest.mark.parametrize(("args", "per_token"), FLAGS)
def test_flags_that_change_the_cache_are_heeded(args, per_token):
    gguf = shape(format="gguf", layers=(LayerCache(1024, 1024),))
    assert measure(gguf, 1024, 1, args=args).cache_bytes == 1024 * per_token


def test_smaller_batches_need_smaller_buffers():
    gguf = shape(format="gguf")
    small = measure(gguf, 4096, 1, args=("--ubatch-size", "128")).compute_bytes
    assert small * 3.5 < measure(gguf, 4096, 1).compute_bytes
    for nonsense in ("0", "-1", "x", "9" * 20):
        args = ("-ub", nonsense)
        assert measure(gguf, 4096, 1, args=args).total_bytes == measure(gguf, 4096, 1).total_bytes


def computing(of, platform="linux"):
    parts = estimate(
        of, context_tokens=1024, sequences=2, prompt_cache_bytes=0, platform=platform,
        args=("--prefill-step-size", "512"),
    )  # fmt: skip
    return parts.compute_bytes


def test_recurrent_layers_copy_their_state_on_a_cpu_alone():
    plain = shape(layers=(LayerCache(state_bytes=1000),))
    copying = shape(layers=(LayerCache(state_bytes=1000, scratch_bytes=1000),))
    assert computing(copying) - computing(plain) == 2 * 256 * 1000
    assert computing(copying, "darwin") == computing(plain, "darwin")


def test_latent_attention_makes_keys_and_values_of_the_whole_context_anew():
    expanded = computing(shape(expanded=100)) - computing(shape())
    assert expanded == 2 * 1024 * 100 * 2


def test_each_expert_of_a_token_counts():
    one, eight = (computing(shape(experts_used=n)) for n in (1, 8))
    assert eight - one == 2 * 512 * 7 * 3 * 2048 * 2


def test_heads_count_among_what_a_cpu_has_queued():
    few, many = (computing(shape(head_dim=dim, element_bytes=4)) for dim in (128, 256))
    assert many - few >= 2 * 512 * 8 * 32 * 128 * 4


@pytest.mark.parametrize(
    ("context", "step", "sequences", "expected"),
    [
        pytest.param(1000, 512, 1, 1024, id="alone: steps of 256"),
        pytest.param(1100, 512, 2, 1536, id="together: the last piece is as long as any"),
        pytest.param(500, 2048, 2, 512, id="a context of less than a piece"),
        pytest.param(1000, 64, 4, 1024, id="small pieces"),
    ],
)
def test_sequences_in_a_batch_are_padded_by_whole_pieces(context, step, sequences, expected):
    assert cache_tokens(context, step, sequences) == expected


@pytest.mark.parametrize("platform", ["linux", "darwin"])
def test_no_more_buffers_may_be_kept_than_are_charged(platform):
    kept = kept_buffer_bytes(
        shape(), step_tokens=512, context_tokens=1024, sequences=2, platform=platform
    )
    assert 0 < kept < computing(shape(), platform)


def test_each_sequence_of_llama_cpp_has_threads_and_buffers():
    gguf = shape(format="gguf")
    more = measure(gguf, 512, 8).runtime_bytes - measure(gguf, 512, 1).runtime_bytes
    assert more == 7 * MIB


def test_a_model_and_its_draft_share_one_runtime():
    both = Footprint(1, 2, 3, 4, 5).plus(Footprint(10, 20, 30, 40, 2))
    assert both == Footprint(11, 22, 33, 44, 5)


@pytest.mark.parametrize(
    ("trained", "expected"),
    [
        pytest.param(262_144, 32_768, id="at most 32768"),
        pytest.param(4096, 4096, id="the model's own when that is less"),
        pytest.param(0, 32_768, id="32768 when the model does not say"),
    ],
)
def test_default_context(trained, expected):
    assert default_context(shape(context_tokens=trained)) == expected


STEPS = [
    pytest.param(shape(), 262_144, "darwin", 2048, id="Metal has a kernel for heads of 128"),
    pytest.param(shape(head_dim=256), 65_536, "darwin", 64, id="and none for heads of 256"),
    pytest.param(shape(expanded=1), 65_536, "darwin", 64, id="nor for latent attention"),
    pytest.param(tiny("mlx"), 2048, "linux", 512, id="a short context on a CPU"),
    pytest.param(tiny("mlx"), 32_768, "linux", 64, id="a long context on a CPU"),
]


@pytest.mark.parametrize(("of", "context", "platform", "expected"), STEPS)
def test_chunks_of_a_prompt_keep_attention_scores_small(of, context, platform, expected):
    step = prefill_tokens(of, context_tokens=context, sequences=2, platform=platform)
    assert step == expected


@given(
    st.sampled_from(["mlx", "gguf"]),
    st.sampled_from(["linux", "darwin"]),
    st.integers(256, 2**20),
    st.integers(1, 64),
)
def test_more_of_anything_never_costs_less(form, platform, context, sequences):
    def total(of=None, tokens=context, n=sequences, cache=0):
        return estimate(
            of or shape(format=form), context_tokens=tokens, sequences=n,
            prompt_cache_bytes=cache, platform=platform,
        ).total_bytes  # fmt: skip

    base = total()
    # A larger context may come with smaller chunks, whose other buffers then shrink.
    tolerance = 512 * MIB
    assert total(tokens=context * 2) >= base - tolerance
    assert total(n=sequences + 1) >= base - tolerance
    assert total(cache=GIB) == base + GIB
    assert total(of=replace(shape(format=form), weights_bytes=17 * GIB)) == base + GIB


def test_a_spare_costs_less_than_the_smallest_model():
    for platform in ("linux", "darwin"):
        smallest = estimate(
            tiny("mlx"), context_tokens=256, sequences=1, prompt_cache_bytes=0, platform=platform
        )
        assert 0 < spare_bytes(platform) < smallest.total_bytes
