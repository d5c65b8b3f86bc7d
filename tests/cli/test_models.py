"""`llmd-ctl models`: what is on disk, without a daemon, whatever is wrong with it."""

import json

import pytest

from llmd.cli.main import run
from tests.weights.making import write_gguf


pytestmark = pytest.mark.usefixtures("home")


def listed(capsys, *args):
    assert run(["models", "--json", *args]) == 0
    return {row["name"]: row for row in json.loads(capsys.readouterr().out)["models"]}


def test_models_are_listed_with_what_they_are_and_who_uses_them(capsys):
    assert run(["models"]) == 0
    head, coder, raw = capsys.readouterr().out.splitlines()
    assert head.split() == [
        "name", "type", "quant", "params", "context", "on", "disk", "needs", "profiles",
    ]  # fmt: skip
    assert coder.split()[:3] == ["org/Coder-4bit", "qwen3", "f16"]
    assert coder.endswith("code, twin")
    assert raw.split()[:5] == ["org/Raw-GGUF/Raw-F16.gguf", "llama", "F16", "6.4K", "4096"]
    assert raw.endswith("raw")


def test_json_has_every_number(capsys):
    row = listed(capsys)["org/Coder-4bit"]
    assert (row["architecture"], row["trained_context"], row["parallel"]) == ("qwen3", 4096, 2)
    assert row["footprint_bytes"] == sum(row["footprint"].values())
    assert (row["profiles"], row["error"]) == (["code", "twin"], None)


def test_footprint_is_of_the_context_and_the_sequences_asked_for(capsys):
    def cache_bytes(*args):
        return listed(capsys, *args)["org/Coder-4bit"]["footprint"]["cache_bytes"]

    once = cache_bytes("--context", "1024", "--parallel", "1")
    assert cache_bytes("--context", "4096", "--parallel", "1") == 4 * once
    assert cache_bytes("--context", "1024", "--parallel", "3") == 3 * once


def test_malformed_file_is_a_row_with_its_error(home, capsys):
    (home / "models" / "bad.gguf").write_bytes(b"no model at all")
    (home / "models" / "\x1b[31mevil.gguf").write_bytes(b"GGUF")
    assert run(["models"]) == 0
    out = capsys.readouterr().out
    assert "bad.gguf is no GGUF file (it begins with b'no m'); llama.cpp needs GGUF" in out
    assert "\x1b" not in out
    rows = listed(capsys)
    assert rows["bad.gguf"]["error"]
    assert rows["org/Coder-4bit"]["error"] is None


def test_unfinished_download_is_shown_as_such(home, capsys):
    (home / "models" / "New-Q8_0.gguf.part").write_bytes(bytes(4096))
    blobs = home / "hub" / "models--org--Model" / "blobs"
    blobs.mkdir(parents=True)
    (blobs / "abc.incomplete").write_bytes(bytes(2048))
    assert run(["models"]) == 0
    out = capsys.readouterr().out
    assert "New-Q8_0.gguf.part: its download has not ended; resume it with" in out
    assert "org/Model: its download has not ended; llmd-ctl pull org/Model\n" in out
    assert out.count("unfinished") == 2


def test_name_narrows_the_list_and_the_only_one_is_described(capsys):
    assert run(["models", "raw"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("org/Raw-GGUF/Raw-F16.gguf\n")
    assert "trained for 4096 tokens" in out
    assert "weights 12.5 KiB, cache" in out
    assert out.endswith("profiles: raw\n")


def test_projectors_are_told_with_their_model(home, capsys):
    write_gguf(home / "models" / "org" / "Raw-GGUF" / "mmproj-Raw.gguf")
    assert run(["models", "raw"]) == 0
    assert "  projectors: mmproj-Raw.gguf\n" in capsys.readouterr().out


def test_nothing_found_is_a_failure_that_says_where_was_looked(home, capsys):
    assert run(["models", "nothing-like-it"]) == 1
    assert "no model on disk has 'nothing-like-it' in its name" in capsys.readouterr().err
    (home / "llmd.yaml").write_text("models_dirs: [/nowhere]\nprofiles: {a: {engine: mlx, "
                                    "model: m, port: 8081}}\n")  # fmt: skip
    assert run(["models"]) == 1
    assert "there are no models in /nowhere, nor in the" in capsys.readouterr().err
    assert run(["models", "--json"]) == 0


def test_bad_configuration_is_told_and_the_usual_folders_are_searched(home, capsys):
    write_gguf(home / ".lmstudio" / "models" / "a" / "m.gguf")
    (home / "llmd.yaml").write_text("profiles: 1")
    assert run(["models"]) == 0
    said = capsys.readouterr()
    assert "a/m.gguf" in said.out
    assert said.err.endswith("has 1 problem; going on without it: llmd-ctl config check\n")
    assert run(["models", "--config", "/nowhere.yaml"]) == 1


def test_hundreds_of_models_are_listed_and_read_once(home, capsys, monkeypatch):
    for number in range(300):
        write_gguf(home / "models" / "many" / f"m{number}.gguf")
    assert len(listed(capsys)) == 302
    monkeypatch.setattr("llmd.weights.remembered.read_shape", lambda *_: pytest.fail("read again"))
    assert len(listed(capsys)) == 302
