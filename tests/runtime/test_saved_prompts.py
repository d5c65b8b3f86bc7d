"""Where saved prompts are, and what is deleted of them."""

import os
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from llmd.config.models import Config
from llmd.engines.recipe import Installed, Stamp
from llmd.runtime import catalogue, saved_prompts
from llmd.runtime.catalogue import Catalogue
from llmd.runtime.learned import Learned
from llmd.runtime.saved_prompts import FREE_MIN_BYTES, KEPT_S, directory_of, room_bytes, tidy


GIB = 2**30
STAMPS = (Stamp("/models/m", 100, 1),)


@pytest.fixture(autouse=True)
def prompts(tmp_path, monkeypatch):
    monkeypatch.setenv("LLMD_CACHE_DIR", str(tmp_path))
    return tmp_path / "prompts"


def profile(**more):
    fields = {"engine": "mlx", "model": "m", "port": 8081, **more}
    return Config(profiles={"code": fields}).profiles["code"]


def test_directory_is_that_of_one_profile_and_one_state_of_its_weights(prompts):
    place = directory_of(profile(), STAMPS, context=4096)
    assert place.parent == prompts
    assert place.name.startswith("code-")
    same = profile(port=8082, idle_ttl="5m", parallel=4, prompt_cache="1GiB", pinned=True)
    assert directory_of(same, STAMPS, context=4096) == place
    others = [
        directory_of(profile(args=["--kv-bits", "8"]), STAMPS, context=4096),
        directory_of(profile(adapters="/a"), STAMPS, context=4096),
        directory_of(profile(env={"A": "1"}), STAMPS, context=4096),
        directory_of(profile(), STAMPS, context=8192),
        directory_of(profile(), (Stamp("/models/m", 100, 2),), context=4096),
        directory_of(profile(), (*STAMPS, Stamp("/bin/llama-server", 1)), context=4096),
    ]
    assert len({place, *others}) == 7


@pytest.fixture
def place(demo_models, monkeypatch, tmp_path):
    """Where the prompts of a GGUF profile are to be, run by `llama-server`; None when nowhere."""
    server = tmp_path / "llama-server"

    def place(program, **more):
        server.write_text(program)
        installed = Installed(llama_server=server)
        monkeypatch.setattr(catalogue, "find_installed", lambda: installed)
        raw = {"engine": "llama.cpp", "model": str(demo_models / "tiny-f16.gguf"), "port": 8083}
        built = Catalogue.build(Config(profiles={"raw": raw}, **more), Learned(tmp_path / "l"))
        options = built["raw"].launch.options
        assert built["raw"].saves_prompts is ("saved_prompts_dir" in options)
        return options.get("saved_prompts_dir")

    return place


def test_another_server_begins_anew(place, prompts):
    first = place("version 1")
    assert Path(first).parent == prompts
    assert place("version 10") != first


def test_nothing_is_read_either_where_none_are_wanted(place):
    assert place("version 1", saved_prompts=0) is None


@pytest.mark.parametrize(
    ("free", "room"),
    [(100 * GIB, 8 * GIB), (FREE_MIN_BYTES + GIB, GIB), (FREE_MIN_BYTES - 1, 0)],
)
def test_room_is_what_the_user_allows_and_the_disk_can_spare(monkeypatch, free, room):
    monkeypatch.setattr(saved_prompts.shutil, "disk_usage", lambda _: SimpleNamespace(free=free))
    assert room_bytes(8 * GIB) == room


def test_disk_that_cannot_be_asked_has_no_room(monkeypatch):
    def fail(_):
        raise OSError("gone")

    monkeypatch.setattr(saved_prompts.shutil, "disk_usage", fail)
    assert room_bytes(8 * GIB) == 0


def write(prompts, **files):
    """Files of 1,000 bytes by name, with the age of each in seconds."""
    for name, age_s in files.items():
        file = prompts / f"{name}-1" / "mlx_lm-1" / f"{name}.safetensors"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"x" * 1000)
        used_s = time.time() - age_s
        os.utime(file, (used_s, used_s))


def left(prompts):
    return {file.stem for file in prompts.rglob("*.safetensors")}


@pytest.mark.parametrize(
    ("limit_bytes", "expected"),
    [(3000, {"a", "b", "c"}), (2999, {"a", "b"}), (1000, {"a"}), (0, set())],
)
def test_what_was_not_used_for_longest_goes_first(prompts, limit_bytes, expected):
    write(prompts, c=30, a=10, b=20)
    tidy(limit_bytes)
    assert left(prompts) == expected
    assert {each.name for each in prompts.glob("*")} == {f"{name}-1" for name in expected}


def test_what_is_old_goes_whatever_room_there_is(prompts):
    write(prompts, a=KEPT_S - 60, b=KEPT_S + 60)
    tidy(GIB)
    assert left(prompts) == {"a"}


def test_nothing_saved_is_nothing_to_do(prompts):
    tidy(GIB)
    assert not prompts.exists()


def test_what_a_link_leads_to_is_left_alone(prompts, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "mine").write_text("x" * 1000)
    prompts.mkdir()
    Path(prompts / "link").symlink_to(elsewhere)
    Path(prompts / "file").symlink_to(elsewhere / "mine")
    tidy(0)
    assert (elsewhere / "mine").exists()
