import json
import os
from pathlib import Path

import pytest

from llmd.errors import WeightsError
from llmd.weights import locate as module
from llmd.weights.locate import locate, models_on_disk
from llmd.weights.shape import read_shape
from tests.weights.making import write_gguf, write_mlx, write_sharded_mlx


@pytest.fixture(autouse=True)
def no_cache_of_my_own(tmp_path, monkeypatch):
    """The Hugging Face cache is an empty place of the test's."""
    for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))


@pytest.fixture
def disk(tmp_path):
    """Two directories of models."""
    write_mlx(tmp_path / "one/lmstudio/Qwen3-4B-MLX-4bit")
    write_mlx(tmp_path / "one/other/Qwen3-4B-MLX-4bit-dwq")
    write_gguf(tmp_path / "two/pub/Dolphin-GGUF/Dolphin-7B-Q4_K_M.gguf")
    write_gguf(tmp_path / "two/pub/Dolphin-GGUF/mmproj-Dolphin.gguf")
    write_gguf(tmp_path / "two/pub/Many/a-Q4.gguf")
    write_gguf(tmp_path / "two/pub/Many/a-Q8.gguf")
    for number in (1, 2):
        write_gguf(tmp_path / f"two/pub/Big/Big-{number:05d}-of-00002.gguf")
    return tmp_path


def find(disk: Path, model: str, engine: str) -> str:
    found = locate(
        model, engine=engine, models_dirs=(disk / "one", disk / "two"), config_dir=disk / "one"
    )
    return str(found.relative_to(disk))


def hub(root: Path, repository: str, revision: str = "abc", *, main: bool = True) -> Path:
    """The snapshot directory of *repository* in the cache below *root*, still empty."""
    place = root / f"models--{repository.replace('/', '--')}"
    snapshot = place / "snapshots" / revision
    snapshot.mkdir(parents=True)
    if main:
        (place / "refs").mkdir(exist_ok=True)
        (place / "refs" / "main").write_text(f"{revision}\n")
    return snapshot


MLX = "one/lmstudio/Qwen3-4B-MLX-4bit"
DOLPHIN = "two/pub/Dolphin-GGUF/Dolphin-7B-Q4_K_M.gguf"
FOUND = [
    pytest.param("mlx", "lmstudio/Qwen3-4B-MLX-4bit", MLX, id="publisher and name"),
    pytest.param("mlx", "Qwen3-4B-MLX-4bit", MLX, id="the name alone"),
    pytest.param("mlx", "qwen3-4b-mlx-4BIT", MLX, id="in other letters"),
    pytest.param("mlx", "./lmstudio/Qwen3-4B-MLX-4bit", MLX, id="relative to the configuration"),
    pytest.param("mlx", "../one/lmstudio/Qwen3-4B-MLX-4bit", MLX, id="beside the configuration"),
    pytest.param("llama.cpp", "Dolphin-7B-Q4_K_M.gguf", DOLPHIN, id="a file's name"),
    pytest.param("llama.cpp", "dolphin-7b-q4_k_m", DOLPHIN, id="a file's name without its end"),
    pytest.param("llama.cpp", "pub/Dolphin-GGUF", DOLPHIN, id="the only model of a directory"),
    pytest.param("llama.cpp", "pub/Dolphin-GGUF/Dolphin-7B-Q4_K_M", DOLPHIN, id="path, no suffix"),
    pytest.param("llama.cpp", "pub/Big", "two/pub/Big/Big-00001-of-00002.gguf", id="all shards"),
    pytest.param("llama.cpp", "Big", "two/pub/Big/Big-00001-of-00002.gguf", id="shards by name"),
    pytest.param(
        "llama.cpp",
        "pub/Big/Big-00002-of-00002.gguf",
        "two/pub/Big/Big-00001-of-00002.gguf",
        id="a later shard means the first",
    ),
]


@pytest.mark.parametrize(("engine", "model", "expected"), FOUND)
def test_weights_are_found_by(disk, engine, model, expected):
    assert str(Path(os.path.normpath(find(disk, model, engine)))) == expected


def test_an_absolute_path_is_taken_as_it_is(disk):
    assert find(disk, str(disk / MLX), "mlx") == MLX


def test_the_first_directory_wins(disk):
    write_mlx(disk / "two/lmstudio/Qwen3-4B-MLX-4bit")
    assert find(disk, "lmstudio/Qwen3-4B-MLX-4bit", "mlx") == MLX


LOST = [
    pytest.param(
        "mlx",
        "lmstudio/Qwen3-4B-MLX-8bit",
        "no weights for 'lmstudio/Qwen3-4B-MLX-8bit'",
        "did you mean lmstudio/Qwen3-4B-MLX-4bit",
        id="a near miss",
    ),
    pytest.param(
        "mlx", "org/Absent", "not found in", "llmd-ctl pull org/Absent", id="a repository"
    ),
    pytest.param("mlx", "zzz", "not found in", "on disk are lmstudio/Qwen3", id="nothing like it"),
    pytest.param("mlx", "./nothing", "there is nothing at", "on disk are", id="a path to nowhere"),
    pytest.param(
        "llama.cpp",
        "./dolphin-7b",
        "there is nothing at",
        "did you mean pub/Dolphin",
        id="a path to nowhere, and a name like it",
    ),
    pytest.param(
        "llama.cpp",
        "pub/Many",
        "holds 2 GGUF models: a-Q4.gguf, a-Q8.gguf",
        "name one: `model: pub/Many/a-Q4.gguf`",
        id="a directory of several",
    ),
    pytest.param(
        "llama.cpp",
        "lmstudio/Qwen3-4B-MLX-4bit",
        "holds no GGUF file",
        "use engine mlx",
        id="MLX weights for llama.cpp",
    ),
    pytest.param(
        "mlx",
        "pub/Dolphin-GGUF",
        "is no model: it has no config.json",
        "it holds GGUF weights: use engine llama.cpp",
        id="GGUF weights for MLX",
    ),
    pytest.param(
        "mlx",
        "Dolphin-7B-Q4_K_M",
        "is a GGUF file; MLX weights are a directory",
        "use engine llama.cpp",
        id="a GGUF file for MLX",
    ),
    pytest.param(
        "mlx",
        "lmstudio",
        "is no model: it has no config.json",
        "name the model in it: Qwen3-4B-MLX-4bit",
        id="a publisher's directory",
    ),
    pytest.param(
        "mlx", "../../../etc/passwd", "there is nothing at", "on disk are", id="a way out"
    ),
]


@pytest.mark.parametrize(("engine", "model", "message", "remedy"), LOST)
def test_what_is_not_found_is_said_with_what_is(disk, engine, model, message, remedy):
    with pytest.raises(WeightsError) as caught:
        find(disk, model, engine)
    assert message in caught.value.message
    assert remedy in caught.value.remedy


def test_a_name_of_two_models_is_not_guessed(disk):
    write_gguf(disk / "one/x/same.gguf")
    write_gguf(disk / "two/y/same.gguf")
    with pytest.raises(WeightsError, match=r"may mean any of x/same\.gguf, y/same\.gguf"):
        find(disk, "same", "llama.cpp")


def test_a_link_is_no_second_model(disk):
    (disk / "two/link").symlink_to(disk / MLX)
    assert find(disk, "Qwen3-4B-MLX-4bit", "mlx") == MLX


@pytest.mark.parametrize("variable", ["HF_HOME", "HF_HUB_CACHE"])
def test_the_hugging_face_cache_is_searched_where_it_is_set_to_be(disk, monkeypatch, variable):
    root = disk / "elsewhere"
    monkeypatch.setenv(variable, str(root))
    write_mlx(hub(root / "hub" if variable == "HF_HOME" else root, "org/Name"))
    assert find(disk, "org/Name", "mlx").endswith("models--org--Name/snapshots/abc")
    assert find(disk, "name", "mlx").endswith("models--org--Name/snapshots/abc")


def test_the_cache_gives_the_revision_that_main_means(disk):
    write_mlx(hub(disk / "hf/hub", "org/Name", "new"))
    write_mlx(hub(disk / "hf/hub", "org/Name", "old", main=False))
    assert find(disk, "org/Name", "mlx").endswith("snapshots/new")


def test_the_cache_without_refs_gives_the_newest(disk):
    old = write_mlx(hub(disk / "hf/hub", "org/Name", "old", main=False))
    os.utime(old, (1, 1))
    write_mlx(hub(disk / "hf/hub", "org/Name", "new", main=False))
    assert find(disk, "org/Name", "mlx").endswith("snapshots/new")


def test_a_file_of_a_cached_repository_is_found(disk):
    snapshot = hub(disk / "hf/hub", "org/Name-GGUF")
    blob = write_gguf(disk / "hf/hub/models--org--Name-GGUF/blobs/123")
    (snapshot / "m-Q4.gguf").symlink_to(blob)
    for name in ("org/Name-GGUF", "org/Name-GGUF/m-Q4.gguf", "m-q4"):
        assert find(disk, name, "llama.cpp").endswith("snapshots/abc/m-Q4.gguf")


def test_a_reference_that_leads_out_of_the_cache_is_ignored(disk):
    snapshot = write_mlx(hub(disk / "hf/hub", "org/Name"))
    (snapshot.parents[1] / "refs/main").write_text("../../../../..")
    assert find(disk, "org/Name", "mlx").endswith("snapshots/abc")


def test_shards_that_are_missing_are_named(tmp_path):
    directory = write_sharded_mlx(tmp_path / "m", 3)
    (directory / "model-00002-of-00003.safetensors").unlink()
    with pytest.raises(WeightsError, match=r"lacks 1 of 3 files: model-00002-of-00003\.safeten"):
        find(tmp_path, str(directory), "mlx")


def test_a_shard_of_a_gguf_that_is_missing_is_named(disk):
    (disk / "two/pub/Big/Big-00002-of-00002.gguf").unlink()
    with pytest.raises(WeightsError, match=r"lacks 1 of 2 files: Big-00002-of-00002\.gguf"):
        find(disk, "pub/Big", "llama.cpp")


@pytest.mark.parametrize("odd", ["pipe", "endless name"])
def test_what_is_no_file_is_a_missing_one_and_is_not_waited_for(tmp_path, odd):
    write_mlx(tmp_path)
    if odd == "pipe":
        os.mkfifo(tmp_path / "model-2.safetensors")
    else:
        index = {"weight_map": {"a": "m" * 300}}
        (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(WeightsError, match="lacks 1 of 2 files"):
        find(tmp_path, str(tmp_path), "mlx")


def test_a_pipe_for_a_later_shard_is_not_waited_for(tmp_path):
    first = write_gguf(tmp_path / "m-00001-of-00002.gguf")
    os.mkfifo(tmp_path / "m-00002-of-00002.gguf")
    with pytest.raises(WeightsError, match="lacks 1 of 2 files"):
        find(tmp_path, str(first), "llama.cpp")


def test_a_pipe_for_a_chat_template_is_none(tmp_path):
    os.mkfifo(write_mlx(tmp_path / "m") / "chat_template.jinja")
    assert read_shape(tmp_path / "m", "mlx").architecture == "qwen3"


def test_a_broken_link_is_a_missing_file(tmp_path):
    directory = write_mlx(tmp_path / "m")
    (directory / "model.safetensors").unlink()
    (directory / "model.safetensors").symlink_to(tmp_path / "gone")
    with pytest.raises(WeightsError, match="lacks 1 of 1 files"):
        find(tmp_path, str(directory), "mlx")


def test_a_file_that_is_cut_off_is_found_out_before_the_load(tmp_path):
    directory = write_mlx(tmp_path / "m")
    raw = (directory / "model.safetensors").read_bytes()
    (directory / "model.safetensors").write_bytes(raw[:-1])
    with pytest.raises(WeightsError, match=r"model\.safetensors is cut off"):
        find(tmp_path, str(directory), "mlx")


INDEXES = [
    pytest.param('{"weight_map": {"a": "../../etc/passwd"}}', "names no files", id="a way out"),
    pytest.param('{"weight_map": []}', "names no files", id="a list"),
    pytest.param('{"weight_map": {"a": 1}}', "names no files", id="numbers for names"),
    pytest.param('{"weight_map": {"a": "\\u001b[31m"}}', "names no files", id="a colour"),
    pytest.param("[" * 100_000, "is no JSON object", id="brackets"),
    pytest.param("[]", "is no JSON object", id="no object"),
]


@pytest.mark.parametrize(("index", "message"), INDEXES)
def test_an_index_that_makes_no_sense_is_refused(tmp_path, index, message):
    directory = write_mlx(tmp_path / "m")
    (directory / "model.safetensors.index.json").write_text(index)
    with pytest.raises(WeightsError, match=message):
        find(tmp_path, str(directory), "mlx")


def test_weights_by_another_name_are_not_what_mlx_reads(tmp_path):
    directory = write_mlx(tmp_path / "m")
    (directory / "model.safetensors").rename(directory / "weights.safetensors")
    with pytest.raises(WeightsError) as caught:
        find(tmp_path, str(directory), "mlx")
    assert caught.value.remedy == "rename its only .safetensors file to model.safetensors"


def test_everything_on_disk_is_listed_once(disk):
    write_mlx(hub(disk / "hf/hub", "org/Name"))
    names = [name for name, _ in models_on_disk((disk / "one", disk / "two"))]
    assert sorted(names) == [
        "lmstudio/Qwen3-4B-MLX-4bit",
        "org/Name",
        "other/Qwen3-4B-MLX-4bit-dwq",
        "pub/Big/Big-00001-of-00002.gguf",
        "pub/Dolphin-GGUF/Dolphin-7B-Q4_K_M.gguf",
        "pub/Many/a-Q4.gguf",
        "pub/Many/a-Q8.gguf",
    ]


def test_a_huge_directory_is_not_walked_to_its_end(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "WALK_MAX_ENTRIES", 50)
    for number in range(200):
        (tmp_path / f"d{number:03}").mkdir()
    write_gguf(tmp_path / "d199/last.gguf")
    assert list(models_on_disk((tmp_path,))) == []


def test_a_loop_of_links_comes_to_an_end(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a/again").symlink_to(tmp_path)
    write_gguf(tmp_path / "a/m.gguf")
    assert "a/m.gguf" in [name for name, _ in models_on_disk((tmp_path,))]


def test_directories_that_are_not_there_are_passed_over(tmp_path):
    assert list(models_on_disk((tmp_path / "none",))) == []
