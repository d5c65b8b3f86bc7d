import contextlib
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmd.errors import WeightsError
from llmd.weights import safetensors
from tests.weights.making import safetensors_bytes, safetensors_header, write_safetensors


TWO = {"a": ("F16", (2, 3)), "b": ("F32", (4,))}


@pytest.fixture
def read(tmp_path):
    def read(raw: bytes):
        file = tmp_path / "model.safetensors"
        file.write_bytes(raw)
        return safetensors.read_header(file)

    return read


def entry(dtype="F16", shape=(1,), offsets=(0, 2)):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


def test_tensors_are_read_without_their_data(tmp_path):
    write_safetensors(tmp_path / "f", TWO)
    tensors = safetensors.read_header(tmp_path / "f")
    assert {name: (t.dtype, t.shape, t.bytes) for name, t in tensors.items()} == {
        "a": ("F16", (2, 3), 12),
        "b": ("F32", (4,), 16),
    }


def test_what_safetensors_writes_is_read(tmp_path):
    numpy = pytest.importorskip("numpy")
    save_file = pytest.importorskip("safetensors.numpy").save_file
    save_file({"x": numpy.zeros((3, 4), numpy.float32)}, tmp_path / "f")
    assert safetensors.read_header(tmp_path / "f")["x"].bytes == 48


BAD = [
    pytest.param(b"", "is empty or cut off (0 bytes)", id="empty"),
    pytest.param(b"\x05\0\0", "is empty or cut off (3 bytes)", id="no length"),
    pytest.param(b"\xff" * 8 + b"{}", "is no safetensors file", id="a header beyond every file"),
    pytest.param(
        b"\0" * 8, "is no safetensors file: its header would have 0 bytes", id="no header"
    ),
    pytest.param(
        (100).to_bytes(8, "little") + b"{}", "is cut off", id="less header than announced"
    ),
    pytest.param((2).to_bytes(8, "little") + b"{x", "is not JSON", id="broken JSON"),
    pytest.param((9).to_bytes(8, "little") + b"[" * 9, "is not JSON", id="brackets"),
    pytest.param(safetensors_bytes([1]), "is no list of tensors", id="a list"),
    pytest.param(safetensors_bytes({"a": 1}), "'a' is malformed", id="a number for a tensor"),
    pytest.param(safetensors_bytes({"a": entry(offsets=(2, 0))}), "is malformed", id="backwards"),
    pytest.param(safetensors_bytes({"a": entry(offsets=(-2, 0))}), "is malformed", id="negative"),
    pytest.param(safetensors_bytes({"a": entry(shape=(1.5,))}), "is malformed", id="half a row"),
    pytest.param(
        safetensors_bytes({"a": entry(shape=[1] * 40)}), "is malformed", id="40 dimensions"
    ),
    pytest.param(
        safetensors_bytes({"a": entry(shape=(2**40, 2**40))}, 2),
        "but its shape and type (F16) need",
        id="a shape larger than the world",
    ),
    pytest.param(
        safetensors_bytes({"a": entry(), "b": entry(offsets=(1, 3))}, 4),
        "tensor 'b' overlaps the one before it",
        id="one upon the other",
    ),
    pytest.param(
        safetensors_bytes({"a": entry(), "b": entry(offsets=(4, 6))}, 6),
        "tensor 'b' leaves a gap before it",
        id="a hole between two",
    ),
    pytest.param(
        safetensors_bytes({"a": entry()}, 9), "is 7 B longer than its header says", id="too long"
    ),
]


@pytest.mark.parametrize(("raw", "complaint"), BAD)
def test_a_damaged_file_is_refused_with_what_is_wrong(read, raw, complaint):
    with pytest.raises(WeightsError) as caught:
        read(raw)
    assert complaint in caught.value.message
    assert "model.safetensors" in caught.value.message
    assert caught.value.remedy


def test_a_download_that_did_not_finish_is_told_by_its_length(read):
    header, size = safetensors_header({"a": ("F16", (1000, 1000))})
    with pytest.raises(WeightsError, match=r"is cut off: 1 MiB of 1\.9 MiB are there"):
        read(safetensors_bytes(header, size)[: len(json.dumps(header)) + 8 + 2**20])


def test_a_file_that_is_not_there_is_no_crash(tmp_path):
    with pytest.raises(WeightsError, match="cannot be read: No such file"):
        safetensors.read_header(tmp_path / "none")


WHOLE = safetensors_bytes(*safetensors_header(TWO))


@settings(max_examples=200, deadline=None)
@given(
    st.binary(max_size=200)
    | st.recursive(
        st.none() | st.integers() | st.text(max_size=5) | st.floats(),
        lambda inner: (
            st.lists(inner, max_size=4)
            | st.dictionaries(
                st.sampled_from(["a", "b", "dtype", "shape", "data_offsets"]), inner, max_size=4
            )
        ),
        max_leaves=12,
    ).map(safetensors_bytes)
    | st.tuples(st.integers(0, len(WHOLE)), st.binary(max_size=4)).map(
        lambda cut: WHOLE[: cut[0]] + cut[1] + WHOLE[cut[0] + len(cut[1]) :]
    )
)
def test_any_bytes_are_tensors_or_refused(tmp_path_factory, raw):
    file = tmp_path_factory.getbasetemp() / "fuzz.safetensors"
    file.write_bytes(raw)
    with contextlib.suppress(WeightsError):
        assert sum(tensor.bytes for tensor in safetensors.read_header(file).values()) <= len(raw)
