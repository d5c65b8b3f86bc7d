"""Where files are: the same for the daemon and `llmd-ctl`, whatever their environment."""

import os
from pathlib import Path

import pytest

from llmd.config import paths


@pytest.fixture
def mac(monkeypatch):
    """This machine as a Mac whose support directory is of a given name."""

    def pretend(directory):
        monkeypatch.setattr(paths.sys, "platform", "darwin")
        monkeypatch.setattr(paths, "config_dir", lambda: Path(directory))
        monkeypatch.delenv("LLMD_SOCKET", raising=False)

    return pretend


def test_socket_on_a_mac_outlives_the_cleaning_of_tmp_and_does_not_hang_on_tmpdir(mac, monkeypatch):
    mac("/Users/ada/Library/Application Support/llmd")
    expected = Path("/Users/ada/Library/Application Support/llmd/run/llmd.sock")
    for tmpdir in ("/var/folders/ab/T", "/tmp"):
        monkeypatch.setenv("TMPDIR", tmpdir)
        monkeypatch.setenv("XDG_RUNTIME_DIR", "/run/user/1")
        assert paths.socket_path() == expected


@pytest.mark.parametrize(("name_length", "lasting"), [(43, True), (44, False)])
def test_user_name_that_is_too_long_for_a_socket_gets_a_short_path(mac, name_length, lasting):
    mac(f"/Users/{'n' * name_length}/Library/Application Support/llmd")
    directory = paths.runtime_dir()
    assert (directory == Path(f"/tmp/llmd-{os.getuid()}")) != lasting
    assert len(os.fsencode(directory / "c-01234567.sock")) <= paths.SOCKET_PATH_MAX_BYTES


def test_socket_on_linux_is_in_the_runtime_directory_of_the_login(monkeypatch):
    monkeypatch.delenv("LLMD_SOCKET", raising=False)
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/run/user/7")
    assert paths.socket_path() == Path("/run/user/7/llmd/llmd.sock")
    monkeypatch.setenv("XDG_RUNTIME_DIR", "relative")
    monkeypatch.setenv("TMPDIR", "/t")
    assert paths.socket_path() == Path(f"/t/llmd-{os.getuid()}/llmd.sock")


def test_directories_on_linux_are_those_of_the_xdg_specification(monkeypatch):
    monkeypatch.setattr(paths.sys, "platform", "linux")
    monkeypatch.setenv("HOME", "/home/ada")
    for name in ("CONFIG", "STATE", "CACHE"):
        monkeypatch.delenv(f"XDG_{name}_HOME", raising=False)
    assert paths.config_dir() == Path("/home/ada/.config/llmd")
    assert paths.state_dir() == Path("/home/ada/.local/state/llmd")
    assert paths.log_dir() == Path("/home/ada/.local/state/llmd/log")
    assert paths.cache_dir() == Path("/home/ada/.cache/llmd")
    monkeypatch.setenv("XDG_STATE_HOME", "/var/ada")
    monkeypatch.setenv("XDG_CONFIG_HOME", "relative, and so ignored")
    assert paths.log_dir() == Path("/var/ada/llmd/log")
    assert paths.config_dir() == Path("/home/ada/.config/llmd")


def test_directories_on_a_mac_are_below_library(monkeypatch):
    monkeypatch.setattr(paths.sys, "platform", "darwin")
    monkeypatch.setenv("HOME", "/Users/ada")
    monkeypatch.setenv("XDG_CONFIG_HOME", "/of/no/interest")
    assert paths.config_dir() == Path("/Users/ada/Library/Application Support/llmd")
    assert paths.state_dir() == Path("/Users/ada/Library/Application Support/llmd/state")
    assert paths.log_dir() == Path("/Users/ada/Library/Logs/llmd")
    assert paths.cache_dir() == Path("/Users/ada/Library/Caches/llmd")


def test_named_socket_comes_first(monkeypatch):
    monkeypatch.setenv("LLMD_SOCKET", "/from/variable.sock")
    assert paths.socket_path() == Path("/from/variable.sock")
    assert paths.socket_path("/from/option.sock") == Path("/from/option.sock")
