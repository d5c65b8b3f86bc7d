"""The configuration file as the daemon last read it, and the last text in it that was good.

A typo must not take the ports away. While the daemon runs, a bad file changes nothing. A daemon
that starts by itself while the file is bad begins with the last good text: the one that a restart
has checked, or after a crash the copy in the state directory. It says so until the file is mended.
"""

import asyncio
import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

import structlog

from llmd.config.load import parse_config, read_text
from llmd.config.models import Config
from llmd.config.replace import replace_file
from llmd.errors import ConfigError, RestartRefusedError
from llmd.runtime.access import with_keys
from llmd.runtime.statefile import read_state


CHECKS_MAX: Final = 3
"""How often a file is checked that changes meanwhile."""

_Stamp = tuple[int, int, int]

log = structlog.get_logger("llmd.config")


class ConfigFile:
    """The file at *path*; kept by the event loop once there is one.

    Attributes:
        path: The file, absolute.
        copy: Where the last good text of it is kept, for its owner unattended.
        fault: Why the file, as it was last seen, is not in use, for a person; None when it is.
    """

    def __init__(self, path: Path, state_dir: Path) -> None:
        """Read nothing yet. Several daemons may share *state_dir*, each with its own file."""
        self.path = path.absolute()
        name = hashlib.sha256(os.fsencode(self.path)).hexdigest()
        self.copy = state_dir / f"config-{name[:8]}.yaml"
        self.fault: str | None = None
        self._text = ""
        self._seen: _Stamp | None = None

    def begin(self, *, checked: str | None = None, unattended: bool = False) -> Config:
        """What to start with. Blocks.

        Args:
            checked: What a restart has found good a moment ago.
            unattended: Nobody is there to mend a bad file: begin with the copy, if there is one.

        Raises:
            ConfigError: What is wrong with the file, when nothing can stand in for it. Keys are
                never taken from a copy: when theirs are not to be had, the ports stay closed.
        """
        self._seen = _stamp(self.path)  # before it is read: what changes meanwhile is noticed
        try:
            self._text = read_text(self.path)
            return self._parse(self._text)
        except ConfigError as error:
            for text in (checked, self._kept() if unattended else None):
                if text is None:
                    continue
                try:
                    config = self._parse(text)
                except ConfigError:
                    continue
                self._text = text
                self.fault = f"the last good configuration is in use, because {error.message}"
                return config
            raise

    async def read(self) -> Config:
        """What the file says now.

        Raises:
            ConfigError: What is wrong with it; `fault` says so until the file is mended.
        """
        seen = _stamp(self.path)
        try:
            text = await asyncio.to_thread(read_text, self.path)
            config = await asyncio.to_thread(self._parse, text)
        except ConfigError as error:
            self._seen, self.fault = seen, error.message
            raise
        self._seen, self.fault, self._text = seen, None, text
        return config

    def changed(self) -> bool:
        """Whether the file is another than was last read; not while it is being replaced."""
        current = _stamp(self.path)
        return current is not None and current != self._seen

    async def text_that_passes(self, check: Callable[[], None]) -> str:
        """The text of the file that *check*, which blocks and reads the file itself, found good.

        Raises:
            RestartRefusedError: The file is never left alone for as long as a check takes.
            LlmdError: What *check* raises.
        """
        for _ in range(CHECKS_MAX):
            before = await asyncio.to_thread(_content, self.path)
            await asyncio.to_thread(check)
            if before is not None and before == await asyncio.to_thread(_content, self.path):
                return before
        raise RestartRefusedError(
            f"{self.path} changes all the time",
            remedy="restart again once it is written; the running daemon goes on as it was",
        )

    async def keep(self) -> None:
        """Keep the text in use for a daemon that has to start while the file is bad."""
        await asyncio.to_thread(self._keep, self._text)

    def _keep(self, text: str) -> None:
        if self._kept() == text:
            return
        try:
            replace_file(self.copy, text.encode(), lasting=True)
        except OSError as error:
            log.warning("config.unkept", path=str(self.copy), reason=str(error))

    def _kept(self) -> str | None:
        text, wrong = read_state(self.copy, bytes.decode)
        if wrong is not None:
            log.warning("config.copy_unreadable", reason=wrong)
        return text

    def _parse(self, text: str) -> Config:
        return with_keys(parse_config(text, source=str(self.path), directory=self.path.parent))


def _content(path: Path) -> str | None:
    try:
        return read_text(path)
    except ConfigError:
        return None


def _stamp(path: Path) -> _Stamp | None:
    """Changes when the file does; None when it is not there (an editor may be replacing it)."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino
