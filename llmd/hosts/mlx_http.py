"""The HTTP face of the MLX host: mlx_lm.server's own handler, made a good citizen of HTTP/1.1.

mlx_lm's handler parses parameters, runs the chat template's tool and reasoning parsers and writes
OpenAI's objects. Around it: connections that stay open, framed bodies, OpenAI's error object, one
name for reasoning, requests that cannot change what is loaded, and clients that may hang up.
"""

import json
import logging
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http import HTTPStatus
from io import BytesIO
from typing import IO, Any, Final

from mlx_lm.server import APIHandler, get_system_fingerprint

from llmd.hosts.dialects import COUNT_TOKENS, TRANSLATED, Translation
from llmd.hosts.embeddings_body import Wanted, read_wanted
from llmd.hosts.http_server import HangupWatcher, Reply, read_body
from llmd.hosts.mlx_dialects import TranslatedReply, count_tokens
from llmd.hosts.mlx_embed import Embedder
from llmd.hosts.mlx_generate import CancelledError, ContextExceededError, Generator
from llmd.hosts.mlx_turn import Turn
from llmd.hosts.openai_body import RequestError, edit_body, param_of


_CHAT_PATH: Final = "/v1/chat/completions"
_CHAT: Final = frozenset({_CHAT_PATH, "/chat/completions"})
_TEXT: Final = frozenset({"/v1/completions"})
_EMBEDDINGS: Final = "/v1/embeddings"
_ANSWERED: Final = _CHAT | _TEXT | TRANSLATED.keys() | {COUNT_TOKENS}
_LACKING: Final = frozenset(
    {
        _EMBEDDINGS,
        "/v1/rerank",
        "/v1/reranking",
        "/v1/audio/transcriptions",
        "/v1/audio/speech",
        "/v1/images/generations",
    }
)
log = logging.getLogger("llmd.host")


@dataclass
class Service:
    """What the handlers of all connections share."""

    profile: str
    context_tokens: int
    generator: Generator
    embedder: Embedder | None = None
    watcher: HangupWatcher = field(default_factory=HangupWatcher)
    created: int = field(default_factory=lambda: int(time.time()))
    system_fingerprint: str = field(default_factory=get_system_fingerprint)
    in_flight: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def handle(self, connection: socket.socket) -> None:
        """Serve *connection* until it is closed."""
        Handler(self, connection)

    def count(self, step: int) -> None:
        """One more request, or one less."""
        with self._lock:
            self.in_flight += step


class Handler(APIHandler):  # type: ignore[misc]
    """One connection."""

    protocol_version = "HTTP/1.1"
    server_version = "llmd"
    path: str
    rfile: IO[bytes]
    wfile: IO[bytes]

    def __init__(self, service: Service, connection: socket.socket) -> None:
        self.service = service
        self.hung_up = False
        self.on_hangup: Callable[[], None] | None = None
        self._reply: Reply | None = None
        super().__init__(
            service.generator,
            connection,
            ("", 0),
            None,
            system_fingerprint=service.system_fingerprint,
        )

    # --- requests ---------------------------------------------------------------------------

    def do_GET(self) -> None:  # noqa: N802 - the base class's name
        """Health, and the one model there is."""
        path = self.path.partition("?")[0]
        if path in ("/health", "/v1/health"):
            self._send_json({"status": "ok"})
        elif path == "/v1/models":
            self._send_json({"object": "list", "data": [self._card()]})
        elif path == f"/v1/models/{self.service.profile}":
            self._send_json(self._card())
        else:
            self._send_error(self._no_such_path(path))

    def do_POST(self) -> None:  # noqa: N802
        """A completion, or the reason why not."""
        try:
            raw = read_body(self.rfile, self.headers)
        except ValueError:
            self.close_connection = True
            self._send_error(RequestError("the body's length or chunks make no sense"))
            return
        self.service.count(1)
        try:
            self._answer(self.path.partition("?")[0], raw)
        except RequestError as error:
            self._send_error(error)
        finally:
            self.service.count(-1)

    def do_OPTIONS(self) -> None:  # noqa: N802
        """Cross-origin questions are the daemon's to answer."""
        self._send_error(RequestError("no such method", status=HTTPStatus.METHOD_NOT_ALLOWED))

    def _answer(self, path: str, raw: bytes) -> None:
        """Answer the request with body *raw*, in the dialect of *path*.

        Raises:
            RequestError: It cannot be served; nothing has been sent.
        """
        embedder = self.service.embedder
        if path not in (_ANSWERED if embedder is None else {_EMBEDDINGS}):
            raise self._no_such_path(path)
        try:
            body = json.loads(raw)
        except ValueError as error:
            raise RequestError(f"the body is not JSON: {error}") from None
        profile = self.service.profile
        if embedder is not None:
            self._embed(embedder, read_wanted(body))
        elif path == COUNT_TOKENS:
            chat = edit_body(
                TRANSLATED["/v1/messages"](body, profile=profile).chat, chat=True, profile=profile
            )
            self._send_json({"input_tokens": count_tokens(self.service.generator, chat)})
        elif path in TRANSLATED:
            translation = TRANSLATED[path](body, profile=profile)
            chat = {**translation.chat, "stream_options": {"include_usage": True}}
            self._complete(_CHAT_PATH, edit_body(chat, chat=True, profile=profile), translation)
        else:
            self._complete(path, edit_body(body, chat=path in _CHAT, profile=profile), None)

    def _embed(self, embedder: Embedder, wanted: Wanted) -> None:
        """Answer with vectors, unless the client leaves first."""
        self.hung_up, self.on_hangup = False, None
        try:
            with self.service.watcher.watching(self.connection, self._on_hangup):
                answer = embedder.answer(
                    wanted, profile=self.service.profile, gone=lambda: self.hung_up
                )
        except CancelledError:
            self.close_connection = True
        else:
            self._send_json(answer)

    def _complete(self, path: str, body: dict[str, Any], translation: Translation | None) -> None:
        """Have mlx_lm's handler answer *body*, behind a `Reply`."""
        rfile, wfile = self.rfile, self.wfile
        reply = Reply(wfile) if translation is None else TranslatedReply(wfile, translation)
        self._reply = reply
        self.response_generator = turn = Turn(self, self.service.generator, translation)
        data = json.dumps(body).encode()
        self.path, self.rfile, self.wfile = path, BytesIO(data), reply  # type: ignore[assignment]
        del self.headers["Content-Length"]
        self.headers["Content-Length"] = str(len(data))
        self.created = int(time.time())
        self.hung_up, self.on_hangup = False, None
        broken: Exception | None = None
        try:
            with self.service.watcher.watching(self.connection, self._on_hangup):
                super().do_POST()
        except (CancelledError, ConnectionError):
            self.hung_up = True
        except Exception as error:  # noqa: BLE001 - the client must not take it for the end
            broken = error
        finally:
            self.rfile, self.wfile, self._reply = rfile, wfile, None
        if self.hung_up:
            self.close_connection = True
        elif broken is not None:
            log.error("request failed", exc_info=broken)
            self._break_off(reply, broken, translation)
        elif reply.failed:
            self._send_error(_translate(reply, turn.error, body))
        elif reply.streaming:
            reply.end_chunks()
        elif reply.withheld and translation is not None:
            self._send_json(translation.whole(json.loads(reply.answer)))

    def _break_off(self, reply: Reply, error: Exception, translation: Translation | None) -> None:
        """Something failed in the middle of an answer."""
        told = RequestError(
            f"the engine failed: {error}",
            code="engine_failed",
            status=HTTPStatus.INTERNAL_SERVER_ERROR,
        )
        if reply.streaming:
            event = f"data: {json.dumps(told.to_openai())}\n\n".encode()
            reply.write(event if translation is None else translation.broken(told))
            reply.end_chunks()
        else:
            self._headers_buffer: list[bytes] = []
            self._send_error(told)

    def _on_hangup(self) -> None:
        self.hung_up = True
        if self.on_hangup is not None:
            self.on_hangup()

    def keep_alive(self) -> None:
        """Show a waiting client that its stream lives."""
        if self._reply is not None and self._reply.streaming:
            self._reply.write(b": waiting\n\n")

    # --- what mlx_lm's handler writes -------------------------------------------------------

    def _set_completion_headers(self, status_code: int = 200) -> None:
        if status_code >= 400 and self._reply is not None:
            self._reply.begin_error(status_code)
        else:
            self.send_response(status_code)
            self.send_header("Content-Type", "application/json")

    def _set_stream_headers(self, status_code: int = 200) -> None:
        self.send_response(status_code)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Cache-Control", "no-cache")
        self.send_header("Transfer-Encoding", "chunked")

    def end_headers(self) -> None:
        """Send the headers, unless what follows will be told differently."""
        reply = self._reply
        if reply is not None and reply.failed:
            return
        if isinstance(reply, TranslatedReply) and not self.stream:
            self._headers_buffer = []
            reply.begin_answer()
            return
        super().end_headers()
        if reply is not None and self.stream:
            reply.begin_chunks()

    def generate_response(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """One response object, with reasoning under the name that all of llmd's engines use."""
        response: dict[str, Any] = super().generate_response(*args, **kwargs)
        for choice in response["choices"]:
            for part in ("message", "delta"):
                if "reasoning" in choice.get(part, ()):
                    choice[part]["reasoning_content"] = choice[part].pop("reasoning")
        return response

    def completion_usage_response(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """The last object of a stream that was asked to count."""
        return {**super().completion_usage_response(*args, **kwargs), "object": self.object_type}

    # --- answers of our own -----------------------------------------------------------------

    def _card(self) -> dict[str, Any]:
        return {
            "id": self.service.profile,
            "object": "model",
            "created": self.service.created,
            "owned_by": "llmd",
            "context_length": self.service.context_tokens,
        }

    def _no_such_path(self, path: str) -> RequestError:
        if path in _LACKING | _ANSWERED:
            lacking = f"mlx_lm has no {path}"
            if self.service.embedder is not None:
                lacking = (
                    f"this profile gives vectors (`--embeddings` in its `args`), and no {path}"
                )
            return RequestError(lacking, code="unsupported", status=HTTPStatus.NOT_IMPLEMENTED)
        return RequestError(f"there is no {path}", code="not_found", status=HTTPStatus.NOT_FOUND)

    def _send_json(self, content: Any, status: int = 200) -> None:
        data = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        if self.close_connection:
            self.send_header("Connection", "close")
        super().end_headers()
        self.wfile.write(data)

    def _send_error(self, error: RequestError) -> None:
        self._send_json(error.to_openai(), error.status)

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """A request that is not even HTTP, or uses another method."""
        del explain
        self.close_connection = True
        status = HTTPStatus(code)
        self._send_error(RequestError(message or status.phrase, status=status))

    def version_string(self) -> str:
        """The `Server` header."""
        return self.server_version

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
        """Requests are logged by the daemon."""


def _translate(reply: Reply, cause: Exception | None, body: dict[str, Any]) -> RequestError:
    """What mlx_lm's handler said went wrong, as the error to answer.

    Its status is mostly 404, so *cause*, when the generator raised it, decides.
    """
    if isinstance(cause, ContextExceededError):
        param = "messages" if "messages" in body else "prompt"
        return RequestError(str(cause), code="context_length_exceeded", param=param)
    try:
        message = str(json.loads(reply.error)["error"])
    except (ValueError, KeyError, TypeError):
        message = reply.error.decode(errors="replace")
    if isinstance(cause, RuntimeError):
        return RequestError(
            f"the engine failed: {message}",
            code="engine_failed",
            status=HTTPStatus.INTERNAL_SERVER_ERROR,
        )
    return RequestError(message or "the request is invalid", param=param_of(message, body))
