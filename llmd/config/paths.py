"""Where llmd's files are, on macOS and Linux. Computes paths; creates nothing."""

import os
import sys
from pathlib import Path
from typing import Final


SOCKET_PATH_MAX_BYTES: Final = 103
"""What fits `sun_path` on macOS (104 with its NUL); Linux allows 107."""


_LONGEST_SOCKET: Final = "c-01234567.sock"
"""A host's (`llmd.runtime.control.socket_path`); the admin socket's is shorter."""


def config_dir() -> Path:
    """The directory of `llmd.yaml`."""
    return _of_user("XDG_CONFIG_HOME", ".config", mac="Application Support")


def state_dir() -> Path:
    """Learned footprints, the ledger of hosts."""
    directory = _of_user("XDG_STATE_HOME", ".local/state", mac="Application Support")
    return directory / "state" if sys.platform == "darwin" else directory


def cache_dir() -> Path:
    """What can be made anew: saved prompts, shapes of models. `LLMD_CACHE_DIR` names another."""
    chosen = os.environ.get("LLMD_CACHE_DIR")
    return Path(chosen) if chosen else _of_user("XDG_CACHE_HOME", ".cache", mac="Caches")


def prompts_dir() -> Path:
    """Prompts that outlive their host."""
    return cache_dir() / "prompts"


def log_dir() -> Path:
    """Logs of the daemon and its hosts."""
    directory = _of_user("XDG_STATE_HOME", ".local/state", mac="Logs")
    return directory if sys.platform == "darwin" else directory / "log"


def _of_user(variable: str, below_home: str, *, mac: str) -> Path:
    """Our directory below the one that *variable* names, or that is usual; on macOS in Library."""
    if sys.platform == "darwin":
        return Path.home() / "Library" / mac / "llmd"
    named = os.environ.get(variable, "")
    return (Path(named) if named.startswith("/") else Path.home() / below_home) / "llmd"


def runtime_dir() -> Path:
    """Sockets: short and private.

    On macOS it depends on the user alone, not on TMPDIR, which differs between a login session
    and SSH, so that `llmd-ctl` and the daemon always agree; and it is not below `/tmp`, which is
    emptied at each start of the machine: launchd would hold a socket that no path leads to.
    """
    if sys.platform == "darwin":
        lasting = config_dir() / "run"
        return lasting if _fits(lasting) else Path("/tmp") / f"llmd-{os.getuid()}"  # noqa: S108
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    if runtime.startswith("/"):
        return Path(runtime) / "llmd"
    return Path(os.environ.get("TMPDIR") or "/tmp") / f"llmd-{os.getuid()}"  # noqa: S108


def _fits(directory: Path) -> bool:
    """Whether the longest socket name fits below *directory*: with long user names it may not."""
    return len(os.fsencode(directory / _LONGEST_SOCKET)) <= SOCKET_PATH_MAX_BYTES


def config_file(chosen: str | None = None) -> Path:
    """*chosen* (`--config`), else `LLMD_CONFIG`, else the user's `llmd.yaml`."""
    named = chosen or os.environ.get("LLMD_CONFIG")
    return Path(named).expanduser() if named else config_dir() / "llmd.yaml"


def socket_path(chosen: str | None = None) -> Path:
    """*chosen* (`--socket`), else `LLMD_SOCKET`, else `llmd.sock` in the runtime directory."""
    named = chosen or os.environ.get("LLMD_SOCKET")
    return Path(named).expanduser().absolute() if named else runtime_dir() / "llmd.sock"
