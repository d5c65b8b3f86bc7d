"""Keys from a file of their own: one a line, for its owner's eyes only.

The configuration file is shown, copied and kept under version control; keys are not.
"""

import errno
import os
import shlex
import stat
from pathlib import Path
from typing import Final

from pydantic import SecretStr

from llmd.config.models import Config, RemoteProfile
from llmd.config.values import is_key
from llmd.errors import ConfigError


_MAX_BYTES: Final = 64 * 1024
_FLAGS: Final = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK  # of a pipe, do not wait


def read_key_file(path: Path, *, param: str = "api_keys_file") -> tuple[SecretStr, ...]:
    """The keys in *path*; blank lines and those that begin with `#` are none.

    The file is judged by its descriptor, so it cannot be exchanged between the look and the read.

    Args:
        path: Where it is; a symbolic link is refused.
        param: The setting that names it.

    Raises:
        ConfigError: It is not there, not a regular file of this user, open to others, or holds no
            key: a file that holds none would let everybody in. No message repeats what is in it.
    """
    try:
        fd = os.open(path, _FLAGS)
    except OSError as error:
        raise _unreadable(path, error, param) from None
    try:
        _check(path, os.fstat(fd), param)
        raw = os.read(fd, _MAX_BYTES + 1)
    finally:
        os.close(fd)
    if len(raw) > _MAX_BYTES:
        raise ConfigError(
            f"the key file {path} is larger than {_MAX_BYTES // 1024} KiB",
            remedy=f"check `{param}`: a key file has one key a line",
            param=param,
        )
    return _parse(path, raw, param)


def check_key_files(config: Config) -> None:
    """See that each file of keys which *config* names can be used.

    Raises:
        ConfigError: One cannot.
    """
    if config.api_keys_file is not None:
        read_key_file(config.api_keys_file)
    for name, profile in config.profiles.items():
        if isinstance(profile, RemoteProfile) and profile.api_key_file is not None:
            read_key_file(profile.api_key_file, param=f"profiles.{name}.api_key_file")


def _check(path: Path, found: os.stat_result, param: str) -> None:
    if not stat.S_ISREG(found.st_mode):
        raise ConfigError(
            f"the key file {path} is no regular file",
            remedy=f"name a file with one key a line in `{param}`",
            param=param,
        )
    quoted = shlex.quote(os.fspath(path))
    if found.st_uid != os.geteuid():
        raise ConfigError(
            f"the key file {path} belongs to user {found.st_uid}, not to you",
            remedy=f"sudo chown {os.geteuid()} {quoted}",
            param=param,
        )
    if found.st_mode & 0o077:
        raise ConfigError(
            f"the key file {path} is open to others (mode {stat.S_IMODE(found.st_mode):04o})",
            remedy=f"chmod 600 {quoted}",
            param=param,
        )


def _parse(path: Path, raw: bytes, param: str) -> tuple[SecretStr, ...]:
    keys = []
    for number, line in enumerate(raw.removeprefix(b"\xef\xbb\xbf").splitlines(), start=1):
        text = line.decode("latin-1").strip()
        if not text or text.startswith("#"):
            continue
        if not is_key(text):
            raise ConfigError(
                f"line {number} of the key file {path} is no key",
                remedy="a key consists of printable ASCII characters without spaces, one a line",
                param=param,
            )
        keys.append(SecretStr(text))
    if not keys:
        raise ConfigError(
            f"the key file {path} holds no key",
            remedy=f"write one a line, or remove `{param}`",
            param=param,
        )
    return tuple(keys)


def _unreadable(path: Path, error: OSError, param: str) -> ConfigError:
    if error.errno == errno.ELOOP:
        return ConfigError(
            f"the key file {path} is a symbolic link",
            remedy=f"name the file itself in `{param}`",
            param=param,
        )
    what = "there is no key file" if error.errno == errno.ENOENT else "cannot read the key file"
    why = "" if error.errno == errno.ENOENT else f": {error.strerror}"
    quoted = shlex.quote(os.fspath(path))
    return ConfigError(
        f"{what} {path}{why}",
        remedy=f"(umask 077; openssl rand -hex 24 > {quoted}), or change `{param}`",
        param=param,
    )
