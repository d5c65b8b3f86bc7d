import contextlib
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmd.errors import WeightsError
from llmd.weights import gguf
from tests.weights.making import LLAMA, gguf_bytes, text, typed, write_gguf


HEAD = b"GGUF" + struct.pack("<I", 3)
FAR = 2**63


@pytest.fixture
def read(tmp_path):
    def read(raw: bytes):
        file = tmp_path / "model.gguf"
        file.write_bytes(raw)
        return gguf.read_header(file)

    return read


@pytest.mark.parametrize("version", [2, 3])
def test_metadata_and_tensors_are_read(tmp_path, version):
    header = gguf.read_header(
        write_gguf(
            tmp_path / "f",
            {"a": 7, "b": 0.5, "c": "x", "d": True, "e": [1, 2], "f": ["x", "y"], "g": [True]},
            {"t": ("F16", (4, 8)), "u": ("F32", (3,))},
            version=version,
        )
    )
    assert header.metadata == {"a": 7, "b": 0.5, "c": "x", "d": True, "e": (1, 2), "g": (True,)}
    assert header.lengths == {"e": 2, "f": 2, "g": 1}
    assert {name: (t.type, t.shape, t.bytes) for name, t in header.tensors.items()} == {
        "t": ("F16", (4, 8), 64),
        "u": ("F32", (3,), 12),
    }
    assert header.data_bytes == 64 + 12


def test_what_the_gguf_package_writes_is_read(tmp_path):
    package = pytest.importorskip("gguf")
    numpy = pytest.importorskip("numpy")
    writer = package.GGUFWriter(tmp_path / "f", "llama")
    writer.add_block_count(3)
    writer.add_token_list([f"token {n}" for n in range(5000)])
    data = package.quantize(numpy.zeros((4, 64), numpy.float32), package.GGMLQuantizationType.Q8_0)
    writer.add_tensor("t", data, raw_dtype=package.GGMLQuantizationType.Q8_0)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    header = gguf.read_header(tmp_path / "f")
    assert header.metadata["llama.block_count"] == 3
    assert header.lengths["tokenizer.ggml.tokens"] == 5000
    assert header.tensors["t"] == gguf.Tensor("Q8_0", (64, 4), 4 * 68)


def test_tensor_types_are_those_of_the_gguf_package():
    constants = pytest.importorskip("gguf.constants")
    theirs = {int(kind): (kind.name, *size) for kind, size in constants.GGML_QUANT_SIZES.items()}
    assert theirs.items() <= gguf.BLOCKS.items()


def test_a_large_vocabulary_is_counted_and_not_kept(tmp_path):
    file = write_gguf(tmp_path / "f", {"tokens": [f"token{n}" for n in range(200_000)]}, {})
    header = gguf.read_header(file)
    assert header.lengths == {"tokens": 200_000}
    assert header.metadata == {}


def test_strings_are_counted_over_all_arrays(tmp_path, monkeypatch):
    monkeypatch.setattr(gguf, "STRINGS_MAX", 5)
    file = write_gguf(tmp_path / "f", {"a": ["x"] * 3, "b": ["x"] * 3}, {})
    with pytest.raises(WeightsError, match="with 'b' it would have 6 strings"):
        gguf.read_header(file)


def test_texts_are_bounded_together(tmp_path, monkeypatch):
    monkeypatch.setattr(gguf, "TEXTS_MAX_BYTES", 5)
    assert gguf.read_header(write_gguf(tmp_path / "f", {"a": "xx", "b": "yyy"}, {})).metadata
    with pytest.raises(WeightsError, match="with 'b' its texts are too long"):
        gguf.read_header(write_gguf(tmp_path / "f", {"a": "xxx", "b": "yyy"}, {}))


def one_key(value: bytes) -> bytes:
    return HEAD + struct.pack("<QQ", 0, 1) + text("k") + value


BAD = [
    pytest.param(b"", "is no GGUF file (it begins with b'')", id="empty"),
    pytest.param(b"PK\x03\x04....", "is no GGUF file (it begins with b'PK", id="a zip archive"),
    pytest.param(b"GGUF" + struct.pack("<I", 1), "has GGUF version 1", id="an old version"),
    pytest.param(b"GGUF" + struct.pack(">I", 3), "is big-endian", id="from a mainframe"),
    pytest.param(HEAD, "is cut off", id="nothing after the version"),
    pytest.param(
        HEAD + struct.pack("<QQ", FAR, 0), f"would have {FAR} tensors", id="countless tensors"
    ),
    pytest.param(
        HEAD + struct.pack("<QQ", 0, FAR), f"would have {FAR} metadata keys", id="countless keys"
    ),
    pytest.param(
        HEAD + struct.pack("<QQQ", 0, 1, FAR), f"would have {FAR} bytes", id="an endless key"
    ),
    pytest.param(
        one_key(struct.pack("<I", 99)), "'k' has the unknown type 99", id="an unknown type"
    ),
    pytest.param(
        one_key(struct.pack("<IQ", 8, FAR)), f"k would have {FAR} bytes", id="an endless text"
    ),
    pytest.param(
        one_key(struct.pack("<IIQ", 9, 9, 1)), "is an array of type 9", id="an array of arrays"
    ),
    pytest.param(
        one_key(struct.pack("<IIQ", 9, 8, FAR)), f"would have {FAR} strings", id="countless strings"
    ),
    pytest.param(one_key(struct.pack("<IIQ", 9, 10, FAR)), "would have", id="countless numbers"),
    pytest.param(
        one_key(struct.pack("<IIQ", 9, 10, 2**20)), "is cut off", id="numbers that are not there"
    ),
    pytest.param(
        one_key(struct.pack("<IIQQ", 9, 8, 2, 50)), "is cut off", id="strings that are not there"
    ),
    pytest.param(
        HEAD + struct.pack("<QQ", 0, 2) + 2 * (text("k") + typed(1)),
        "'k' is there twice",
        id="a key twice",
    ),
    pytest.param(gguf_bytes({"general.alignment": 0}), "its alignment is 0", id="no alignment"),
    pytest.param(
        gguf_bytes({}, {"t": ("F16", (2**40, 2**40))}, offset=0)[:200],
        "an impossible shape",
        id="a shape larger than the world",
    ),
    pytest.param(
        gguf_bytes({}, {"t": ("F16", (4,) * 9)}, offset=0)[:200],
        "would have 9 dimensions of 't'",
        id="nine dimensions",
    ),
    pytest.param(
        gguf_bytes({}, {"t": ("F16", (64,)), "u": ("F16", (64,))}, offset=0),
        "overlaps the one before it",
        id="one upon the other",
    ),
    pytest.param(
        gguf_bytes({}, {"t": ("F16", (64,))}, offset=2**62), "is cut off", id="a tensor far outside"
    ),
    pytest.param(
        HEAD + struct.pack("<QQ", 1, 0) + text("t") + struct.pack("<IQIQ", 1, 32, 77, 0),
        "tensor 't' has type 77, which llmd does not know",
        id="a type from the future",
    ),
    pytest.param(gguf_bytes()[:-100], "the download did not finish", id="a download that stopped"),
]


@pytest.mark.parametrize(("raw", "complaint"), BAD)
def test_a_damaged_file_is_refused_with_what_is_wrong(read, raw, complaint):
    with pytest.raises(WeightsError) as caught:
        read(raw)
    assert complaint in f"{caught.value.message} {caught.value.remedy}"
    assert "model.gguf" in caught.value.message
    assert caught.value.remedy


WHOLE = gguf_bytes(LLAMA, {"a": ("F16", (8, 8)), "b": ("F32", (8,))})


@settings(max_examples=300, deadline=None)
@given(
    st.binary(max_size=100).map(lambda tail: HEAD + tail)
    | st.integers(0, len(WHOLE)).map(lambda end: WHOLE[:end])
    | st.tuples(st.integers(0, 400), st.binary(min_size=1, max_size=8)).map(
        lambda cut: WHOLE[: cut[0]] + cut[1] + WHOLE[cut[0] + len(cut[1]) :]
    )
)
def test_any_bytes_are_a_header_or_refused(tmp_path_factory, raw):
    file = tmp_path_factory.getbasetemp() / "fuzz.gguf"
    file.write_bytes(raw)
    with contextlib.suppress(WeightsError):
        assert gguf.read_header(file).data_bytes <= len(raw)
