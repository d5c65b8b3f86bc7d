"""One client connection: its requests in order, one at a time, and the clock against stalling."""

import asyncio
from typing import TYPE_CHECKING, Final

from llmd.errors import BrokenDownError, LlmdError, RequestTimeoutError
from llmd.proxy import dialect
from llmd.proxy.arrival import understand
from llmd.proxy.at_work import AtWork
from llmd.proxy.containment import contained, tell
from llmd.proxy.exchange import Exchange
from llmd.proxy.local import Answer
from llmd.proxy.reply import CONTINUE, Reply
from llmd.proxy.request import Request, RequestReader
from llmd.proxy.service import Service
from llmd.proxy.states import Stage
from llmd.proxy.wire import Wire


if TYPE_CHECKING:
    from collections.abc import Callable


# Bound once: to look a member up in its class costs ten times as much.
_HEAD: Final = Stage.HEAD
_HELD: Final = Stage.HELD
_BODY: Final = Stage.BODY
_BUSY: Final = Stage.BUSY
_LINGERING: Final = Stage.LINGERING
_CLOSING: Final = Stage.CLOSING
_ASKING: Final = frozenset({_HEAD, _HELD, _BODY})
"""It is the client's turn."""


class ClientConnection(Wire):
    """Serves one client.

    End of file from the client counts as a hang-up, as with most proxies: a client that closes its
    sending side early (`nc -N`) cannot be told from one that is gone, and the engine's time is
    worth more. A client that has sent more than `max_pipelined_bytes` ahead is not read from until
    its turn comes, and its hang-up is noticed no sooner.

    One alarm serves all time-outs; `_ring` tells from the stage what it means.

    Args:
        forget: Told when the connection is gone.
        refusal: The answer to whatever the client sends; it is sent at once.
        unread: What an earlier image had read of an adopted connection; None for a new one.
    """

    __slots__ = (
        "_adopted", "_advancing", "_began_s", "_exchange", "_forget", "_head_begun",
        "_lingered_bytes", "_reader", "_refusal", "_reply", "_request", "_request_id",
    )  # fmt: skip

    def __init__(
        self,
        service: Service,
        forget: "Callable[[ClientConnection], None]",
        *,
        refusal: LlmdError | None = None,
        unread: bytes | None = None,
    ) -> None:
        super().__init__(service, self._ring)
        self._forget = forget
        self._refusal = refusal
        self._reader = RequestReader(service.limits)
        self._reader.feed(unread or b"")
        self._adopted = unread is not None
        self._exchange: Exchange | None = None
        self._request: Request | None = None
        self._request_id = b"-"
        self._reply: Reply | None = None
        self._began_s = 0.0
        self._lingered_bytes = 0
        self._advancing = False
        self._head_begun = False

    @property
    def busy(self) -> bool:
        """Whether a request is being served."""
        return self._stage is _BUSY

    @property
    def idle(self) -> bool:
        """Whether nothing of a request has come since the last one."""
        return (self._stage is _HEAD or self._stage is _HELD) and not self._reader.pending

    @property
    def unread(self) -> bytes:
        """What was read of requests that have not begun."""
        return self._reader.unparsed

    # --- of asyncio ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client connected, now or in an earlier image."""
        super().connection_made(transport)
        limits = self._service.limits
        if self._refusal is not None:
            self._answer_early(self._refusal)
            return
        self.alarm.set(limits.keep_alive_s if self._adopted else limits.head_timeout_s)
        if self._service.held:
            self.hold()
        self._advance()

    def data_received(self, data: bytes) -> None:
        """Bytes of requests."""
        stage = self._stage
        if stage is _LINGERING:
            self._lingered_bytes += len(data)
            if self._lingered_bytes > self._service.limits.max_linger_bytes:
                self._reset()
            return
        if stage is _CLOSING:
            return
        reader = self._reader
        reader.feed(data)
        if stage is _BUSY or stage is _HELD or self.write_paused:
            if reader.pending > self._service.limits.max_pipelined_bytes:
                self._pause_reading()
            return
        self._advance()

    def eof_received(self) -> None:
        """The client is through with sending: a hang-up."""
        self._hang_up()

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone, whoever ended it."""
        del exc
        self._hang_up()
        self.alarm.close()
        self._stage = _CLOSING
        self._forget(self)

    def pause_writing(self) -> None:
        """The client reads slower than the engine writes."""
        self.write_paused = True
        if self._stage is not _LINGERING:
            self.alarm.set(self._service.limits.stall_s)
        if self._exchange is not None:
            self._exchange.pause()

    def resume_writing(self) -> None:
        """It has caught up."""
        self.write_paused = False
        if self._exchange is not None:
            self.alarm.clear()
            self._exchange.resume()
        elif self._stage in _ASKING:
            self.alarm.set(self._service.limits.keep_alive_s)
            self._resume_reading()
            self._advance()
            if self._stage is _HELD:
                self._service.on_rest()

    # --- requests ---

    @contained
    def _advance(self) -> None:
        """Serve what has come, until more must come or an exchange has the word."""
        if self._advancing:
            return
        self._advancing = True
        try:
            while not self.write_paused:
                try:
                    if not self._step():
                        break
                except LlmdError as error:
                    self._answer_early(error)
        finally:
            self._advancing = False

    def _step(self) -> bool:
        """One step; False when there is nothing to do now."""
        if self._stage is _BODY:
            return self._step_body(self._request)
        if self._stage is not _HEAD:
            return False
        request = self._reader.read_head()
        if request is not None:
            self._open(request)
            return self._step_body(request)
        if self._reader.pending and not self._head_begun:
            self._head_begun = True
            self.alarm.set(self._service.limits.head_timeout_s)
        return False

    def _step_body(self, request: Request | None) -> bool:
        if request is None:
            raise RuntimeError("a body without a request")
        if self._reader.read_body():
            return self._begin(request)
        limits = self._service.limits
        granted_s = limits.body_timeout_s * (1 + request.body_bytes / limits.body_step_bytes)
        left_s = self._began_s + granted_s - self._service.deadlines.now()
        self.alarm.set(max(min(left_s, limits.body_timeout_s), 0.001))
        if request.head.expects_continue:
            request.head.expects_continue = False  # no other request has this head
            self.write(CONTINUE)
        return False

    def _open(self, request: Request) -> None:
        """A head is complete: judge it before any of its body is taken."""
        service, head = self._service, request.head
        self._began_s = service.deadlines.now()
        self._head_begun = False
        self._request = request
        self._request_id = service.request_id(head.fields.get(b"x-request-id"))
        self._reply = reply = Reply(
            minor=head.minor,
            head_only=head.method == b"HEAD",
            keep_alive=head.keep_alive and not service.draining,
            lines=b"X-Request-Id: %b\r\n" % self._request_id,
        )
        self._stage = _BODY
        service.guard.judge(head, reply)

    def _begin(self, request: Request) -> bool:
        """The request is whole; True when it is answered on return."""
        reply = self._reply
        if reply is None:
            raise RuntimeError("a request without a reply")
        self.alarm.clear()
        self._stage = _BUSY
        found = understand(request, reply, self._service)
        if isinstance(found, Answer):
            self.write(reply.whole(found.status, found.lines, found.body))
            self.exchange_over()
            return True
        self._exchange = exchange = Exchange(self, self._service, found, reply)
        exchange.start()
        return self._exchange is None

    def exchange_over(self, *, reset: bool = False) -> None:
        """Of the exchange: everything has been written.

        *reset*: it is not whole, and only a reset can say so.
        """
        reply, self._exchange = self._reply, None
        self._request = self._reply = None
        if reset:
            self._reset()
            return
        if reply is None or not reply.keep_alive or self._service.draining:
            self._close()
            return
        self._stage = _HEAD
        if self._service.held:
            self.hold()
        if self.write_paused:
            self.alarm.set(self._service.limits.stall_s)
            return
        self.alarm.set(self._service.limits.keep_alive_s)
        self._resume_reading()
        if self._reader.pending:
            self._advance()

    # --- answers of its own ---

    def _answer_early(self, error: LlmdError) -> None:
        """Refuse a request that is not whole, or no request at all, and end the connection."""
        request, reply = self._request, self._reply
        if reply is None:
            self._request_id = self._service.request_id(None)
            lines = b"X-Request-Id: %b\r\n" % self._request_id
            reply = Reply(minor=1, head_only=False, keep_alive=False, lines=lines)
        # With no body to come, the next request can be found.
        goes_on = request is not None and not request.length and reply.keep_alive
        reply.keep_alive = goes_on
        path = "/" if request is None else request.head.path
        self._reply = reply
        body = dialect.render(error.to_openai(), path)
        self.write(reply.whole(error.status, dialect.error_lines(error), body))
        if goes_on:
            self.exchange_over()
            return
        self._request = self._reply = None
        self._linger()

    # --- ends ---

    def _hang_up(self) -> None:
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            exchange.hung_up()
            self._request = self._reply = None
        if self._stage is not _CLOSING:
            self._close()

    def abort(self) -> None:
        """End the connection now, whatever it is at."""
        self._hang_up()
        self._reset()

    def fail(self, bug: Exception) -> None:
        """Of `contained`: end the request that met *bug* with a 500, or break it off."""
        tell(bug, port=self._service.port, request_id=self._request_id.decode("latin-1"))
        if self._reply is None or self._reply.status:
            self.abort()
            return
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            exchange.hung_up()
        self._reply.keep_alive = False
        self._answer_early(BrokenDownError())

    def drain(self) -> None:
        """Close now if nothing is under way; otherwise the current answer is the last."""
        if self.idle:
            self._close()
        elif self._reply is not None:
            self._reply.keep_alive = False

    def end(self, error: LlmdError) -> None:
        """End the request that has begun, if any, with *error*, and the connection behind it."""
        if self._exchange is not None and self._reply is not None:
            self._reply.keep_alive = False
            self._exchange.end(error)
        elif self._stage is _BODY:
            self._answer_early(error)

    @property
    def at_work(self) -> AtWork | None:
        """Its request, while that is with an engine."""
        return None if self._exchange is None else self._exchange.at_work

    def release(self) -> None:
        """Go on with what has come since `hold`."""
        super().release()
        if self._stage is _HEAD:
            self._advance()

    @contained
    def _ring(self) -> None:
        """The alarm: what was waited for has not come."""
        if self.write_paused or self._stage is _CLOSING or self._stage is _LINGERING:
            self._reset()
        elif self._exchange is not None:
            self._exchange.silent()
        elif self.idle:
            self._close()
        elif self._stage is _HELD:
            # The client has sent something; that nobody looks at it is not its fault.
            self.alarm.set(self._service.limits.head_timeout_s)
        else:
            what = "body" if self._stage is _BODY else "headers"
            self._answer_early(
                RequestTimeoutError(f"the request's {what} did not come to an end in time")
            )
