import json
from pathlib import Path

import pytest

from llmd.core.shape import LayerCache
from llmd.errors import WeightsError
from llmd.weights.shape import read_shape
from tests.weights.making import LLAMA, QWEN, write_gguf, write_mlx, write_sharded_mlx


FULL = LayerCache(64, 64)  # two heads of 32
SLIDING = LayerCache(64, 64, window_tokens=512)


def mlx(tmp_path: Path, changes=None, tensors=None):
    config = {key: value for key, value in {**QWEN, **(changes or {})}.items() if value is not None}
    return read_shape(write_mlx(tmp_path / "m", config, tensors), "mlx")


def gguf(tmp_path: Path, changes=None, tensors=None):
    metadata = {**LLAMA, **(changes or {})}
    known = {key: value for key, value in metadata.items() if value is not None}
    return read_shape(write_gguf(tmp_path / "m.gguf", known, tensors), "llama.cpp")


def under(architecture: str, **values):
    """Metadata as *architecture* would have it."""
    renamed = {key.replace("llama.", f"{architecture}."): value for key, value in LLAMA.items()}
    more = {f"{architecture}.{key.replace('__', '.')}": value for key, value in values.items()}
    return dict.fromkeys(LLAMA) | renamed | {"general.architecture": architecture} | more


def test_an_mlx_directory_is_read(tmp_path):
    shape = mlx(tmp_path)
    assert (shape.format, shape.architecture, shape.quantization) == ("mlx", "qwen3", "f16")
    assert shape.weights_bytes == 12_800
    assert shape.parameters == 6_400
    assert shape.layers == (FULL,) * 4
    assert (shape.hidden, shape.intermediate, shape.heads, shape.head_dim) == (64, 128, 4, 32)
    assert (shape.vocab, shape.context_tokens, shape.element_bytes) == (100, 4096, 2)
    assert shape.files == (str(tmp_path / "m/model.safetensors"),)
    assert not shape.chat_template


def test_a_gguf_file_is_read(tmp_path):
    shape = gguf(tmp_path)
    assert (shape.format, shape.architecture, shape.quantization) == ("gguf", "llama", "F16")
    assert shape.weights_bytes == 12_800
    assert shape.parameters == 6_400
    assert shape.layers == (LayerCache(32, 32),) * 4
    assert (shape.hidden, shape.intermediate, shape.heads, shape.head_dim) == (64, 128, 4, 16)
    assert (shape.vocab, shape.context_tokens, shape.element_bytes) == (100, 4096, 2)
    assert shape.matrix_bytes == (("F16", 12_800),)
    assert shape.chat_template


def test_shards_are_one_model(tmp_path):
    whole = read_shape(write_sharded_mlx(tmp_path / "m", 3), "mlx")
    assert (whole.weights_bytes, len(whole.files)) == (3 * 128, 3)
    write_gguf(tmp_path / "x-00001-of-00002.gguf", tensors={"a": ("F16", (32, 2))})
    write_gguf(tmp_path / "x-00002-of-00002.gguf", {"split.no": 1}, {"b": ("F16", (32, 4))})
    split = read_shape(tmp_path / "x-00001-of-00002.gguf", "llama.cpp")
    assert (split.weights_bytes, len(split.files)) == (128 + 256, 2)


def test_packed_weights_are_counted_by_their_bits(tmp_path):
    tensors = {
        "model.embed_tokens.weight": ("U32", (100, 8)),
        "model.embed_tokens.scales": ("BF16", (100, 1)),
        "model.embed_tokens.biases": ("BF16", (100, 1)),
        "model.norm.weight": ("BF16", (64,)),
    }
    shape = mlx(tmp_path, {"quantization": {"bits": 4, "group_size": 64}}, tensors)
    assert (shape.quantization, shape.parameters) == ("4-bit", 100 * 64 + 64)
    assert shape.weights_bytes == 3200 + 400 + 128


def test_wide_norms_make_a_wide_cache(tmp_path):
    tensors = {
        "model.embed_tokens.weight": ("F16", (100, 64)),
        "model.layers.0.input_layernorm.weight": ("F32", (64,)),
    }
    assert mlx(tmp_path, None, tensors).element_bytes == 4


MLX_LAYERS = [
    pytest.param(
        {"num_key_value_heads": None},
        (LayerCache(128, 128),) * 4,
        id="without grouped heads, every head keeps its own",
    ),
    pytest.param({"head_dim": None}, (LayerCache(32, 32),) * 4, id="heads share the width"),
    pytest.param(
        {"text_config": {"num_hidden_layers": 2}},
        (FULL,) * 2,
        id="a model with eyes keeps its numbers inside",
    ),
    pytest.param({"sliding_window": 512}, (FULL,) * 4, id="a window that mlx_lm ignores is none"),
    pytest.param(
        {"model_type": "gemma3_text", "sliding_window": 512, "sliding_window_pattern": 2},
        (SLIDING, FULL, SLIDING, FULL),
        id="every second layer sees everything",
    ),
    pytest.param(
        {
            "model_type": "gpt_oss",
            "sliding_window": 512,
            "layer_types": ["sliding_attention", "full_attention"] * 2,
        },
        (SLIDING, FULL, SLIDING, FULL),
        id="layers that are named",
    ),
    pytest.param(
        {"model_type": "qwen3", "sliding_window": 512, "layer_types": ["sliding_attention"] * 4},
        (FULL,) * 4,
        id="named layers that mlx_lm treats alike",
    ),
    pytest.param(
        {"model_type": "deepseek_v3", "kv_lora_rank": 512, "qk_rope_head_dim": 64},
        (LayerCache(512, 64),) * 4,
        id="a latent is kept once for all heads",
    ),
    pytest.param(
        {
            "model_type": "deepseek_v2",
            "kv_lora_rank": 512,
            "qk_rope_head_dim": 16,
            "qk_nope_head_dim": 32,
            "v_head_dim": 24,
        },
        (LayerCache(4 * 48, 4 * 24),) * 4,
        id="all heads where mlx_lm does not cache the latent",
    ),
    pytest.param(
        {
            "model_type": "qwen3_next",
            "full_attention_interval": 4,
            "linear_num_value_heads": 4,
            "linear_num_key_heads": 2,
            "linear_key_head_dim": 8,
            "linear_value_head_dim": 8,
        },
        (LayerCache(state_bytes=1408, scratch_bytes=2 * 1408),) * 3 + (FULL,),
        id="three of four layers keep a state of fixed size",
    ),
    pytest.param(
        {
            "model_type": "gemma3n",
            "sliding_window": 512,
            "num_kv_shared_layers": 2,
            "layer_types": ["sliding_attention", "full_attention"] * 2,
        },
        (SLIDING, FULL, LayerCache(), LayerCache()),
        id="layers that share keep nothing",
    ),
    pytest.param(
        {"model_type": "lfm2", "conv_L_cache": 3, "full_attn_idxs": [1]},
        (LayerCache(state_bytes=256), FULL, *(LayerCache(state_bytes=256),) * 2),
        id="convolutions keep two columns",
    ),
]


MLX_WIDTHS = [
    pytest.param({}, 128, 0, id="dense"),
    pytest.param({"num_experts_per_tok": 4, "moe_intermediate_size": 96}, 384, 0, id="experts"),
    pytest.param({"num_experts_per_tok": 2, "num_local_experts": 8}, 256, 0, id="Mixtral's"),
    pytest.param(
        {"model_type": "deepseek_v3", "qk_nope_head_dim": 32, "v_head_dim": 24},
        128,
        4 * 56,
        id="all heads are made anew out of a latent",
    ),
]


@pytest.mark.parametrize(("changes", "intermediate", "expanded"), MLX_WIDTHS)
def test_what_mlx_makes_of_each_token(tmp_path, changes, intermediate, expanded):
    shape = mlx(tmp_path, changes)
    assert (shape.intermediate, shape.expanded) == (intermediate, expanded)


@pytest.mark.parametrize(("changes", "layers"), MLX_LAYERS)
def test_what_mlx_keeps_of_each_layer(tmp_path, changes, layers):
    assert mlx(tmp_path, changes).layers == layers


PLAIN = LayerCache(32, 32)
WINDOW = LayerCache(32, 32, window_tokens=512)
GGUF_LAYERS = [
    pytest.param(
        {"llama.attention.head_count_kv": None},
        (LayerCache(64, 64),) * 4,
        id="without grouped heads, every head keeps its own",
    ),
    pytest.param(
        {"llama.attention.key_length": 32, "llama.attention.value_length": 8},
        (LayerCache(64, 16),) * 4,
        id="keys wider than values",
    ),
    pytest.param(
        {
            "llama.attention.head_count_kv": [2, 1, 0, 2],
            "llama.ssm.state_size": 4,
            "llama.ssm.inner_size": 8,
            "llama.ssm.conv_kernel": 4,
        },
        (PLAIN, LayerCache(16, 16), LayerCache(state_bytes=(3 * 8 + 32) * 4), PLAIN),
        id="heads differ between layers, and one is recurrent",
    ),
    pytest.param(
        {"llama.attention.sliding_window": 512},
        (PLAIN,) * 4,
        id="a window that llama.cpp ignores is none",
    ),
    pytest.param(
        under("gemma2", attention__sliding_window=512),
        (WINDOW, PLAIN) * 2,
        id="every second layer sees everything",
    ),
    pytest.param(
        under(
            "gemma4",
            attention__sliding_window=512,
            attention__sliding_window_pattern=[True, True, True, False],
        ),
        (WINDOW, WINDOW, WINDOW, PLAIN),
        id="a pattern in the file",
    ),
    pytest.param(
        under(
            "deepseek2",
            attention__kv_lora_rank=512,
            attention__key_length=576,
            attention__value_length=512,
            attention__key_length_mla=192,
        ),
        (LayerCache(576, 0),) * 4,
        id="a latent is kept once for all heads",
    ),
    pytest.param(
        under(
            "qwen3next",
            ssm__state_size=8,
            ssm__inner_size=32,
            ssm__conv_kernel=4,
            ssm__group_count=2,
        ),
        (LayerCache(state_bytes=(3 * 64 + 256) * 4),) * 3 + (PLAIN,),
        id="three of four layers keep a state of fixed size",
    ),
]


@pytest.mark.parametrize(("changes", "layers"), GGUF_LAYERS)
def test_what_llama_cpp_keeps_of_each_layer(tmp_path, changes, layers):
    assert gguf(tmp_path, changes).layers == layers


def test_an_embedding_that_is_only_read_is_no_matrix(tmp_path):
    tensors = {"token_embd.weight": ("F16", (64, 100)), "output.weight": ("F32", (64, 100))}
    assert gguf(tmp_path, None, tensors).matrix_bytes == (("F32", 25_600),)


NO_MODELS = [
    pytest.param({"general.architecture": None}, "names no architecture", id="no architecture"),
    pytest.param({"general.architecture": "clip"}, "is no language model", id="a projector"),
    pytest.param({"llama.block_count": 10**9}, "is no language model", id="a billion layers"),
]


@pytest.mark.parametrize(("changes", "message"), NO_MODELS)
def test_a_gguf_that_is_no_language_model_is_refused(tmp_path, changes, message):
    with pytest.raises(WeightsError, match=message):
        gguf(tmp_path, changes)


@pytest.mark.parametrize("layers", [None, 0, -1, 10**9, "many", 1.5, [4]])
def test_an_mlx_configuration_without_layers_is_refused(tmp_path, layers):
    with pytest.raises(WeightsError, match="is no language model"):
        mlx(tmp_path, {"num_hidden_layers": layers})


def test_an_engine_cannot_read_the_others_weights(tmp_path):
    with pytest.raises(WeightsError, match=r"which engine llama\.cpp cannot read"):
        read_shape(write_mlx(tmp_path / "m"), "llama.cpp")
    with pytest.raises(WeightsError, match="is a file, which engine mlx cannot read"):
        read_shape(write_gguf(tmp_path / "m.gguf"), "mlx")


def test_the_fingerprint_follows_weights_and_configuration(tmp_path):
    directory = write_mlx(tmp_path / "m")
    before = read_shape(directory, "mlx").fingerprint
    assert read_shape(directory, "mlx").fingerprint == before
    (directory / "config.json").write_text(json.dumps({**QWEN, "vocab_size": 1000}))
    assert read_shape(directory, "mlx").fingerprint != before


TEMPLATES = [
    pytest.param("chat_template.jinja", "{{ x }}", True, id="in a file of its own"),
    pytest.param("tokenizer_config.json", '{"chat_template": "{{ x }}"}', True, id="of old"),
    pytest.param("tokenizer_config.json", "{}", False, id="nowhere"),
    pytest.param("tokenizer_config.json", "not json", False, id="nowhere that can be read"),
]


@pytest.mark.parametrize(("name", "content", "found"), TEMPLATES)
def test_a_chat_template_is_found(tmp_path, name, content, found):
    directory = write_mlx(tmp_path / "m")
    (directory / name).write_text(content)
    assert read_shape(directory, "mlx").chat_template is found


def test_architecture_with_escape_codes_reaches_no_terminal(tmp_path):
    name = "\x1b]0;owned\x07llama"
    file = write_gguf(tmp_path / "m.gguf", {**LLAMA, "general.architecture": name})
    with pytest.raises(WeightsError, match="names no architecture"):
        read_shape(file, "llama.cpp")
    mlx = write_mlx(tmp_path / "mlx", {**QWEN, "model_type": name})
    assert read_shape(mlx, "mlx").architecture == "unknown"
