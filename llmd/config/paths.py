"""Where llmd's files are, on macOS and Linux. Computes paths; creates nothing.

Standard library only: `llmd-ctl` asks this on every start, and platformdirs costs it 10 ms.
"""

import os
import sys
import tempfile
from pathlib import Path
from typing import Final


SOCKET_PATH_MAX_BYTES: Final = 103
"""What fits `sun_path` on macOS (104 with its NUL); Linux allows 107."""


def _xdg(variable: str, fallback: str) -> Path:
    value = os.environ.get(variable, "")
    return Path(value) if value.startswith("/") else Path.home() / fallback


def config_dir() -> Path:
    """The directory of `llmd.yaml`."""
    if sys.platform == "darwin":
        return Path.home() / "Library/Application Support/llmd"
    return _xdg("XDG_CONFIG_HOME", ".config") / "llmd"


def state_dir() -> Path:
    """Learned footprints, the ledger of hosts."""
    if sys.platform == "darwin":
        return config_dir() / "state"
    return _xdg("XDG_STATE_HOME", ".local/state") / "llmd"


def cache_dir() -> Path:
    """Saved prompt caches."""
    if sys.platform == "darwin":
        return Path.home() / "Library/Caches/llmd"
    return _xdg("XDG_CACHE_HOME", ".cache") / "llmd"


def log_dir() -> Path:
    """Logs of the daemon and its hosts."""
    if sys.platform == "darwin":
        return Path.home() / "Library/Logs/llmd"
    return state_dir() / "log"


def runtime_dir() -> Path:
    """Sockets: short, private, and gone after a reboot.

    On macOS it depends on the user alone, not on TMPDIR, which differs between a login session
    and SSH, so that `llmd-ctl` and the daemon always agree.
    """
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    if sys.platform != "darwin" and runtime.startswith("/"):
        return Path(runtime) / "llmd"
    root = Path("/tmp") if sys.platform == "darwin" else Path(tempfile.gettempdir())  # noqa: S108
    return root / f"llmd-{os.getuid()}"


def config_file(chosen: str | None = None) -> Path:
    """*chosen* (`--config`), else `LLMD_CONFIG`, else the user's `llmd.yaml`."""
    named = chosen or os.environ.get("LLMD_CONFIG")
    return Path(named).expanduser() if named else config_dir() / "llmd.yaml"


def socket_path(chosen: str | None = None) -> Path:
    """*chosen* (`--socket`), else `LLMD_SOCKET`, else `llmd.sock` in the runtime directory."""
    named = chosen or os.environ.get("LLMD_SOCKET")
    return Path(named).expanduser().absolute() if named else runtime_dir() / "llmd.sock"
