"""Which models are found, by what name, and that nothing on the way can stop the search."""

import json
from pathlib import Path

import pytest

from llmd.core.shape import ModelShape
from llmd.weights import shape as shapes
from llmd.weights.discover import discover, named
from llmd.weights.remembered import Shapes
from tests.weights.making import write_gguf, write_mlx, write_sharded_mlx


@pytest.fixture(autouse=True)
def hub(tmp_path, monkeypatch):
    """An empty Hugging Face cache."""
    for name in ("HF_HOME", "HUGGINGFACE_HUB_CACHE", "OLLAMA_MODELS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    return tmp_path / "hub"


@pytest.fixture
def models(tmp_path):
    return tmp_path / "models"


def names_in(*roots, **environ):
    return [weights.name for weights in discover(roots, environ or {"HOME": "/nowhere"})]


def in_hub(hub, repository, files, revision="abc"):
    """A repository in the cache: blobs, links to them, and the branch."""
    root = hub / f"models--{repository.replace('/', '--')}"
    (root / "refs").mkdir(parents=True)
    (root / "refs" / "main").write_text(revision)
    for name, source in files.items():
        blob = root / "blobs" / f"{len(name):064x}"
        blob.parent.mkdir(exist_ok=True)
        blob.write_bytes(source.read_bytes())
        link = root / "snapshots" / revision / name
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(blob)
    return root


def test_mlx_directories_and_gguf_files_are_found_by_their_names_below_the_folder(models):
    write_mlx(models / "publisher" / "Big-4bit")
    write_gguf(models / "publisher" / "Small-GGUF" / "Small-Q8_0.gguf")
    (models / "notes.txt").write_text("no model")
    big, small = discover([models], {"HOME": "/nowhere"})
    assert (big.name, big.model, big.format) == (
        "publisher/Big-4bit", "publisher/Big-4bit", "mlx",
    )  # fmt: skip
    assert (small.name, small.format) == ("publisher/Small-GGUF/Small-Q8_0.gguf", "gguf")
    assert big.size_bytes == sum(file.stat().st_size for file in big.path.iterdir())


def test_shards_are_one_model_and_projectors_belong_to_it(models):
    first = write_gguf(models / "m" / "Big-00001-of-00002.gguf")
    second = write_gguf(models / "m" / "Big-00002-of-00002.gguf")
    eyes = write_gguf(models / "m" / "mmproj-Big-f16.gguf")
    [big] = discover([models], {"HOME": "/nowhere"})
    assert (big.path, big.projectors) == (first, (eyes,))
    assert big.size_bytes == sum(file.stat().st_size for file in (first, second, eyes))


def test_missing_first_shard_is_a_model_that_says_what_it_lacks(models, tmp_path):
    write_gguf(models / "Big-00002-of-00002.gguf")
    [big] = discover([models], {"HOME": "/nowhere"})
    with pytest.raises(Exception, match="lacks 1 of 2 files: Big-00001-of-00002"):
        Shapes(tmp_path / "shapes").read(big.path, "llama.cpp")


@pytest.mark.parametrize("ending", [".incomplete", ".part"])
def test_download_that_has_not_ended_is_said_to_be_unfinished(models, ending):
    (models / "m").mkdir(parents=True)
    (models / "m" / f"Big.gguf{ending}").write_bytes(b"GGUF half")
    directory = write_mlx(models / "n")
    (directory / f"model-2.safetensors{ending}").write_bytes(b"half")
    big, other = sorted(discover([models], {"HOME": "/nowhere"}), key=lambda w: w.name)
    assert (big.name, big.size_bytes, big.partial_bytes) == (f"m/Big.gguf{ending}", 0, 9)
    assert (other.name, other.partial_bytes) == ("n", 4)


def test_what_is_there_twice_through_links_is_listed_once(models, hub, tmp_path):
    real = write_gguf(tmp_path / "elsewhere" / "Big.gguf")
    in_hub(hub, "org/Big", {"Big.gguf": real})
    models.mkdir()
    (models / "first.gguf").symlink_to(next((hub / "models--org--Big" / "blobs").iterdir()))
    (models / "second.gguf").symlink_to(models / "first.gguf")
    assert names_in(models) == ["first.gguf"]


def test_links_in_circles_end_the_search_nowhere(models):
    write_mlx(models / "a" / "model")
    (models / "a" / "up").symlink_to(models)
    (models / "a" / "self").symlink_to(models / "a" / "self")
    (models / "a" / "b.gguf").symlink_to(models / "a" / "b.gguf")
    write_gguf(models / "z" / "z" / "z" / "last.gguf")
    # Each entry is looked at once: going round in circles would use the bound up.
    found = discover([models], {"HOME": "/nowhere"}, entries_max=14)
    assert [weights.name for weights in found][-1] == "z/z/z/last.gguf"
    assert "a/model" in [weights.name for weights in found]


def test_search_is_bounded(models):
    for number in range(30):
        write_gguf(models / f"{number:02d}" / "m.gguf")
    found = discover([models], {"HOME": "/nowhere"}, entries_max=35)
    assert [weights.name for weights in found] == [f"{number:02d}/m.gguf" for number in range(5)]


def test_unreadable_directory_hides_only_itself(models, tmp_path):
    write_gguf(models / "m.gguf")
    assert names_in(tmp_path / "nowhere", models) == ["m.gguf"]


def test_hugging_face_cache_is_searched_through_its_links(hub, tmp_path):
    model = write_mlx(tmp_path / "source")
    in_hub(hub, "org/Model-4bit", {file.name: file for file in model.iterdir()})
    in_hub(hub, "org/Other-GGUF", {"Q4/m.gguf": write_gguf(tmp_path / "m.gguf")})
    assert names_in() == ["org/Model-4bit", "org/Other-GGUF/Q4/m.gguf"]


def test_repository_whose_download_has_not_ended_is_one_unfinished_model(hub):
    blobs = hub / "models--org--Model" / "blobs"
    blobs.mkdir(parents=True)
    (blobs / "abc.incomplete").write_bytes(b"12345")
    [model] = discover([], {"HOME": "/nowhere"})
    assert (model.name, model.partial_bytes) == ("org/Model", 5)


def test_lm_studios_folders_are_found_old_moved_and_new(tmp_path):
    home = tmp_path / "home"
    write_gguf(home / ".lmstudio" / "models" / "a" / "new.gguf")
    write_gguf(home / ".cache" / "lm-studio" / "models" / "a" / "old.gguf")
    moved = write_gguf(tmp_path / "volume" / "models" / "a" / "moved.gguf")
    (home / ".lmstudio-home-pointer").write_text(f"{tmp_path / 'volume'}\n")
    found = {weights.name: weights for weights in discover([], {"HOME": str(home)})}
    assert set(found) == {"a/new.gguf", "a/moved.gguf", "a/old.gguf"}
    assert found["a/moved.gguf"].model == str(moved)  # a profile cannot use the name


def test_models_dir_of_the_configuration_is_looked_up_by_name_though_it_is_lm_studios(tmp_path):
    root = tmp_path / "home" / ".lmstudio" / "models"
    write_gguf(root / "a" / "new.gguf")
    [new] = discover([root], {"HOME": str(tmp_path / "home")})
    assert new.model == "a/new.gguf"


def test_ollamas_blobs_are_found_by_the_names_it_uses(tmp_path):
    store = tmp_path / "ollama"
    digest = "ab" * 32
    blob = write_gguf(store / "blobs" / f"sha256-{digest}")
    manifest = store / "manifests" / "registry.ollama.ai" / "library" / "llama3" / "8b"
    manifest.parent.mkdir(parents=True)
    layer = {"mediaType": "application/vnd.ollama.image.model", "digest": f"sha256:{digest}"}
    manifest.write_text(json.dumps({"layers": [{"mediaType": "x"}, layer]}))
    (manifest.parent / "bad").write_text("{")
    evil = {**layer, "digest": "sha256:../../../etc/passwd"}
    (manifest.parent / "evil").write_text(json.dumps({"layers": [evil]}))
    [model] = discover([], {"HOME": "/nowhere", "OLLAMA_MODELS": str(store)})
    assert (model.name, model.model) == ("ollama/llama3:8b", str(blob))


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        pytest.param("org/Big-GGUF/Big-Q4_K_M.gguf", ["Big-Q4_K_M"], id="whole name"),
        pytest.param("big-q4_k_m", ["Big-Q4_K_M"], id="file name, any case, no ending"),
        pytest.param("Big-GGUF", ["Big-Q4_K_M", "Big-Q8_0"], id="a directory of two"),
        pytest.param("Split", ["Split-00001-of-00001"], id="without the number of the shard"),
        pytest.param("Big", [], id="a part of a name is none"),
    ],
)
def test_names_mean_what_profiles_mean_by_them(models, wanted, expected):
    for name in ("Big-GGUF/Big-Q4_K_M", "Big-GGUF/Big-Q8_0", "Split-GGUF/Split-00001-of-00001"):
        write_gguf(models / "org" / f"{name}.gguf")
    found = discover([models], {"HOME": "/nowhere"})
    assert [weights.path.stem for weights in named(wanted, found)] == expected


def test_name_that_is_there_twice_means_the_first_as_it_does_in_a_profile(models, hub, tmp_path):
    here = write_mlx(models / "org" / "Model")
    in_hub(hub, "org/Model", {file.name: file for file in write_mlx(tmp_path / "m").iterdir()})
    found = discover([models], {"HOME": "/nowhere"})
    assert len(found) == 2
    assert [weights.path for weights in named("org/Model", found)] == [here]


def test_path_means_the_model_there(models):
    path = write_gguf(models / "org" / "Big.gguf")
    found = discover([models], {"HOME": "/nowhere"})
    assert [weights.path for weights in named(str(path), found)] == [path]
    assert [weights.path for weights in named(str(path.parent), found)] == [path]


# --- remembered shapes ---------------------------------------------------------------------------


def test_shape_is_read_once_and_again_when_its_file_changes(models, tmp_path, monkeypatch):
    model, read = write_gguf(models / "m.gguf"), []
    monkeypatch.setattr(
        "llmd.weights.remembered.read_shape",
        lambda path, engine: read.append(path) or shapes.read_shape(path, engine),
    )

    def once() -> ModelShape:
        remembered = Shapes(tmp_path / "cache" / "shapes.json")
        shape = remembered.read(model, "llama.cpp")
        remembered.save()
        return shape

    assert once() == once()
    assert read == [model]
    write_gguf(model, tensors={"token_embd.weight": ("F16", (64, 200))})
    assert once().vocab == 200


@pytest.mark.parametrize("content", [b"", b"\xff{", b'{"version": "x", "shapes": {"a": 1}}'])
def test_damaged_memory_is_forgotten(models, tmp_path, content):
    (tmp_path / "shapes.json").write_bytes(content)
    model = write_gguf(models / "m.gguf")
    assert Shapes(tmp_path / "shapes.json").read(model, "llama.cpp").architecture == "llama"


def test_memory_that_cannot_be_written_is_no_failure(models):
    remembered = Shapes(Path("/proc/nowhere/shapes.json"))
    remembered.read(write_mlx(models / "m"), "mlx")
    remembered.save()


def test_sharded_mlx_model_lists_what_it_lacks(models, tmp_path):
    directory = write_sharded_mlx(models / "m", 3)
    (directory / "model-00002-of-00003.safetensors").unlink()
    [model] = discover([models], {"HOME": "/nowhere"})
    with pytest.raises(Exception, match="lacks 1 of 3 files"):
        Shapes(tmp_path / "shapes").read(model.path, "mlx")
