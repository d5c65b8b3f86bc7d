"""Whole small models, damaged in any place: a shape, or the one error that is defined; soon."""

import contextlib
import json
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmd.errors import WeightsError
from llmd.weights.files import check_complete, shards_of
from llmd.weights.shape import read_shape
from tests.weights.making import QWEN, gguf_bytes, write_mlx


GGUF = gguf_bytes()
ODD = st.sampled_from([0, 1, 2**16, 2**31 - 1, 2**31, 2**32 - 1, 2**53, 2**63, 2**64 - 1])
VALUES = (
    st.none() | st.booleans() | ODD | st.integers(-(2**70), 2**70) | st.floats()
    | st.text(max_size=5) | st.lists(st.none() | ODD | st.text(max_size=3), max_size=5)
    | st.dictionaries(st.sampled_from(list(QWEN)), ODD, max_size=3)
)  # fmt: skip


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("fuzz")


def read(path, engine):
    with contextlib.suppress(WeightsError):
        shards_of(path)
        check_complete(path)
        assert read_shape(path, engine).weights_bytes >= 0


@settings(max_examples=300)
@given(st.lists(st.tuples(st.integers(0, len(GGUF)), ODD, st.booleans()), min_size=1, max_size=4))
def test_gguf_with_other_counts_and_offsets(place, damage):
    raw = bytearray(GGUF)
    for at, number, wide in damage:
        packed = struct.pack("<Q", number) if wide else struct.pack("<I", number % 2**32)
        raw[at : at + len(packed)] = packed
    (place / "m.gguf").write_bytes(raw)
    read(place / "m.gguf", "llama.cpp")


@settings(max_examples=300)
@given(st.dictionaries(st.sampled_from([*QWEN, "layer_types", "text_config", "quantization",
       "sliding_window", "kv_lora_rank", "full_attn_idxs", "hybrid_override_pattern",
       "num_kv_shared_layers", "sliding_window_pattern"]), VALUES, max_size=6))  # fmt: skip
def test_config_with_other_values(place, changes):
    write_mlx(place / "mlx", {**QWEN, **changes})
    read(place / "mlx", "mlx")


@settings(max_examples=200)
@given(st.text(max_size=30) | VALUES.map(lambda value: json.dumps({"weight_map": value})))
def test_index_with_anything_in_it(place, text):
    write_mlx(place / "indexed")
    index = place / "indexed" / "model.safetensors.index.json"
    index.write_text(text, errors="replace")
    read(place / "indexed", "mlx")
