"""Download files so that an end at any moment loses nothing, and check what has arrived.

huggingface_hub transfers; its own `hf_hub_download` deletes what it has when it is interrupted, and
believes the size alone. Here the partial file has a fixed name, the next attempt goes on from its
end, and it takes its real name only once its checksum is the one that the hub lists.
"""

import fcntl
import hashlib
import logging
import os
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Final, Self

from huggingface_hub import constants, hf_hub_url
from huggingface_hub.file_download import http_get
from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]

import llmd
from llmd.hub.destination import Destination
from llmd.hub.failures import DownloadError, explained
from llmd.hub.listing import RemoteFile, Repository


OnBytes = Callable[[str, int], None]
"""Told what is done (`downloading`, `checking`) and how many bytes of it have just been."""

_CHUNK_BYTES: Final = 2**20

constants.DOWNLOAD_CHUNK_SIZE = _CHUNK_BYTES
"""huggingface_hub writes and reports 10 MB at once: ten seconds of nothing on a slow line."""


def fetch_all(destination: Destination, files: Sequence[RemoteFile], on_bytes: OnBytes) -> None:
    """Download *files*, check each, and give them their names. Goes on where it had stopped.

    Raises:
        DownloadError: One could not be had whole. What has arrived stays.
    """
    # Its warnings about retries would go through the progress bar.
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
    repository = destination.repository
    with explained(repository.name, repository.endpoint, destination.directory):
        for file in files:
            if destination.has(file):
                on_bytes("downloading", file.size_bytes)
                _check(destination.content(file), file, on_bytes)
            else:
                _fetch(destination, file, on_bytes)
            destination.link(file)
        destination.finish()


def _fetch(destination: Destination, file: RemoteFile, on_bytes: OnBytes) -> None:
    partial, content = destination.partial(file), destination.content(file)
    if file.size_bytes > constants.MAX_HTTP_DOWNLOAD_SIZE:
        repository = destination.repository.name
        raise DownloadError(
            f"{file.path} is larger than the hub hands out in one piece",
            remedy=f"hf download {repository} {file.path}; llmd finds it in the cache",
        )
    content.parent.mkdir(parents=True, exist_ok=True)
    with _alone(partial, file) as arriving:
        if os.fstat(arriving.fileno()).st_size > file.size_bytes:
            arriving.truncate(0)
        have = arriving.seek(0, os.SEEK_END)
        on_bytes("downloading", have)
        if have < file.size_bytes:
            http_get(
                _url(destination.repository, file),
                arriving,
                resume_size=have,
                headers=build_hf_headers(library_name="llmd", library_version=llmd.__version__),
                expected_size=file.size_bytes,
                tqdm_class=_reporting(on_bytes),
            )
        arriving.flush()
        _check(partial, file, on_bytes)
        partial.replace(content)


@contextmanager
def _alone(partial: Path, file: RemoteFile) -> Any:
    """*partial*, open at no particular place, and nobody else's meanwhile."""
    descriptor = os.open(partial, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    with open(descriptor, "r+b") as arriving:  # noqa: PTH123  # a descriptor
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise DownloadError(
                f"{file.path} is being downloaded already",
                remedy="wait for the other llmd-ctl pull",
            ) from error
        yield arriving


def _url(repository: Repository, file: RemoteFile) -> str:
    return hf_hub_url(
        repository.name, file.path, revision=repository.revision, endpoint=repository.endpoint
    )


def _check(path: Path, file: RemoteFile, on_bytes: OnBytes) -> None:
    """Compare with the hub's checksum; what differs is deleted, for it cannot be mended.

    Raises:
        DownloadError: It differs.
    """
    with path.open("rb") as content:
        found = _digest(content, file, on_bytes)
    if found != file.digest:
        path.unlink()
        raise DownloadError(
            f"{file.path} is not what the hub says it is: its checksum is {found[:12]}…, "
            f"and should be {file.digest[:12]}…",
            remedy="it was deleted; repeat the command to download it again",
        )


def _digest(content: BinaryIO, file: RemoteFile, on_bytes: OnBytes) -> str:
    """SHA-256, or SHA-1 with git's header where the hub lists that."""
    if len(file.digest) == 64:
        digest = hashlib.sha256()
    else:
        digest = hashlib.sha1(b"blob %d\0" % file.size_bytes, usedforsecurity=False)
    while chunk := content.read(_CHUNK_BYTES):
        digest.update(chunk)
        on_bytes("checking", len(chunk))
    return digest.hexdigest()


def _reporting(on_bytes: OnBytes) -> Any:
    """What huggingface_hub takes for a progress bar: as much of tqdm as it uses."""

    class Reporting:
        def __init__(self, *_: object, **__: object) -> None:
            pass

        def __enter__(self) -> Self:
            return self

        def __exit__(
            self,
            kind: type[BaseException] | None,
            error: BaseException | None,
            trace: TracebackType | None,
        ) -> None:
            pass

        def update(self, count: float | None = 1) -> None:
            on_bytes("downloading", int(count or 0))

    return Reporting
