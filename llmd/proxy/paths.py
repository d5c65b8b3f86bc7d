"""The paths that llmd knows something about, and which of them an engine gets to see.

Where llmd knows the engine, a port passes on what computes an answer from the request alone. What
tells of others or changes what they get (`/slots`, `/props`, `/lora-adapters`, `/v1/streams/…`),
runs programs (`/tools`) or asks other servers (`/cors-proxy`) is not for the clients of a port, and
neither is what a later version of the engine may bring: so the list is of what passes.
"""

from http import HTTPStatus
from typing import Final

from llmd.errors import InvalidRequestError, UnsupportedError


JSON_ENDPOINTS: Final = frozenset(
    {
        "/v1/chat/completions",
        "/v1/completions",
        "/v1/embeddings",
        "/v1/responses",
        "/v1/messages",
        "/v1/messages/count_tokens",
        "/v1/rerank",
    }
)
"""Paths that take a JSON object by POST and nothing else."""

STREAMING: Final = frozenset(
    {"/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/messages"}
)
"""Paths whose `stream: true` means server-sent events."""

ENDS_WITH_DONE: Final = frozenset({"/v1/chat/completions", "/v1/completions"})
"""Paths whose streams end with `data: [DONE]`."""

FORMS: Final = frozenset({"/v1/audio/transcriptions"})
"""Paths that take a form, with a file in it."""

_HAVE_IT: Final = {
    "/v1/embeddings": "a profile with `args: [--embeddings]` has it",
    "/v1/rerank": "a llama.cpp profile with `args: [--reranking]` has it",
}


def canonical(path: str) -> str:
    """*path* as the names above have it: with `/v1`, which many clients leave out."""
    if path in JSON_ENDPOINTS:
        return path
    path = path.rstrip("/") or "/"
    return path if path.startswith("/v1/") else "/v1" + path


class NotFoundError(InvalidRequestError):
    """Nobody has such a path, or not for the clients of a port."""

    code, status = "not_found", HTTPStatus.NOT_FOUND


def check(
    profile: str, path: str, *, unsupported: frozenset[str], own_paths: frozenset[str] | None
) -> None:
    """See that the engine of *profile* may be asked for *path* (canonical).

    Args:
        profile: Who would serve it.
        path: What was asked for.
        unsupported: What the engine is known to lack.
        own_paths: What it gets to see beside `JSON_ENDPOINTS`; None is everything.

    Raises:
        UnsupportedError: The engine lacks it.
        NotFoundError: It is not passed on.
    """
    if path in unsupported:
        raise lacks(profile, path)
    if own_paths is not None and path not in own_paths and path not in JSON_ENDPOINTS:
        raise NotFoundError(
            f"{profile} serves no {path.removeprefix('/v1')} to the clients of a port",
            remedy="GET /v1/models tells context and state; `llmd-ctl` administers",
        )


def lacks(profile: str, path: str) -> UnsupportedError:
    """Of a request that the engine of *profile* could not serve: who could."""
    return UnsupportedError(
        f"the engine of {profile} has no {path}",
        remedy=_HAVE_IT.get(path, "use a profile of another engine; `llmd-ctl status` lists them"),
    )
