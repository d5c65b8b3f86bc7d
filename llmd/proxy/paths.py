"""The paths that llmd knows something about; all others go to the engine as they are."""

from typing import Final

from llmd.errors import UnsupportedError


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


def lacks(profile: str, path: str) -> UnsupportedError:
    """Of a request that the engine of *profile* could not serve: who could."""
    return UnsupportedError(
        f"the engine of {profile} has no {path}",
        remedy=_HAVE_IT.get(path, "use a profile of another engine; `llmd-ctl status` lists them"),
    )
