"""`llmd-ctl config`: without a daemon."""

import json
import stat

import pytest
import yaml


GOOD = """\
budget: 8GiB
api_keys: [sesame]
profiles:
  raw: {engine: llama.cpp, model: raw.gguf, port: 8083}
  more: {engine: llama.cpp, model: more.gguf, port: 8083}
"""


@pytest.fixture
def file(short_dir):
    return short_dir / "llmd.yaml"


def test_path_is_where_the_file_is_looked_for(ctl, file, short_dir):
    assert ctl("config", "path").stdout == f"{file}\n"
    assert ctl("config", "path", "--config", "/etc/other.yaml").stdout == "/etc/other.yaml\n"
    assert json.loads(ctl("--json", "config", "path").stdout) == {
        "path": str(file),
        "exists": False,
    }


def test_good_file_is_valid(ctl, file):
    file.write_text(GOOD)
    assert ctl("config", "check").stdout == f"{file} is valid: 2 profiles on 1 port\n"
    assert json.loads(ctl("config", "check", str(file), "--json").stdout) == {
        "path": str(file),
        "valid": True,
        "profiles": ["raw", "more"],
    }


def test_bad_file_is_told_line_by_line(ctl, file):
    file.write_text(GOOD.replace("budget", "budgte").replace("port: 8083", "port: 99999", 1))
    done = ctl("config", "check")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("llmd-ctl: ")
    assert "budgte" in done.stderr
    assert "99999" in done.stderr
    error = json.loads(ctl("config", "check", "--json").stdout)["error"]
    assert error["code"] == "config_invalid"


def test_missing_file_says_how_to_begin(ctl, file):
    done = ctl("config", "check")
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert "llmd-ctl config init" in done.stderr


def test_show_is_complete_and_hides_keys(ctl, file):
    file.write_text(GOOD)
    shown = yaml.safe_load(ctl("config", "show").stdout)
    assert shown["profiles"]["raw"]["parallel"] == 2
    assert json.loads(ctl("config", "show", "--json").stdout) == shown
    assert "sesame" not in json.dumps(shown)


def test_schema_is_json_schema(ctl):
    schema = json.loads(ctl("config", "schema").stdout)
    assert "profiles" in schema["properties"]


def test_init_writes_a_private_file_that_is_valid(ctl, file, short_dir):
    target = short_dir / "new" / "llmd.yaml"
    done = ctl("config", "init", "--config", str(target))
    assert done.stdout == f"wrote {target}; edit it, then `llmd-ctl config check`\n"
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    assert stat.S_IMODE(target.parent.stat().st_mode) == 0o700
    assert ctl("config", "check", str(target)).returncode == 0


def test_init_replaces_nothing_unless_forced(ctl, file):
    file.write_text("precious")
    done = ctl("config", "init")
    assert done.returncode == 1
    assert done.stderr == (
        f"llmd-ctl: {file} is there already; llmd-ctl config check reads it; --force replaces it\n"
    )
    assert file.read_text() == "precious"
    assert ctl("config", "init", "--force").returncode == 0
    assert file.read_text() != "precious"
