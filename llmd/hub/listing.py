"""What a repository of a model hub holds: names, sizes and checksums of its files."""

import os
import re
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Final

from huggingface_hub import HfApi, constants

import llmd
from llmd.hub.failures import DownloadError, explained


TIMEOUT_S: Final = 30.0
_FILES_MAX: Final = 10_000
_CONTROLS: Final = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_DIGEST: Final = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """One file of a repository.

    Attributes:
        path: Below the repository's root, with slashes.
        size_bytes: As the hub says.
        digest: SHA-256 of a large file; SHA-1 of a small one, as git computes it.
    """

    path: str
    size_bytes: int
    digest: str

    @property
    def name(self) -> str:
        """Without its folder."""
        return self.path.rpartition("/")[2]


@dataclass(frozen=True, slots=True)
class Repository:
    """A repository at one point of its history.

    Attributes:
        name: `org/name`.
        revision: The commit that all files are of.
        files: All of them.
        endpoint: Of the hub that has it.
    """

    name: str
    revision: str
    files: tuple[RemoteFile, ...]
    endpoint: str


def endpoint() -> str:
    """The hub: HF_ENDPOINT, else huggingface.co."""
    return (os.environ.get("HF_ENDPOINT") or constants.ENDPOINT).rstrip("/")


def look_up(name: str) -> Repository:
    """What repository *name* holds now.

    Raises:
        DownloadError: There is none, it may not be read, or the hub cannot be reached.
    """
    hub = endpoint()
    with explained(name, hub):
        api = HfApi(endpoint=hub, library_name="llmd", library_version=llmd.__version__)
        info = api.model_info(name, files_metadata=True, timeout=TIMEOUT_S)
    files = []
    for sibling in (info.siblings or ())[:_FILES_MAX]:
        digest = sibling.lfs.sha256 if sibling.lfs else sibling.blob_id
        size = sibling.lfs.size if sibling.lfs else sibling.size
        if (
            size is not None
            and digest
            and _DIGEST.fullmatch(digest)
            and _is_safe(sibling.rfilename)
        ):
            files.append(RemoteFile(sibling.rfilename, size, digest))
    if not info.sha or not _DIGEST.fullmatch(info.sha):
        raise DownloadError(f"{hub} names no revision of {name}", remedy="look at HF_ENDPOINT")
    return Repository(name, info.sha, tuple(files), hub)


def _is_safe(path: str) -> bool:
    """Whether *path* stays below the directory it is put into."""
    parts = PurePosixPath(path).parts
    return (
        bool(parts)
        and not path.startswith("/")
        and not {"..", "~"} & set(parts)
        and "\\" not in path
        and not _CONTROLS.search(path)
    )
