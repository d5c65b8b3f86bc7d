"""What a service manager is told about llmd, and what it answers: for launchd and systemd alike."""

import contextlib
import os
import re
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Final

from llmd.errors import LlmdError
from llmd.platform.run import Ran, run


Runner = Callable[[Sequence[str], float], Ran]
"""Runs a program to its end, for so many seconds at most. Tests give one that remembers."""

CARRIED: Final = (
    "HF_HOME",
    "HF_HUB_CACHE",
    "HUGGINGFACE_HUB_CACHE",
    "LLMD_CACHE_DIR",
    "LLMD_LOG_DIR",
    "LLMD_STATE_DIR",
    "XDG_CACHE_HOME",
    "XDG_STATE_HOME",
)
"""Variables of the shell that say where files are. A service does not see the shell's; without
them it would look for the same models elsewhere."""

_FILE_MODE: Final = 0o644
_PLACEHOLDER: Final = re.compile("@[A-Z_]+@")


class ServiceError(LlmdError):
    """The service cannot be written, registered, started or stopped."""

    code = "service_failed"


@dataclass(frozen=True, slots=True)
class Definition:
    """The service, described; rendered as a LaunchAgent or as systemd units. Paths are absolute.

    Attributes:
        python: The interpreter to run llmd with; a link into an environment stays one.
        config_file: The configuration.
        socket: The admin socket.
        ports: TCP ports to listen on.
        addresses: IP addresses, numeric, each of which has all ports.
        state_dir: Where the daemon runs.
        log_dir: Where `service.log` goes, on macOS.
        variables: Further environment variables.
    """

    python: Path
    config_file: Path
    socket: Path
    ports: tuple[int, ...]
    addresses: tuple[str, ...]
    state_dir: Path
    log_dir: Path
    variables: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class ServiceState:
    """What the service manager says of the service.

    Attributes:
        places: Where it is registered: launchd's domains, or the names of active units.
        pid: The daemon's process.
        failure: Why it does not run although it should; empty otherwise.
        stop_limit_s: How long it may take after SIGTERM, in seconds; None when that is unknown.
        scheduling: launchd's class for it, such as `interactive (4)`.
    """

    places: tuple[str, ...] = ()
    pid: int | None = None
    failure: str = ""
    stop_limit_s: float | None = None
    scheduling: str = ""


def run_program(argv: Sequence[str], timeout_s: float) -> Ran:
    """Run a service manager's program; the `Runner` of everyday use."""
    return run(argv, timeout_s=timeout_s)


def carried(environ: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    """What of *environ* the service needs, too."""
    return tuple((name, environ[name]) for name in CARRIED if environ.get(name))


def template(name: str, source: str) -> str:
    """The template *name*: inside an installed package, or at *source* in the source tree.

    Raises:
        ServiceError: The installation lacks it.
    """
    packaged = resources.files("llmd.platform") / name
    if packaged.is_file():
        return packaged.read_text(encoding="utf-8")
    path = Path(__file__).parents[2] / source
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise ServiceError(
            f"the service's template is missing from this installation: {path}",
            remedy="install llmd again",
        ) from error


def fill(text: str, words: Mapping[str, str]) -> str:
    """*text* with its `@NAME@` replaced by *words*; what they bring in is not looked at again."""
    return _PLACEHOLDER.sub(lambda found: words.get(found[0], found[0]), text)


def read_if_there(path: Path) -> str | None:
    """The text of *path*; None when there is no such file, or it is no text of ours."""
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return None


def make_directories(definition: Definition) -> None:
    """Make the directories that *definition* names, for their user alone.

    launchd starts no job whose directories are missing, and says nothing about it.

    Raises:
        ServiceError: One cannot be made.
    """
    for directory in (definition.state_dir, definition.log_dir, definition.socket.parent):
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise ServiceError(
                f"cannot make {directory}: {error.strerror}",
                remedy="look at the owner and mode of the directory above it",
            ) from error


def write_atomically(path: Path, text: str) -> None:
    """Put *text* at *path* whole or not at all, as a file that others may read but not write.

    A link there is replaced by a file: launchd does not follow links at login.

    Raises:
        ServiceError: It cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        fd, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        try:
            with open(fd, "w", encoding="utf-8") as file:  # noqa: PTH123 - the descriptor is open
                file.write(text)
                os.fchmod(fd, _FILE_MODE)
            Path(temporary).replace(path)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                Path(temporary).unlink()
            raise
    except OSError as error:
        raise ServiceError(
            f"cannot write {path}: {error.strerror}",
            remedy=f"look at its owner and mode with `ls -ld {path.parent}`",
        ) from error


def remove(path: Path) -> bool:
    """Remove *path*; False when it is not there.

    Raises:
        ServiceError: It is there and stays.
    """
    try:
        path.unlink()
    except FileNotFoundError:
        return False
    except OSError as error:
        raise ServiceError(
            f"cannot remove {path}: {error.strerror}", remedy=f"remove it: rm {path}"
        ) from error
    return True


def first_line(text: str) -> str:
    """What a program says first."""
    return next((line.strip() for line in text.splitlines() if line.strip()), "")
