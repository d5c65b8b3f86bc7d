"""Keys from the keychain of macOS, or the Secret Service of a Linux desktop, through `keyring`.

The library is an extra: on Linux it brings a compiled cryptography package, which most never need.
"""

import importlib
import threading
from typing import Final, Protocol, cast

from llmd.errors import ConfigError


SERVICE: Final = "llmd"
"""Under which name llmd's keys are kept."""
_PATIENCE_S: Final = 30.0
"""A keychain may ask its owner for leave, or to unlock it."""


class _Keyring(Protocol):
    """What of the library is used."""

    def get_password(self, service: str, username: str) -> str | None: ...


def read_keychain(name: str, *, param: str = "api_keys_keyring") -> tuple[str, ...]:
    """The keys that are kept as *name*: what stands there, cut at white space.

    Blocks while the keychain asks its owner, 30 s at most; not for the event loop.

    Args:
        name: The account of the entry; its service is `llmd`.
        param: The setting that names it.

    Raises:
        ConfigError: There is no library, no keychain, no such entry, or no leave to read it.
    """
    try:
        library = cast("_Keyring", importlib.import_module("keyring"))
    except ImportError:
        raise ConfigError(
            f"`{param}` needs the keyring library",
            remedy="python -m pip install 'keyring>=25' where llmd is installed, or use "
            "`api_keys_file`",
            param=param,
        ) from None
    kept: list[str | None] = []
    failures: list[Exception] = []

    def ask() -> None:
        try:
            kept.append(library.get_password(SERVICE, name))
        except Exception as error:  # noqa: BLE001  # back ends are of many hands
            failures.append(error)

    # A thread that does not hinder the end of the process: it cannot be interrupted.
    asking = threading.Thread(target=ask, name="keychain", daemon=True)
    asking.start()
    asking.join(_PATIENCE_S)
    if failures:
        raise _refused(failures[0], param)
    if not kept:
        raise ConfigError(
            f"the keychain did not answer within {_PATIENCE_S:.0f} s",
            remedy="unlock it and try again, or use `api_keys_file`",
            param=param,
        )
    keys = tuple((kept[0] or "").split())
    if not keys:
        raise ConfigError(
            f"the keychain has no entry {name!r} of the service {SERVICE!r}",
            remedy=f"python -m keyring set {SERVICE} {name}",
            param=param,
        )
    return keys


def _refused(error: Exception, param: str) -> ConfigError:
    """Told by the kind of *error* alone: what a back end says may hold more than it should."""
    kind = type(error).__name__
    if kind == "NoKeyringError":
        what = "this machine has no keychain that a service can use"
    else:
        what = f"the keychain cannot be read ({kind})"
    return ConfigError(
        what,
        remedy="use `api_keys_file`; `python -m keyring diagnose` tells what the library found",
        param=param,
    )
