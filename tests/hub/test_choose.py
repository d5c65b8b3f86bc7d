"""Which files of a repository are taken, and which quantization for which budget."""

import pytest

from llmd.hub.choose import choices, named, right_one
from llmd.hub.failures import DownloadError
from llmd.hub.listing import RemoteFile, Repository


GIB = 2**30

# As repositories of a 7B and of a 32B model have them, in GiB.
SMALL = {
    "Q2_K": 2.8,
    "Q3_K_M": 3.5,
    "Q4_K_M": 4.4,
    "Q5_K_M": 5.1,
    "Q6_K": 5.8,
    "Q8_0": 7.5,
    "F16": 14,
}
LARGE = {"IQ2_XS": 9, "Q3_K_M": 15, "Q4_K_M": 18.5, "Q6_K": 25, "Q8_0": 32.4}


def repository(*paths, size_bytes=GIB):
    files = tuple(RemoteFile(path, size_bytes, "0" * 64) for path in paths)
    return Repository("org/m", "0" * 40, files, "http://hub")


def offered(sizes):
    files = tuple(
        RemoteFile(f"m-{label}.gguf", int(gib * GIB), "0" * 64) for label, gib in sizes.items()
    )
    return choices(Repository("org/m", "0" * 40, files, "http://hub"))


@pytest.mark.parametrize(
    ("sizes", "budget_gib", "label"),
    [
        pytest.param(SMALL, 48, "Q8_0", id="small beside the budget: the finest"),
        pytest.param(SMALL, 30, "Q6_K", id="not quite so small"),
        pytest.param(SMALL, 12, "Q4_K_M", id="the usual one"),
        pytest.param(SMALL, 5, "Q3_K_M", id="the largest that fits"),
        pytest.param(LARGE, 48, "Q4_K_M", id="large: the usual one"),
        pytest.param(LARGE, 20, "Q3_K_M", id="large, little room"),
        pytest.param({"F16": 1}, 48, "F16", id="nothing but full precision"),
        pytest.param({"UD-Q4_K_XL": 18, "Q4_0": 17}, 48, "UD-Q4_K_XL", id="names of others"),
    ],
)
def test_quantization_suits_the_budget(sizes, budget_gib, label):
    choice, why = right_one(offered(sizes), budget_gib * GIB, "org/m")
    assert choice.label == label
    assert f"{budget_gib} GiB" in why


def test_nothing_that_fits_is_refused_with_the_smallest():
    with pytest.raises(DownloadError, match="too large: IQ2_XS, its smallest, would need") as error:
        right_one(offered(LARGE), 8 * GIB, "org/m")
    assert error.value.remedy.endswith("org/m:IQ2_XS")


@pytest.mark.parametrize(
    ("path", "label"),
    [
        ("Qwen3-32B-Q4_K_M.gguf", "Q4_K_M"),
        ("Qwen3-32B-UD-Q4_K_XL.gguf", "UD-Q4_K_XL"),
        ("qwen3.q8_0.gguf", "Q8_0"),
        ("BF16/model-00001-of-00003.gguf", "BF16"),
        ("gpt-oss-20b-mxfp4.gguf", "MXFP4"),
        ("Meta-Q7-Llama.IQ3_XXS.GGUF", "IQ3_XXS"),
        ("plain.gguf", "plain"),
    ],
)
def test_quantization_is_read_off_the_name(path, label):
    [choice] = choices(repository(path))
    assert choice.label == label


def test_projectors_and_matrices_of_importance_are_no_models():
    [choice] = choices(repository("m-Q8_0.gguf", "mmproj-F16.gguf", "m.imatrix.gguf"))
    assert choice.label == "Q8_0"


@pytest.mark.parametrize(
    ("projectors", "taken"),
    [
        pytest.param(["mmproj-F32.gguf", "mmproj-BF16.gguf"], "mmproj-BF16.gguf", id="16 bits do"),
        pytest.param(["m-mmproj-f16.gguf", "mmproj-Q8_0.gguf"], "m-mmproj-f16.gguf", id="not less"),
        pytest.param(["mmproj-Q4_0.gguf", "mmproj.gguf"], "mmproj-Q4_0.gguf", id="whatever it has"),
        pytest.param([], None, id="none"),
    ],
)
def test_projector_comes_along_in_the_best_precision(projectors, taken):
    found = repository("m-Q8_0.gguf", "m-Q4_0.gguf", *projectors)
    for choice in choices(found):
        assert (choice.projector.name if choice.projector else None) == taken
        assert choice.size_bytes == (2 if taken else 1) * GIB
    assert all(choice.projector is None for choice in choices(found, projectors=False))


def test_several_of_one_quantization_must_be_named_by_their_files():
    found = choices(repository("m-7b-Q8_0.gguf", "m-13b-Q8_0.gguf"))
    with pytest.raises(DownloadError, match="org/m has several of q8_0: m-13b"):
        named(found, "q8_0", "org/m")
    assert named(found, "m-7b-Q8_0.gguf", "org/m").files[0].path == "m-7b-Q8_0.gguf"


def test_mlx_weights_need_all_but_what_others_read():
    wanted = {"config.json", "tokenizer.json", "chat_template.jinja", "tokenizer.model",
              "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors",
              "model.safetensors.index.json", "merges.txt"}  # fmt: skip
    other = {"README.md", "consolidated.safetensors", "onnx/model.onnx", "original/a.json", "x.py"}
    [choice] = choices(repository(*wanted, *other))
    assert {file.path for file in choice.files} == wanted
    assert choice.label == "mlx"


def test_mlx_weights_come_before_gguf_files_of_the_same_repository():
    found = choices(repository("config.json", "model.safetensors", "m-Q8_0.gguf"))
    assert right_one(found, 48 * GIB, "org/m")[0].label == "mlx"
