import contextlib
import math
import os
from pathlib import Path
from textwrap import dedent

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmd.config.load import load_config, parse_config
from llmd.errors import ConfigError


GOOD = """\
budget: 48GiB
models_dirs: [models, ~/weights, /srv/models]
gateway: {port: 8080}
profiles:
  code:
    engine: mlx
    model: publisher/name
    port: 8081
    aliases: [gpt, 4]
    default: true
    idle_ttl: never
    memory: 20GiB
    env: {OMP_NUM_THREADS: 4, RATIO: 1.10, SWITCH: on}
    args: [--top-p, 0.90]
  code6: {engine: mlx, model: ./weights/mlx, port: 8081, adapters: lora}
  raw: {engine: llama.cpp, model: ~/x.gguf, port: 8083, draft_model: ../small.gguf}
  lab: {engine: command, cmd: [server, --port, "{port}"], memory: 8GiB, port: 8085}
  big: {engine: remote, url: "http://studio.local:8081/v1", model: ./as/is, port: 8086}
"""


@pytest.fixture
def load(tmp_path):
    def load(text: str | bytes):
        file = tmp_path / "llmd.yaml"
        file.write_bytes(text if isinstance(text, bytes) else dedent(text).encode())
        return load_config(file)

    return load


def test_a_good_file_is_read_whole(load, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    config = load(GOOD)
    code = config.profiles["code"]
    assert config.models_dirs == (
        tmp_path / "models",
        Path("/home/me/weights"),
        Path("/srv/models"),
    )
    assert (code.name, code.port, code.memory) == ("code", 8081, 20 * 2**30)
    assert code.model == "publisher/name"
    assert code.idle_ttl == math.inf
    assert config.profiles["code6"].model == str(tmp_path / "weights/mlx")
    assert config.profiles["code6"].adapters == str(tmp_path / "lora")
    assert config.profiles["raw"].model == "/home/me/x.gguf"
    assert config.profiles["raw"].draft_model == str(tmp_path / "../small.gguf")
    assert config.profiles["big"].model == "./as/is"
    assert list(config.profiles) == ["code", "code6", "raw", "lab", "big"]


def test_text_stays_as_it_was_written(load):
    code = load(GOOD).profiles["code"]
    assert code.env == {"OMP_NUM_THREADS": "4", "RATIO": "1.10", "SWITCH": "on"}
    assert code.args == ("--top-p", "0.90")
    assert code.aliases == ("gpt", "4")


def test_defaults_suit_a_file_of_three_lines(load):
    config = load("profiles:\n  a: {engine: mlx, model: m, port: 8081}\n")
    assert (config.budget, config.gateway.port) == ("auto", 8080)
    assert config.listen == ("127.0.0.1", "::1")
    assert config.profiles["a"].parallel == 2


def test_a_config_is_frozen(load):
    with pytest.raises(ValueError, match="frozen"):
        load(GOOD).budget = "auto"


def test_merge_keys_and_anchors_share_settings(load):
    config = load(
        """\
        x-base: &base {engine: mlx, port: 8081, context: 4096}
        profiles:
          a: {<<: *base, model: one}
          b: {model: two, <<: [{parallel: 3}, *base], context: 8192}
        """
    )
    assert config.profiles["a"].context == 4096
    assert (config.profiles["b"].context, config.profiles["b"].parallel) == (8192, 3)


def test_a_byte_order_mark_is_no_part_of_the_file(load):
    assert load(b"\xef\xbb\xbf" + GOOD.encode()).profiles


def test_a_hopeless_file_is_not_listed_for_ever():
    with pytest.raises(ConfigError) as caught:
        parse_config(
            "profiles:\n" + "".join(f"  p{n}: {{}}\n" for n in range(100)),
            source="f",
            directory=Path("/"),
        )
    lines = caught.value.message.splitlines()
    assert lines[0] == "f has 100 problems:"
    assert lines[-1] == "… and 60 more"


UNREADABLE = [
    pytest.param("", "is empty: it describes no model", id="empty"),
    pytest.param("# nothing\n", "is empty: it describes no model", id="a comment only"),
    pytest.param("- a\n- b\n", ":1:1: is a list; a configuration is a mapping", id="a list"),
    pytest.param("hello", ":1:1: is plain text; a configuration is a mapping", id="a sentence"),
    pytest.param(
        "budget: auto", "`profiles` is missing: the file describes no model", id="no model"
    ),
    pytest.param("profiles: {}", "profiles: must not be empty", id="an empty list of models"),
    pytest.param(
        "profiles:\n\ta: 1",
        ":2:1: is not valid YAML: found character '\\t' that cannot "
        "start any token (indent with spaces, not tabs",
        id="a tab",
    ),
    pytest.param("a: 'x\n", "(a quote or bracket is not closed)", id="an open quote"),
    pytest.param("listen: [::1]", "(quote text that begins with a colon or comma", id="a bare ::1"),
    pytest.param(
        "a: b: c", "(quote text that contains a colon; check the indentation)", id="a colon"
    ),
    pytest.param(
        "a: [1, 2\nb: 3",
        "(a bracket or brace is not closed, or a comma is missing)",
        id="an open bracket",
    ),
    pytest.param("a: *b", "(name it with & before it is used)", id="an alias of nothing"),
    pytest.param(
        "a: 1\n---\nb: 2", "(a configuration is one document; remove the `---`)", id="two documents"
    ),
    pytest.param("a: &a [*a]", "a[0]: an alias contains itself", id="an alias within itself"),
    pytest.param(
        "a: &a\n  <<: *a\n  b: 1", "`<<` merges a mapping into itself", id="a merge with itself"
    ),
    pytest.param(
        "a: {<<: 5}", "`<<` merges mappings, and this is none", id="a merge with a number"
    ),
    pytest.param("[1]: 2", "a key must be plain text", id="a list for a key"),
    pytest.param("[" * 500, "nested too deeply", id="brackets without end"),
    pytest.param("a: \x07", "the character U+0007 is not allowed in YAML; remove it", id="a bell"),
    pytest.param(b"a: \xff\xfe", "is not UTF-8 text (byte 0xff)", id="no UTF-8"),
    pytest.param(
        b"a: 1\n" * 60_000, "is no configuration: it is larger than 256 KiB", id="too large"
    ),
]


@pytest.mark.parametrize(("text", "expected"), UNREADABLE)
def test_what_is_no_configuration_is_refused_with_a_remedy(load, text, expected):
    with pytest.raises(ConfigError) as caught:
        load(text)
    assert expected in caught.value.message
    assert caught.value.remedy


def test_a_missing_file_says_how_to_make_one(tmp_path):
    with pytest.raises(ConfigError) as caught:
        load_config(tmp_path / "llmd.yaml")
    assert caught.value.message == f"there is no configuration at {tmp_path}/llmd.yaml"
    assert "llmd-ctl config init" in caught.value.remedy


def test_a_directory_is_no_file(tmp_path):
    with pytest.raises(ConfigError, match="is a directory"):
        load_config(tmp_path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_an_unreadable_file_says_so(tmp_path):
    (tmp_path / "f").write_text(GOOD)
    (tmp_path / "f").chmod(0)
    with pytest.raises(ConfigError, match="cannot be read: Permission denied"):
        load_config(tmp_path / "f")


@settings(max_examples=150, deadline=None)
@given(
    st.text(max_size=200)
    | st.lists(st.sampled_from(GOOD.splitlines()), max_size=12).map("\n".join)
    | st.tuples(
        st.integers(0, len(GOOD)), st.integers(0, 40), st.text("{}[]:&*!-'\" \nx1", max_size=5)
    ).map(lambda cut: GOOD[: cut[0]] + cut[2] + GOOD[cut[0] + cut[1] :])
)
def test_any_text_is_a_configuration_or_refused(text):
    with contextlib.suppress(ConfigError):
        assert parse_config(text, source="f", directory=Path("/")).profiles
