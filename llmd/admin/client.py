"""The typed client of the admin API: synchronous, and quick to import.

Each request opens a connection of its own. Streams are iterators; closing one (or abandoning it)
closes its connection.
"""

import errno
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final, TypeVar
from urllib.parse import quote, urlencode

import msgspec

import llmd
from llmd.admin import wire
from llmd.admin.answer import Answer, BadAnswerError, request
from llmd.admin.operator import Progress
from llmd.admin.peer import peer_uid
from llmd.config.paths import SOCKET_PATH_MAX_BYTES
from llmd.errors import DaemonNotRunningError, LlmdError


T = TypeVar("T")

ANSWER_TIMEOUT_S: Final = 30.0
"""For what the daemon answers from memory; commands that wait for a model have no limit."""


class AnsweredError(LlmdError):
    """The daemon refused, or failed; what it said is kept word for word."""

    def __init__(self, detail: wire.ErrorDetail, status: int) -> None:
        """Take over *detail*, whose message repeats its remedy for clients that show only that."""
        remedy = detail.remedy or ""
        super().__init__(
            detail.message.removesuffix(f" ({remedy})"), remedy=remedy, param=detail.param
        )
        self.detail = detail
        self.http_status = status

    def to_openai(self) -> dict[str, Any]:
        """As it was answered."""
        return {"error": msgspec.to_builtins(self.detail)}


class NoAnswerError(LlmdError):
    """The daemon is there and gives no answer, or none that makes sense."""

    code = "no_answer"


class SocketDeniedError(LlmdError):
    """The control socket exists and belongs to somebody else."""

    code = "unauthorized"


class AdminClient:
    """Speaks to the daemon behind the Unix socket at *path*.

    *on_version* is called with the daemon's version, once, when it differs from ours: after an
    upgrade the old daemon runs until it is restarted.

    Every method raises `DaemonNotRunningError` when nobody listens, `AnsweredError` when the daemon
    says no, and `NoAnswerError` when the connection breaks.
    """

    def __init__(self, path: Path, *, on_version: Callable[[str], None] | None = None) -> None:
        self._path = path
        self._on_version = on_version

    def status(self) -> wire.Status:
        """Everything, now."""
        return self._ask("GET", "/v1/status", wire.Status)

    def profiles(self) -> tuple[wire.Profile, ...]:
        """The profiles, in file order."""
        return self._ask("GET", "/v1/profiles", wire.Profiles).profiles

    def plan(self, profile: str) -> wire.PlanReport:
        """What a load would do now."""
        return self._ask("GET", _of(profile, "plan"), wire.PlanReport)

    def metrics(self) -> str:
        """Prometheus text."""
        with self._request("GET", "/metrics") as response:
            return response.read().decode()

    def load(
        self,
        profile: str,
        *,
        pin: bool = False,
        ttl_s: float | None = None,
        progress: Progress | None = None,
    ) -> wire.LoadReport:
        """Make *profile* resident; returns once it is ready. Hanging up does not undo it."""
        body = wire.LoadRequest(pin=pin, ttl_s="never" if ttl_s == float("inf") else ttl_s)
        for line in self._lines("POST", _of(profile, "load"), body, accept=wire.NDJSON):
            event = _decode(line, wire.LoadEvent)
            if event.report is not None:
                return event.report
            if event.error is not None:
                raise AnsweredError(event.error, HTTPStatus.OK)
            if progress is not None:
                progress(event.stage or "", event.fraction)
        raise NoAnswerError(
            f"llmd ended while it loaded {profile}",
            remedy="llmd-ctl status tells whether it is back",
        )

    def unload(self, profile: str) -> wire.UnloadReport:
        """Drain and unload *profile*; returns once its memory is free."""
        path = _of(profile, "unload")
        return self._ask("POST", path, wire.UnloadReport, timeout_s=None)

    def unload_all(self) -> wire.UnloadReport:
        """Drain and unload every resident."""
        return self._ask("POST", "/v1/unload", wire.UnloadReport, timeout_s=None)

    def pin(self, profile: str, *, pinned: bool) -> wire.PinReport:
        """Pin or unpin *profile*."""
        return self._ask("POST", _of(profile, "pin" if pinned else "unpin"), wire.PinReport)

    def reload(self) -> wire.ReloadReport:
        """Apply the configuration file again."""
        return self._ask("POST", "/v1/reload", wire.ReloadReport, timeout_s=None)

    def restart(self) -> wire.RestartReport:
        """Begin the daemon's restart; it drains first. Then `status` tells when it is done."""
        return self._ask("POST", "/v1/restart", wire.RestartReport, timeout_s=None)

    def stop(self) -> wire.StopReport:
        """Begin the daemon's end; it drains first."""
        return self._ask("POST", "/v1/stop", wire.StopReport)

    def events(self, *, follow: bool = False, lines: int = 200) -> Iterator[wire.Event]:
        """The last decision records, then each new one; ends when the daemon does."""
        for line in self._stream("/v1/events", follow=follow, lines=lines):
            record = _decode(line, dict[str, Any])
            if set(record) == {"error"}:
                raise AnsweredError(_decode(line, wire.ErrorBody).error, HTTPStatus.OK)
            yield record

    def logs(
        self, profile: str | None = None, *, follow: bool = False, lines: int = 200
    ) -> Iterator[str]:
        """The last lines of a host's log, or the daemon's own; then each new one."""
        path = _of(profile, "logs") if profile else "/v1/logs"
        for line in self._stream(path, follow=follow, lines=lines):
            yield line.decode(errors="replace")

    # --- the connection --------------------------------------------------------------------------

    def _ask(
        self, method: str, path: str, kind: type[T], *, timeout_s: float | None = ANSWER_TIMEOUT_S
    ) -> T:
        with self._request(method, path, timeout_s=timeout_s) as response:
            return _decode(response.read(), kind)

    def _stream(self, path: str, *, follow: bool, lines: int) -> Iterator[bytes]:
        query = urlencode({"follow": int(follow), "lines": lines})
        timeout_s = None if follow else ANSWER_TIMEOUT_S
        return self._lines("GET", f"{path}?{query}", timeout_s=timeout_s)

    def _lines(
        self,
        method: str,
        path: str,
        body: wire.Wire | None = None,
        *,
        accept: str = wire.JSON,
        timeout_s: float | None = None,
    ) -> Iterator[bytes]:
        """The answer's lines, as they come.

        A generator, so that only errors of the connection are translated, and not those of
        whoever reads the lines.
        """
        with self._request(method, path, body, accept=accept, timeout_s=timeout_s) as response:
            yield from response

    @contextmanager
    def _request(
        self,
        method: str,
        path: str,
        body: wire.Wire | None = None,
        *,
        accept: str = wire.JSON,
        timeout_s: float | None = ANSWER_TIMEOUT_S,
    ) -> Iterator[Answer]:
        """Send a request and yield its answer, which is a success; close the connection at the end.

        Raises:
            LlmdError: As the class says.
        """
        text = msgspec.json.encode(body) if body is not None else b""
        headers = {"Accept": accept, "Content-Type": wire.JSON}
        with _dial(self._path, timeout_s) as sock, sock.makefile("rb") as stream:
            try:
                sock.sendall(request(method, path, text, headers))
                answer = Answer(stream)
                self._compare_versions(answer.headers.get(wire.VERSION_HEADER.lower()))
                if answer.status >= HTTPStatus.BAD_REQUEST:
                    raise _answered(answer)
                yield answer
            except TimeoutError as error:
                within = f" within {timeout_s:.0f} s" if timeout_s else ""
                raise NoAnswerError(
                    f"llmd did not answer{within}",
                    remedy="see its log; if it hangs for good, stop the process and start it again",
                ) from error
            except (ConnectionError, BadAnswerError) as error:
                raise NoAnswerError(
                    "llmd ended the connection before it had answered",
                    remedy="llmd-ctl status tells whether it still runs",
                ) from error

    def _compare_versions(self, theirs: str | None) -> None:
        if self._on_version is not None and theirs and theirs != llmd.__version__:
            tell, self._on_version = self._on_version, None
            tell(theirs)


@contextmanager
def _dial(path: Path, timeout_s: float | None) -> Iterator[socket.socket]:
    """A connection to the socket at *path*, closed at the end.

    Raises:
        DaemonNotRunningError: There is no socket, or nobody behind it.
        SocketDeniedError: It is not ours to use.
        NoAnswerError: It is there, and does not accept.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.settimeout(timeout_s)
        try:
            sock.connect(os.fspath(path))
        except (FileNotFoundError, ConnectionRefusedError, NotADirectoryError) as error:
            raise DaemonNotRunningError(
                f"no llmd answers on {path}",
                remedy="start it with `llmd-ctl start` (the installed service) or `llmd serve`, "
                "or name its socket with --socket",
            ) from error
        except PermissionError as error:
            raise SocketDeniedError(
                f"{path} belongs to another user",
                remedy="run llmd-ctl as the user that runs llmd",
            ) from error
        except OSError as error:
            raise _no_answer(path, error) from error
        _check_peer(sock, path)
        yield sock


def _check_peer(sock: socket.socket, path: Path) -> None:
    """Insist that our own daemon listens: what another user's says would be taken for its word."""
    owner = peer_uid(sock.fileno())
    # Root's are the sockets that launchd opened for it.
    if owner not in {0, os.getuid()}:
        raise SocketDeniedError(
            f"{path} is served by user {owner}, not by your llmd",
            remedy="name your own llmd's socket with --socket or LLMD_SOCKET",
        )


def _no_answer(path: Path, error: OSError) -> NoAnswerError:
    if len(os.fsencode(path)) > SOCKET_PATH_MAX_BYTES:
        return NoAnswerError(
            f"the socket path {path} is longer than {SOCKET_PATH_MAX_BYTES} bytes",
            remedy="choose a shorter one with --socket or LLMD_SOCKET",
        )
    if isinstance(error, TimeoutError) or error.errno == errno.EAGAIN:
        return NoAnswerError(
            f"whoever listens on {path} is too busy to answer",
            remedy="try again; if it hangs for good, stop the process and start it again",
        )
    return NoAnswerError(
        f"cannot use the socket {path}: {error.strerror or error}",
        remedy="name llmd's socket with --socket",
    )


def _of(profile: str, verb: str) -> str:
    return f"/v1/profiles/{quote(profile, safe='')}/{verb}"


def _decode(text: bytes, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(text, type=kind)
    except msgspec.DecodeError as error:
        raise NoAnswerError(
            f"the answer is not one of llmd {llmd.__version__}: {error}",
            remedy="restart llmd, so that it is as new as llmd-ctl",
        ) from error


def _answered(answer: Answer) -> LlmdError:
    text = answer.read()
    try:
        return AnsweredError(msgspec.json.decode(text, type=wire.ErrorBody).error, answer.status)
    except msgspec.DecodeError:
        return NoAnswerError(
            f"whatever listens there is not llmd: it answered {answer.status} {answer.reason}",
            remedy="name llmd's socket with --socket",
        )
