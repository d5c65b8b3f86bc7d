"""Files of keys: who may read them, and that no message gives a key away."""

import os
from pathlib import Path

import pytest

from llmd.config.keyfile import read_key_file
from llmd.config.load import parse_config
from llmd.errors import ConfigError


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "keys"
    path.touch(mode=0o600)
    return path


def read(path):
    return [key.get_secret_value() for key in read_key_file(path)]


def test_one_key_a_line_without_comments_and_blanks(file):
    file.write_bytes(b"\xef\xbb\xbf# laptop\r\nsesame-1\r\n\r\n  sesame-2  \n  # old\n")
    assert read(file) == ["sesame-1", "sesame-2"]


def test_keys_never_show(file):
    file.write_text("sesame-1\n")
    assert "sesame" not in repr(read_key_file(file))


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o602, 0o610, 0o601, 0o644, 0o666, 0o777])
def test_file_open_to_others_is_refused_with_the_command_that_mends_it(file, mode):
    file.write_text("sesame-1\n")
    file.chmod(mode)
    with pytest.raises(ConfigError, match=f"mode {mode:04o}") as refused:
        read_key_file(file)
    assert refused.value.remedy == f"chmod 600 {file}"
    assert "sesame" not in refused.value.message


@pytest.mark.parametrize("mode", [0o600, 0o400, 0o700])
def test_file_for_its_owner_alone_is_read(file, mode):
    file.write_text("sesame-1\n")
    file.chmod(mode)
    assert read(file) == ["sesame-1"]


def remove(file: Path) -> None:
    file.unlink()


def make_a_link(file: Path) -> None:
    file.rename(file.with_name("real"))
    file.symlink_to("real")


def make_a_pipe(file: Path) -> None:
    file.unlink()
    os.mkfifo(file, 0o600)


def make_a_directory(file: Path) -> None:
    file.unlink()
    file.mkdir(mode=0o700)


def make_a_device(file: Path) -> None:
    file.unlink()
    file.symlink_to("/dev/zero")


def fill(file: Path) -> None:
    file.write_text("sesame-1\n" * 10_000)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        pytest.param(remove, "there is no key file", id="missing"),
        pytest.param(make_a_link, "is a symbolic link", id="a link"),
        pytest.param(make_a_pipe, "no regular file", id="a pipe, which nobody writes to"),
        pytest.param(make_a_directory, "no regular file", id="a directory"),
        pytest.param(make_a_device, "is a symbolic link", id="a device, by a link"),
        pytest.param(fill, "larger than 64 KiB", id="too long"),
    ],
)
def test_what_is_no_key_file_is_refused_at_once(file, change, words):
    change(file)
    with pytest.raises(ConfigError, match=words) as refused:
        read_key_file(file)
    assert refused.value.remedy


@pytest.mark.parametrize("text", ["", "\n\n", "# only a comment\n"])
def test_file_without_a_key_lets_nobody_in(file, text):
    file.write_text(text)
    with pytest.raises(ConfigError, match="holds no key"):
        read_key_file(file)


@pytest.mark.parametrize("line", [b"two words", b"s\xc3\xa9same", b"a\x00b", b"tab\there"])
def test_line_that_is_no_key_is_named_by_its_number_alone(file, line):
    file.write_bytes(b"good\n" + line + b"\n")
    with pytest.raises(ConfigError, match="line 2 of the key file") as refused:
        read_key_file(file)
    assert line.decode("latin-1") not in str(refused.value.to_openai())


@pytest.mark.skipif(os.getuid() != 0, reason="NOT ROOT: only root can give a file away")
def test_file_of_another_user_is_refused(file):
    file.write_text("sesame-1\n")
    os.chown(file, 65534, -1)
    with pytest.raises(ConfigError, match="belongs to user 65534"):
        read_key_file(file)


CONFIG = "profiles: {a: {engine: mlx, model: m, port: 1}}\n"


def parse(text):
    return parse_config(CONFIG + text, source="f", directory=Path("/here"))


def test_path_is_relative_to_the_configuration():
    assert parse("api_keys_file: keys\n").api_keys_file == Path("/here/keys")
    assert parse("api_keys_file: ~/k\n").api_keys_file == Path.home() / "k"


@pytest.mark.parametrize(
    ("text", "entry", "wants"),
    [
        ("", None, False),
        ("api_keys_keyring: false\n", None, False),
        ("api_keys_keyring: true\n", "api_keys", True),
        ("api_keys_keyring: work\n", "work", True),
        ("api_keys_file: keys\n", None, True),
        ("api_keys: [a]\n", None, True),
    ],
)
def test_where_keys_are_kept(text, entry, wants):
    config = parse(text)
    assert (config.keychain_entry, config.wants_key) == (entry, wants)


REMOTE = "profiles: {a: {engine: remote, url: 'http://b:1', port: 1, api_key_file: key%s}}\n"


def test_remote_has_its_key_in_one_place_relative_to_the_configuration():
    config = parse_config(REMOTE % "", source="f", directory=Path("/here"))
    assert config.profiles["a"].api_key_file == Path("/here/key")
    with pytest.raises(ConfigError, match="api_key_env"):
        parse_config(REMOTE % ", api_key_env: K", source="f", directory=Path("/here"))
