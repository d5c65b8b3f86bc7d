"""Where the files of a repository go: into the Hugging Face cache, or below a folder of models."""

import contextlib
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from llmd.errors import describe_bytes
from llmd.hub.failures import DownloadError
from llmd.hub.listing import RemoteFile, Repository
from llmd.weights.locate import hub_cache


KEPT_FREE_BYTES: Final = 256 * 2**20
"""Left on a disk: one without any room makes everything else fail."""


@dataclass(frozen=True, slots=True)
class Destination:
    """Where one repository goes.

    Attributes:
        repository: What is downloaded.
        folder: Of models (`--dir`); its files go below `org/name` there, as LM Studio has them.
            None is the Hugging Face cache, where other programs find them as well.
    """

    repository: Repository
    folder: Path | None = None

    @property
    def directory(self) -> Path:
        """Of this repository."""
        if self.folder is not None:
            return self.folder / self.repository.name
        return hub_cache() / f"models--{self.repository.name.replace('/', '--')}"

    def path(self, file: RemoteFile) -> Path:
        """Where *file* is found by its name."""
        if self.folder is not None:
            return self.directory / file.path
        return self.directory / "snapshots" / self.repository.revision / file.path

    def content(self, file: RemoteFile) -> Path:
        """Where its bytes are: in the cache they are called by their checksum."""
        return self.path(file) if self.folder else self.directory / "blobs" / file.digest

    def partial(self, file: RemoteFile) -> Path:
        """Where they arrive. Always the same name, so that the next attempt finds them."""
        content = self.content(file)
        return content.with_name(content.name + (".part" if self.folder else ".incomplete"))

    def has(self, file: RemoteFile) -> bool:
        """Whether it is there, as long as it should be."""
        content = self.content(file)
        return content.is_file() and content.stat().st_size == file.size_bytes

    def arrived_bytes(self, file: RemoteFile) -> int:
        """Of a file that is there, or partly."""
        if self.has(file):
            return file.size_bytes
        with contextlib.suppress(OSError):
            return min(self.partial(file).stat().st_size, file.size_bytes)
        return 0

    def link(self, file: RemoteFile) -> None:
        """Give the bytes their name."""
        path, content = self.path(file), self.content(file)
        if path == content or path.exists():
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)  # a link that leads nowhere
        path.symlink_to(os.path.relpath(content, path.parent))

    def finish(self) -> None:
        """All is there: in the cache, this revision is what the name of the repository means."""
        if self.folder is None:
            reference = self.directory / "refs" / "main"
            reference.parent.mkdir(parents=True, exist_ok=True)
            new = reference.with_name(f"main.{os.getpid()}")
            new.write_text(self.repository.revision)
            new.replace(reference)

    def check_room(self, files: tuple[RemoteFile, ...]) -> None:
        """Make sure that the rest of *files* fits the disk.

        Raises:
            DownloadError: It does not.
        """
        place = self.directory
        while not place.exists():
            place = place.parent
        missing = sum(file.size_bytes - self.arrived_bytes(file) for file in files)
        free = shutil.disk_usage(place).free
        if missing and missing + KEPT_FREE_BYTES > free:
            raise DownloadError(
                f"{describe_bytes(missing)} are to be downloaded, and {place} has "
                f"{describe_bytes(free)} free",
                remedy="make room, choose a smaller quantization, or another disk with --dir",
            )
