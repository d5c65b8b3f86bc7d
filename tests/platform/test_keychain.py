"""Keys from a keychain: a back end of the test's own in keyring's place of one."""

import sys
import threading

import keyring
import pytest
from keyring.backend import KeyringBackend
from keyring.backends.fail import Keyring as NoKeyring

from llmd.errors import ConfigError
from llmd.platform import keychain
from llmd.platform.keychain import read_keychain


class Chain(KeyringBackend):
    """A keychain in memory; *get* may do as it likes."""

    priority = 1

    def __init__(self, get):
        super().__init__()
        self.get = get

    def get_password(self, service, username):
        return self.get(service, username)

    def set_password(self, service, username, password):
        raise AssertionError("llmd only reads")


@pytest.fixture
def chain():
    before = keyring.get_keyring()
    yield lambda get: keyring.set_keyring(Chain(get))
    keyring.set_keyring(before)


def test_keys_of_an_entry_are_cut_at_white_space(chain):
    kept = {("llmd", "work"): "sesame-1\nsesame-2 "}
    chain(lambda *asked: kept.get(asked))
    assert read_keychain("work") == ("sesame-1", "sesame-2")


@pytest.mark.parametrize("kept", [None, "", " \n"])
def test_entry_that_is_missing_or_empty_lets_nobody_in(chain, kept):
    chain(lambda *_asked: kept)
    with pytest.raises(ConfigError, match="no entry 'work'") as refused:
        read_keychain("work")
    assert refused.value.remedy == "python -m keyring set llmd work"


def test_machine_without_a_keychain_is_told_what_to_do(chain):
    keyring.set_keyring(NoKeyring())
    with pytest.raises(ConfigError, match="no keychain that a service can use") as refused:
        read_keychain("work")
    assert "api_keys_file" in refused.value.remedy


def test_failure_of_a_back_end_is_named_and_not_repeated(chain):
    def fail(*_asked):
        raise PermissionError("sesame-1 is locked")

    chain(fail)
    with pytest.raises(ConfigError, match="PermissionError") as refused:
        read_keychain("work")
    assert "sesame" not in str(refused.value.to_openai())


def test_keychain_that_waits_for_its_owner_is_not_waited_for_without_end(chain, monkeypatch):
    monkeypatch.setattr(keychain, "_PATIENCE_S", 0.05)
    unlocked = threading.Event()
    chain(lambda *_asked: unlocked.wait(30) and None)
    try:
        with pytest.raises(ConfigError, match="did not answer"):
            read_keychain("work")
    finally:
        unlocked.set()


def test_missing_library_is_told_how_to_get(monkeypatch):
    monkeypatch.setitem(sys.modules, "keyring", None)
    with pytest.raises(ConfigError, match="needs the keyring library") as refused:
        read_keychain("work")
    assert "pip install 'keyring>=25'" in refused.value.remedy
