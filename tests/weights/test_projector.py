"""What a projector takes to encode a picture, by what its file says.

The measured rows are from a live llama.cpp host on Linux x86-64 (xllamacpp 2026.10): the peak after
a first picture, less the same without a projector and the file's own bytes, in MiB.
"""

import gguf
import pytest

from llmd.weights.projector import PROJECTOR_COMPUTE_BYTES, projector_compute_bytes
from tests.projector import write_projector


MIB = 2**20


def metadata(path, kind="mlp", **numbers):
    writer = gguf.GGUFWriter(path, "clip")
    writer.add_string("clip.projector_type", kind)
    for key, value in numbers.items():
        writer.add_uint32(f"clip.vision.{key}", value)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def sizes(side, width, inner, patch=14):
    return {
        "image_size": side, "patch_size": patch, "embedding_length": width,
        "feed_forward_length": inner,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("side", "width", "inner", "measured_mib"),
    [
        pytest.param(336, 64, 128, 17, id="narrow"),
        pytest.param(336, 512, 2048, 31, id="a wide feed-forward part"),
        pytest.param(336, 512, 512, 26, id="none wider than the rest"),
        pytest.param(336, 768, 1024, 39, id="wide"),
        pytest.param(448, 256, 4096, 44, id="a very wide feed-forward part"),
        pytest.param(672, 256, 1024, 62, id="a large picture"),
    ],
)
def test_estimate_is_near_what_was_measured(tmp_path, side, width, inner, measured_mib):
    file = metadata(tmp_path / "mmproj.gguf", **sizes(side, width, inner))
    assert abs(projector_compute_bytes(file) / MIB - measured_mib) <= 10


def test_large_pictures_of_a_real_encoder(tmp_path):
    """Gemma 3's: 896 pixels, 1152 numbers a patch."""
    file = metadata(tmp_path / "mmproj.gguf", "gemma3", **sizes(896, 1152, 4304))
    assert 120 * MIB < projector_compute_bytes(file) < 200 * MIB


def test_pictures_of_any_size_are_charged_the_guess_at_least(tmp_path):
    small = metadata(tmp_path / "a.gguf", "qwen2vl_merger", **sizes(336, 64, 128))
    large = metadata(tmp_path / "b.gguf", "qwen2vl_merger", **sizes(1288, 1280, 3420))
    assert projector_compute_bytes(small) == PROJECTOR_COMPUTE_BYTES
    assert projector_compute_bytes(large) > PROJECTOR_COMPUTE_BYTES


@pytest.mark.parametrize(
    "numbers",
    [
        pytest.param({}, id="a projector for sound"),
        pytest.param(sizes(0, 64, 64), id="no size"),
        pytest.param(sizes(2**31, 64, 64), id="a size beyond belief"),
    ],
)
def test_file_that_does_not_tell_is_charged_the_guess(tmp_path, numbers):
    file = metadata(tmp_path / "mmproj.gguf", **numbers)
    assert projector_compute_bytes(file) == PROJECTOR_COMPUTE_BYTES


def test_damaged_file_is_charged_the_guess(tmp_path):
    file = tmp_path / "mmproj.gguf"
    write_projector(file, 128)
    file.write_bytes(file.read_bytes()[:200])
    assert projector_compute_bytes(file) == PROJECTOR_COMPUTE_BYTES
