"""Every error a person can meet: what happened, a stable code, and what to do next.

One tree, rendered in one place (`LlmdError.to_openai`), so that a curl user, an OpenAI client and
`llmd-ctl` read the same words. Errors that answer a request carry the HTTP status they become.
"""

from collections.abc import Sequence
from http import HTTPStatus
from typing import Any, ClassVar


def describe_bytes(count: int) -> str:
    """*count* bytes as people read them: `1.5 GiB`, `640 MiB`, `12 KiB`."""
    for unit, size in (("TiB", 2**40), ("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if abs(count) >= size:
            value = count / size
            return (
                f"{value:.0f} {unit}"
                if value >= 100 or value == int(value)
                else f"{value:.1f} {unit}"
            )
    return f"{count} B"


class LlmdError(Exception):
    """Something a user should hear about.

    Attributes:
        code: Stable and documented; programs may match on it.
        status: The HTTP status of a request that ends with this error.
        type: OpenAI's coarse class of the error.
        message: What happened, in one sentence.
        remedy: What to do next; empty when there is nothing to do.
        param: The request field or configuration path at fault.
        retry_after_s: When trying again makes sense, in seconds.
    """

    code: ClassVar[str] = "internal_error"
    status: ClassVar[HTTPStatus] = HTTPStatus.INTERNAL_SERVER_ERROR
    type: ClassVar[str] = "server_error"

    def __init__(
        self,
        message: str,
        *,
        remedy: str = "",
        param: str | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy
        self.param = param
        self.retry_after_s = retry_after_s

    def to_openai(self) -> dict[str, Any]:
        """The error as OpenAI's object, plus `remedy`."""
        return {
            "error": {
                "message": f"{self.message} ({self.remedy})" if self.remedy else self.message,
                "type": self.type,
                "code": self.code,
                "param": self.param,
                "remedy": self.remedy or None,
            }
        }


class ConfigError(LlmdError):
    """The configuration file cannot be used; the daemon keeps what it had."""

    code, status = "config_invalid", HTTPStatus.BAD_REQUEST
    type = "invalid_request_error"


class InvalidRequestError(LlmdError):
    """The request cannot be understood."""

    code, status = "invalid_request", HTTPStatus.BAD_REQUEST
    type = "invalid_request_error"


class TooLargeError(LlmdError):
    """The body is larger than `max_body`."""

    code, status = "too_large", HTTPStatus.REQUEST_ENTITY_TOO_LARGE
    type = "invalid_request_error"


class HeaderTooLargeError(LlmdError):
    """The request line and headers are larger than the limit."""

    code, status = "too_large", HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
    type = "invalid_request_error"


class RequestTimeoutError(LlmdError):
    """The client began a request and did not finish it in time."""

    code, status = "request_timeout", HTTPStatus.REQUEST_TIMEOUT
    type = "invalid_request_error"


class UnauthorizedError(LlmdError):
    """`api_keys` is set and the request carries none of them."""

    code, status = "unauthorized", HTTPStatus.UNAUTHORIZED
    type = "authentication_error"


class ForbiddenOriginError(LlmdError):
    """A web page, or a name that is not this machine, tried to use a port."""

    code, status = "forbidden_origin", HTTPStatus.FORBIDDEN
    type = "permission_error"


class ModelNotFoundError(LlmdError):
    """No profile has that name or alias."""

    code, status = "model_not_found", HTTPStatus.NOT_FOUND
    type = "invalid_request_error"


class UnsupportedError(LlmdError):
    """The engine behind the port has no such function."""

    code, status = "unsupported", HTTPStatus.NOT_IMPLEMENTED
    type = "invalid_request_error"


class BudgetExceededError(LlmdError):
    """Even with every evictable resident gone there would be no room."""

    code, status = "budget_exceeded", HTTPStatus.SERVICE_UNAVAILABLE

    def __init__(
        self,
        profile: str,
        *,
        need_bytes: int,
        budget_bytes: int,
        kept: Sequence[tuple[str, int]] = (),
    ) -> None:
        kept_bytes = sum(size for _, size in kept)
        if kept:
            held = ", ".join(f"{name} {describe_bytes(size)}" for name, size in kept)
            message = (
                f"{profile} needs {describe_bytes(need_bytes)}; of the budget of "
                f"{describe_bytes(budget_bytes)}, {describe_bytes(kept_bytes)} stay: {held}"
            )
            remedy = f"unpin or unload one of: {', '.join(name for name, _ in kept)}"
        else:
            message = (
                f"{profile} needs {describe_bytes(need_bytes)}, more than the whole budget of "
                f"{describe_bytes(budget_bytes)}"
            )
            remedy = "raise `budget`, or lower `context` or `parallel` of the profile"
        super().__init__(message, remedy=remedy)
        self.need_bytes, self.budget_bytes = need_bytes, budget_bytes


class PortPinnedError(LlmdError):
    """The port's resident is pinned, so another profile cannot take its place."""

    code, status = "port_pinned", HTTPStatus.CONFLICT

    def __init__(self, profile: str, *, resident: str, port: int) -> None:
        super().__init__(
            f"{profile} cannot replace {resident} on port {port}: {resident} is pinned",
            remedy=f"llmd-ctl unpin {resident}",
        )


class LoadFailedError(LlmdError):
    """The host did not become ready."""

    code, status = "load_failed", HTTPStatus.BAD_GATEWAY


class EngineDiedError(LlmdError):
    """The host ended while a request was with it."""

    code, status = "engine_died", HTTPStatus.BAD_GATEWAY


class UnloadedError(LlmdError):
    """The profile was unloaded or taken out of the configuration while a request waited for it."""

    code, status = "unloaded", HTTPStatus.SERVICE_UNAVAILABLE


class ShuttingDownError(LlmdError):
    """The daemon is stopping."""

    code, status = "shutting_down", HTTPStatus.SERVICE_UNAVAILABLE


class RestartRefusedError(LlmdError):
    """What is installed or configured now would not start; the running daemon goes on."""

    code, status = "restart_refused", HTTPStatus.CONFLICT


class QueueFullError(LlmdError):
    """`queue_limit` requests are waiting for the profile already."""

    code, status = "queue_full", HTTPStatus.TOO_MANY_REQUESTS
    type = "rate_limit_error"

    def __init__(self, profile: str, *, limit: int) -> None:
        super().__init__(
            f"{limit} requests are waiting for {profile} already",
            remedy="try again later, or raise `queue_limit`",
            retry_after_s=5.0,
        )


class QueueTimeoutError(LlmdError):
    """The request waited `queue_timeout` and was not served."""

    code, status = "queue_timeout", HTTPStatus.GATEWAY_TIMEOUT

    def __init__(self, profile: str, *, waited_s: float) -> None:
        super().__init__(
            f"the request waited {waited_s:.0f} s for {profile}",
            remedy="see what holds it with `llmd-ctl status`, or raise `queue_timeout`",
        )


class PortInUseError(LlmdError):
    """Another program listens on a configured port."""

    code, status = "port_in_use", HTTPStatus.CONFLICT


class DaemonNotRunningError(LlmdError):
    """Nobody answers on the admin socket."""

    code, status = "daemon_not_running", HTTPStatus.SERVICE_UNAVAILABLE


class AlreadyRunningError(LlmdError):
    """Another daemon owns the admin socket."""

    code, status = "already_running", HTTPStatus.CONFLICT


class WeightsError(LlmdError):
    """Weights are not there, or are not what the engine can read."""

    code, status = "weights_invalid", HTTPStatus.BAD_REQUEST


class BrokenDownError(LlmdError):
    """A bug of llmd met a request; the log has its kind and place under the request's number."""

    def __init__(self) -> None:
        super().__init__(
            "llmd broke down over this request",
            remedy="the log says where (`llmd-ctl logs`); please report it",
        )


class HostStuckError(LlmdError):
    """A host outlived SIGKILL; its memory stays charged."""

    code = "host_stuck"
