"""A profile is added to a file of which every other byte stays as it was."""

import os
from pathlib import Path

import pytest

from llmd.config.edit import with_profile
from llmd.config.load import example_text, load_config
from llmd.errors import ConfigError


FIELDS = {"engine": "llama.cpp", "model": "org/New-GGUF/New-Q4_K_M.gguf", "port": 8099}
LINES = ["new:", "  engine: llama.cpp", "  model: org/New-GGUF/New-Q4_K_M.gguf", "  port: 8099"]


@pytest.fixture
def file(tmp_path):
    return tmp_path / "llmd.yaml"


def add(file, text, name="new", **fields):
    """*text* with a profile added, as it is in the file afterwards."""
    file.write_bytes(text.encode() if isinstance(text, str) else text)
    with_profile(file, name, FIELDS | fields).write()
    return file.read_bytes().decode()


def without(text, lines):
    """*text* without *lines*, which must be in it one after the other."""
    assert lines in text
    return text.replace(lines, "", 1)


ONE = "profiles:\n  a: {engine: mlx, model: m, port: 8081}\n"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param(ONE, ONE + "".join(f"  {line}\n" for line in LINES), id="after the last"),
        pytest.param(
            ONE.rstrip(), ONE + "".join(f"  {line}\n" for line in LINES), id="no line end"
        ),
        pytest.param(
            ONE.replace("\n", "\r\n"),
            ONE.replace("\n", "\r\n") + "".join(f"  {line}\r\n" for line in LINES),
            id="Windows line ends",
        ),
        pytest.param(
            "\ufeff" + ONE, "\ufeff" + ONE + "".join(f"  {line}\n" for line in LINES), id="BOM"
        ),
        pytest.param(
            ONE + "    # of a\n\n  # of nobody\nbudget: 8GiB  # all\n",
            ONE + "    # of a\n" + "".join(f"  {line}\n" for line in LINES)
            + "\n  # of nobody\nbudget: 8GiB  # all\n",
            id="before what comes after, behind comments of the last",
        ),
        pytest.param(
            "profiles:\n   a:\n      engine: mlx\n      model: m\n      port: 8081\n",
            "profiles:\n   a:\n      engine: mlx\n      model: m\n      port: 8081\n   new:\n"
            "      engine: llama.cpp\n      model: org/New-GGUF/New-Q4_K_M.gguf\n"
            "      port: 8099\n",
            id="indented as the others",
        ),
        pytest.param(
            "profiles: {a: {engine: mlx, model: m, port: 8081}}  # all\n",
            "profiles: {a: {engine: mlx, model: m, port: 8081}, new: {engine: llama.cpp, "
            "model: org/New-GGUF/New-Q4_K_M.gguf, port: 8099}}  # all\n",
            id="in braces",
        ),
        pytest.param(
            "profiles: {\n  a: {engine: mlx, model: m, port: 8081},  # first, and last\n}\n",
            "profiles: {\n  a: {engine: mlx, model: m, port: 8081},  # first, and last\n"
            " new: {engine: llama.cpp, model: org/New-GGUF/New-Q4_K_M.gguf, port: 8099}}\n",
            id="in braces that end with a comma",
        ),
    ],
)  # fmt: skip
def test_profile_is_added_where_the_others_are(file, text, expected):
    assert add(file, text) == expected
    assert load_config(file).profiles["new"].model == FIELDS["model"]


def test_example_keeps_every_byte_and_comment(file):
    text = example_text()
    after = add(file, text)
    added = "\n" + "".join(f"  {line}\n" for line in LINES)
    assert without(after, added) == text
    assert after.index("  new:") > after.index("# args: [--cache-type-k, q8_0]")
    assert after.index("  new:") < after.index("# --- any other server")
    assert list(load_config(file).profiles)[-1] == "new"


def test_text_over_several_lines_in_the_last_profile_is_not_cut(file):
    text = (
        "profiles:\n  a:\n    engine: command\n    port: 8081\n    memory: 1GiB\n    cmd:\n"
        "    - sh\n    - |\n      serve {port}\n\n      # part of the text\n\nbudget: 4GiB\n"
    )
    after = add(file, text)
    assert after.startswith(text.removesuffix("\nbudget: 4GiB\n"))
    assert load_config(file).profiles["a"].cmd[1].startswith("serve {port}\n\n# part")


def test_values_that_look_like_something_else_are_quoted(file):
    add(file, ONE, name="8", model="on: #x")
    assert load_config(file).profiles["8"].model == "on: #x"


def test_file_that_is_not_there_is_made_for_its_owner_alone(tmp_path):
    file = tmp_path / "llmd" / "llmd.yaml"
    with_profile(file, "new", FIELDS).write()
    assert list(load_config(file).profiles) == ["new"]
    assert file.stat().st_mode & 0o777 == 0o600


def test_mode_and_link_are_kept(file, tmp_path):
    real = tmp_path / "dotfiles.yaml"
    real.write_text(ONE)
    real.chmod(0o664)  # more than the umask gives to a new file
    file.symlink_to(real)
    with_profile(file, "new", FIELDS).write()
    assert file.is_symlink()
    assert real.stat().st_mode & 0o777 == 0o664
    assert "new" in load_config(file).profiles


@pytest.mark.parametrize(
    ("name", "fields", "says"),
    [
        pytest.param("a", {}, "a is a profile in", id="a name that is taken"),
        pytest.param("coder", {}, "coder is an alias of a", id="an alias"),
        pytest.param("no name", {}, "'no name' is no name for a profile", id="no name"),
        pytest.param("../x", {}, "'../x' is no name", id="a path"),
        pytest.param("new", {"port": 8080}, "8080 is the gateway's port", id="gateway's port"),
        pytest.param("new", {"port": 0}, "would not be valid with new in it", id="bad value"),
    ],
)
def test_what_would_not_be_valid_is_refused_and_changes_nothing(file, name, fields, says):
    text = ONE.replace("port: 8081", "port: 8081, aliases: [coder]")
    file.write_text(text)
    with pytest.raises(ConfigError) as refused:
        with_profile(file, name, FIELDS | fields)
    assert says in refused.value.message
    assert file.read_text() == text
    assert list(file.parent.iterdir()) == [file]


def test_bad_file_is_told_as_always(file):
    file.write_text("profiles: {a: 1}")
    with pytest.raises(ConfigError, match="has 1 problem"):
        with_profile(file, "new", FIELDS)


def test_file_that_changes_meanwhile_is_not_overwritten(file):
    file.write_text(ONE)
    edit = with_profile(file, "new", FIELDS)
    file.write_text(ONE + "budget: 8GiB\n")
    with pytest.raises(ConfigError, match="has changed meanwhile"):
        edit.write()
    assert file.read_text() == ONE + "budget: 8GiB\n"
    assert list(file.parent.iterdir()) == [file]


@pytest.mark.skipif(os.getuid() == 0, reason="root may write everywhere")
def test_directory_that_cannot_be_written_gives_the_lines_to_add(file):
    file.write_text(ONE)
    file.parent.chmod(0o500)
    try:
        with pytest.raises(ConfigError, match="cannot write") as refused:
            with_profile(file, "new", FIELDS).write()
    finally:
        file.parent.chmod(0o700)
    assert "  new:\n    engine: llama.cpp" in refused.value.remedy


def test_full_disk_leaves_the_file_as_it_was(file, monkeypatch):
    file.write_text(ONE)

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("llmd.config.replace.os.fsync", full)
    with pytest.raises(ConfigError, match="No space left"):
        with_profile(file, "new", FIELDS).write()
    assert file.read_text() == ONE
    assert list(Path(file.parent).iterdir()) == [file]


def test_anchors_and_merges_are_kept(file):
    text = "x-base: &base {engine: mlx, port: 8081}\nprofiles:\n  a: {<<: *base, model: m}\n"
    add(file, text)
    assert load_config(file).profiles["a"].port == 8081
