"""What can go wrong with a model hub, in one line each and with the way out."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import httpx2
from huggingface_hub import errors, get_token

from llmd.errors import LlmdError


_AGAIN = "repeat the command: it goes on where it stopped"


class DownloadError(LlmdError):
    """A download could not be begun, or did not come to its end. What has arrived is kept."""

    code = "download_failed"


@contextmanager
def explained(repository: str, endpoint: str, directory: Path | None = None) -> Iterator[None]:
    """Turn what huggingface_hub and the system raise into `DownloadError`.

    Args:
        repository: What is asked for.
        endpoint: Whom.
        directory: Where it is written to.
    """
    try:
        yield
    except (errors.HfHubHTTPError, errors.HFValidationError, errors.OfflineModeIsEnabled) as error:
        raise _refused(error, repository, endpoint) from error
    except (httpx2.TransportError, httpx2.InvalidURL) as error:
        host = urlsplit(endpoint).hostname or endpoint
        raise DownloadError(
            f"{host} cannot be reached, or the connection broke off: {_words(error)}",
            remedy=f"look at the network, HTTPS_PROXY and HF_ENDPOINT, then {_AGAIN}",
        ) from error
    except OSError as error:
        raise _system(error, directory) from error
    except ValueError as error:  # an answer that is none
        raise DownloadError(
            f"{endpoint} answers in a way llmd does not understand: {_words(error)}",
            remedy="look at HF_ENDPOINT",
        ) from error


def _refused(error: Exception, repository: str, endpoint: str) -> DownloadError:
    page = f"{endpoint}/{repository}"
    match error:
        case errors.GatedRepoError():
            return DownloadError(
                f"{repository} is gated: its owner wants to know who downloads it",
                remedy=f"accept the terms at {page}, then `hf auth login`, or set HF_TOKEN",
            )
        case errors.RepositoryNotFoundError():
            return _not_there(repository, endpoint)
        case errors.HFValidationError():
            return DownloadError(
                f"{repository!r} is no name of a repository",
                remedy="write it like mlx-community/Qwen3-8B-4bit or org/name-GGUF:Q4_K_M",
            )
        case errors.OfflineModeIsEnabled():
            return DownloadError("HF_HUB_OFFLINE is set", remedy="unset it to download")
        case errors.HfHubHTTPError():
            status = error.response.status_code
            if status == 401 and get_token() is None:
                return _not_there(repository, endpoint)
            if status == 401:
                return DownloadError(
                    f"{endpoint} does not accept your token", remedy="hf auth login, or HF_TOKEN"
                )
            return DownloadError(
                f"{endpoint} answered {status} {error.response.reason_phrase}".rstrip(),
                remedy=f"wait a while and {_AGAIN}" if status >= 429 else f"look at {page}",
            )
    return DownloadError(_words(error), remedy=_AGAIN)


def _not_there(repository: str, endpoint: str) -> DownloadError:
    """Hubs do not tell strangers which of the two it is."""
    return DownloadError(
        f"there is no repository {repository} at {endpoint}, or it is private",
        remedy="check its name; for a private one `hf auth login`, or set HF_TOKEN",
    )


def _system(error: OSError, directory: Path | None) -> DownloadError:
    if error.errno == errno.ENOSPC:
        return DownloadError(f"the disk of {directory} is full", remedy=f"make room, then {_AGAIN}")
    if error.errno in {errno.EACCES, errno.EPERM, errno.EROFS}:
        return DownloadError(
            f"{error.filename or directory} may not be written: {error.strerror}",
            remedy="choose another directory with --dir",
        )
    if error.errno is None:  # the hub's library says so when fewer bytes came than announced
        return DownloadError("the connection broke off", remedy=_AGAIN)
    return DownloadError(f"{error.filename or directory}: {error.strerror}", remedy=_AGAIN)


def _words(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text[:200] or type(error).__name__
