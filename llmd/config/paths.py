"""Where llmd's files are, on macOS and Linux. Computes paths; creates nothing."""

import os
import sys
from pathlib import Path
from typing import Final

import platformdirs


SOCKET_PATH_MAX_BYTES: Final = 103
"""What fits `sun_path` on macOS (104 with its NUL); Linux allows 107."""


def config_dir() -> Path:
    """The directory of `llmd.yaml`."""
    return platformdirs.user_config_path("llmd")


def state_dir() -> Path:
    """Learned footprints, the ledger of hosts."""
    directory = platformdirs.user_state_path("llmd")
    return directory / "state" if sys.platform == "darwin" else directory


def cache_dir() -> Path:
    """Saved prompt caches."""
    return platformdirs.user_cache_path("llmd")


def log_dir() -> Path:
    """Logs of the daemon and its hosts."""
    return platformdirs.user_log_path("llmd")


def runtime_dir() -> Path:
    """Sockets: short, private, and gone after a reboot.

    On macOS it depends on the user alone, not on TMPDIR, which differs between a login session
    and SSH, so that `llmd-ctl` and the daemon always agree.
    """
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    if sys.platform != "darwin" and runtime.startswith("/"):
        return Path(runtime) / "llmd"
    root = Path("/tmp" if sys.platform == "darwin" else os.environ.get("TMPDIR") or "/tmp")  # noqa: S108
    return root / f"llmd-{os.getuid()}"


def config_file(chosen: str | None = None) -> Path:
    """*chosen* (`--config`), else `LLMD_CONFIG`, else the user's `llmd.yaml`."""
    named = chosen or os.environ.get("LLMD_CONFIG")
    return Path(named).expanduser() if named else config_dir() / "llmd.yaml"


def socket_path(chosen: str | None = None) -> Path:
    """*chosen* (`--socket`), else `LLMD_SOCKET`, else `llmd.sock` in the runtime directory."""
    named = chosen or os.environ.get("LLMD_SOCKET")
    return Path(named).expanduser().absolute() if named else runtime_dir() / "llmd.sock"
