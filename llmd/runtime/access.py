"""The keys of the ports, from wherever the configuration says that they are."""

from pydantic import SecretStr

from llmd.config.keyfile import read_key_file
from llmd.config.models import Config
from llmd.config.values import is_key
from llmd.errors import ConfigError
from llmd.platform.keychain import read_keychain


def with_keys(config: Config) -> Config:
    """*config* with the keys of its key file and keychain in `api_keys`.

    For the daemon alone; whoever shows a configuration has no need of them. Blocks.

    Raises:
        ConfigError: Keys are wanted that are not to be had. Ports that should ask for a key never
            do without.
    """
    keys = list(config.api_keys)
    if config.api_keys_file is not None:
        keys += read_key_file(config.api_keys_file)
    if (name := config.keychain_entry) is not None:
        found = read_keychain(name)
        if not all(map(is_key, found)):
            raise ConfigError(
                f"the keychain entry {name!r} holds what is no key",
                remedy="a key consists of printable ASCII characters",
                param="api_keys_keyring",
            )
        keys += map(SecretStr, found)
    return config.model_copy(update={"api_keys": tuple(keys)})
