"""A keychain for a daemon of the tests: one entry, from the environment of its process."""

import os

from keyring.backend import KeyringBackend


class Chain(KeyringBackend):
    """Chosen by PYTHON_KEYRING_BACKEND; holds what LLMD_TEST_CHAIN says, as `api_keys`."""

    priority = 1

    def get_password(self, service, username):
        known = (service, username) == ("llmd", "api_keys")
        return os.environ.get("LLMD_TEST_CHAIN") if known else None

    def set_password(self, service, username, password):
        raise AssertionError("llmd only reads")
