"""One request on its way to an engine and back: asks the gate, the pool and the host in turn.

The states are in `states.py`; how the answer looks to the client is in `relay.py`. A client that
hangs up ends an exchange in any state: the upstream connection is closed at once, which is how
engines are told to stop.
"""

from typing import TYPE_CHECKING, Final

from llmd.errors import EngineDiedError, LlmdError, UnsupportedError
from llmd.proxy.arrival import Arrival
from llmd.proxy.at_work import AtWork
from llmd.proxy.containment import contained
from llmd.proxy.gate import Lease
from llmd.proxy.outgoing import request_head
from llmd.proxy.preparation import prepare
from llmd.proxy.rate import Rate
from llmd.proxy.reply import Framing, Reply
from llmd.proxy.service import Service
from llmd.proxy.states import TRANSITIONS, S, T
from llmd.proxy.upstream import UpstreamConnection


if TYPE_CHECKING:
    from llmd.proxy.client import ClientConnection


# Bound once: to look a member up in its class costs ten times as much, for each chunk.
_WAITING: Final = S.WAITING
_SENT: Final = S.SENT
_COLLECTING: Final = S.COLLECTING
_STREAMING: Final = S.STREAMING
_AUTOPSY: Final = S.AUTOPSY
_DONE: Final = S.DONE
_GRANTED: Final = T.GRANTED
_CONNECTED: Final = T.CONNECTED
_HEAD: Final = T.HEAD
_ENDED: Final = T.ENDED


class Exchange:
    """One request of one client that needs an engine."""

    __slots__ = (
        "_arriving", "_client", "_connection", "_early_outcome", "_lease", "_model", "_path",
        "_rate", "_relay", "_reply", "_request", "_retried", "_service", "_state", "_stream",
        "_ticket", "_unreachable", "_wants_stream",
    )  # fmt: skip

    def __init__(
        self, client: "ClientConnection", service: Service, arrival: Arrival, reply: Reply
    ) -> None:
        self._client = client
        self._service = service
        self._reply = reply
        self._request = arrival.request
        self._path = arrival.path
        self._model = arrival.model
        self._relay = arrival.relay
        self._wants_stream = arrival.stream
        self._stream = arrival.expects_events
        """Whether the client expects events, and so can be sent comments."""
        self._state = _WAITING
        self._ticket: int | None = None
        self._lease: Lease | None = None
        self._arriving = False
        self._early_outcome: Lease | LlmdError | None = None
        self._connection: UpstreamConnection | None = None
        self._retried = False
        self._unreachable = ""
        """Why no connection could be made."""
        self._rate = Rate()

    @property
    def gone(self) -> bool:
        """Whether it is over; of a caller of the pool."""
        return self._state is _DONE

    @property
    def profile(self) -> str | None:
        """Who serves it, once that is known."""
        return None if self._lease is None else self._lease.profile

    @property
    def at_work(self) -> AtWork | None:
        """What is known of the engine's work on it; None while it is not with one."""
        if self._lease is None or self._connection is None:
            return None
        return AtWork(self._lease.upstream, self._rate.last_s, self._client.write_paused)

    def _fire(self, trigger: T) -> None:
        """Move on; the only writer of the state. A move that is not in the table is a bug."""
        self._state = TRANSITIONS[self._state, trigger]

    # --- waiting ---

    def start(self) -> None:
        """Ask for a place; may be over on return."""
        service = self._service
        self._arriving = True
        self._ticket = service.gate.arrive(service.port, self._model, self._settled)
        self._arriving = False
        if self._stream:
            self._client.alarm.set(service.limits.comment_s)
        if self._early_outcome is not None:
            self._settle(self._early_outcome)

    @contained
    def _settled(self, outcome: Lease | LlmdError) -> None:
        """The gate's answer; may come before `arrive` has returned the ticket."""
        if self._arriving:
            self._early_outcome = outcome
        elif self._state is _WAITING:
            self._settle(outcome)

    def _settle(self, outcome: Lease | LlmdError) -> None:
        if isinstance(outcome, LlmdError):
            self._refuse(outcome)
            return
        self._fire(_GRANTED)
        self._lease = outcome
        if not self._relay.early:
            self._relay.name_profile(outcome.profile)
        awaited = self._stream
        try:
            self._stream = prepare(
                self._request, self._path, outcome, self._service.gate, stream=self._wants_stream
            )
        except LlmdError as error:
            self._refuse(error)
            return
        if self._stream and not awaited:
            self._client.alarm.set(self._service.limits.comment_s)
        connection = self._service.pool.take(outcome.upstream)
        if connection is None:
            self._service.pool.connect(outcome.upstream, self)
        else:
            self._send(connection)

    # --- with the engine ---

    @contained
    def connected(self, connection: UpstreamConnection) -> None:
        """Of the pool: here is a connection."""
        self._send(connection)

    def _send(self, connection: UpstreamConnection) -> None:
        lease, request = self._lease, self._request
        if lease is None:
            raise RuntimeError("a connection without a lease")
        self._fire(_CONNECTED)
        self._connection = connection
        head = request_head(request, lease.upstream)
        connection.send(self, head, request.body, head_only=request.head.method == b"HEAD")
        if self._client.write_paused:
            connection.pause()

    @contained
    def unreachable(self, reason: str) -> None:
        """Of the pool: nobody answers at the host's address."""
        self._unreachable = reason
        self._ask_why()

    @contained
    def received(self, connection: UpstreamConnection, body: bytes) -> None:
        """Of the upstream: a head, a piece of the body, its end, or several of these at once."""
        relay = self._relay
        out = b""
        if connection.fresh_head:
            # No retry from here on; prompts can be large, and answers take long.
            self._request.body = b""
            if relay.collects(connection):
                self._fire(T.ERROR_HEAD)
            elif relay.fits(connection):
                self._fire(_HEAD)
                out = relay.head(connection)
                if relay.events is not None:
                    self._stream = True
                    self._client.alarm.set(self._service.limits.comment_s)
            else:
                # Comments were sent already, and now comes something that is no stream of events.
                self._fire(_HEAD)
                what = f"the engine of {self.profile} answered without streaming"
                self.end(UnsupportedError(what))
                return
        if self._state is _COLLECTING:
            if relay.collect(body):
                if connection.complete:
                    self._fire(_ENDED)
                    self._finish(relay.engine_error(connection))
                return
            self._fire(T.OVERFLOWED)
            out, body = relay.give_up_collecting(connection), b""
        if body:
            self._rate.piece(self._service.deadlines.now())
            out = out + relay.piece(body) if out else relay.piece(body)
        if not connection.complete:
            if out:
                self._client.write(out)
        elif relay.ended_well(connection):
            self._fire(_ENDED)
            self._finish(out + relay.end())
        else:
            self._client.write(out)
            self.broke(connection)

    def _finish(self, last: bytes) -> None:
        """The engine has answered: send *last*, the end of it, and give everything back."""
        # First, for uvloop sends at once; and to give the place back may set the next one going.
        self._client.write(last)
        connection, self._connection = self._connection, None
        if connection is not None:
            self._service.pool.give_back(connection)
        events, on_rate = self._relay.events, self._service.on_rate
        if events is not None and on_rate is not None and self._lease is not None:
            self._rate.tell(self._lease.profile, events.count, on_rate)
        self._leave(served=True)
        self._client.exchange_over()

    @contained
    def broke(self, connection: UpstreamConnection) -> None:
        """Of the upstream: it ended before its answer did."""
        self._connection = None
        connection.abort()
        stale = self._state is _SENT and connection.reused and not connection.started
        if stale and not self._retried and self._lease is not None:
            # It was closed while it was kept, most likely; a fresh one will tell.
            self._retried = True
            self._fire(T.STALE)
            self._service.pool.connect(self._lease.upstream, self)
        elif self._relay.said_done:
            self._whole()
        elif not self._relay.can_explain:
            self._fire(T.CUT)
            self._leave(served=False)
            self._cut()
        elif connection.fault:
            self._fire(T.BROKE)
            what = f"the engine of {self.profile} answered with broken HTTP: {connection.fault}"
            self._explained(EngineDiedError(what))
        else:
            self._ask_why()

    def _whole(self) -> None:
        """The answer was whole before the connection ended: nothing is added but its end."""
        self._fire(_ENDED)
        self._finish(self._relay.end())

    def _cut(self) -> None:
        """End the connection so that nobody takes the half answer for a whole one."""
        reply = self._reply
        reply.keep_alive = False
        # Other framings tell, and what was sent so far still arrives.
        self._client.exchange_over(reset=reply.framing is Framing.CLOSE)

    def _ask_why(self) -> None:
        self._fire(T.BROKE)
        if self._lease is not None:
            self._service.gate.autopsy(self._lease, self._explained)

    @contained
    def _explained(self, error: LlmdError) -> None:
        """The gate's finding about an engine that did not keep its word."""
        if self._state is not _AUTOPSY:
            return
        self._fire(T.EXPLAINED)
        if self._unreachable:
            error = EngineDiedError(f"{error.message}: {self._unreachable}", remedy=error.remedy)
        self._answer_error(error)

    # --- ends ---

    def end(self, error: LlmdError) -> None:
        """End it now, with *error* as far as that can still be told."""
        if self._state is _WAITING:
            self._refuse(error)
            return
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.abort()
        if self._relay.said_done:
            self._whole()
            return
        if not self._relay.can_explain:
            self._fire(T.CUT)
            self._leave(served=False)
            self._cut()
            return
        if self._state is not _AUTOPSY:
            self._fire(T.BROKE)
        self._fire(T.EXPLAINED)
        self._answer_error(error)

    def _refuse(self, error: LlmdError) -> None:
        self._fire(T.REFUSED)
        self._answer_error(error)

    def _answer_error(self, error: LlmdError) -> None:
        self._leave(served=False)
        self._client.write(self._relay.error(error))
        self._client.exchange_over()

    def _leave(self, *, served: bool) -> None:
        ticket, self._ticket = self._ticket, None
        if ticket is not None:
            self._service.gate.leave(ticket, served=served)

    # --- the client ---

    def hung_up(self) -> None:
        """The client is gone: stop the engine and give the place back, at once."""
        if self._state is not _DONE:
            self._fire(T.LEFT)
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.abort()
        self._leave(served=False)

    def fail(self, bug: Exception) -> None:
        """Of `contained`."""
        self._client.fail(bug)

    def pause(self) -> None:
        """The client does not keep up: let the engine wait."""
        if self._connection is not None:
            self._connection.pause()

    def resume(self) -> None:
        """The client keeps up again."""
        if self._connection is not None:
            self._connection.resume()
        if self._stream:
            self._client.alarm.set(self._service.limits.comment_s)

    def silent(self) -> None:
        """The client's alarm: show that somebody is there, if nothing was sent for a while."""
        if not self._stream:
            return
        service, delay_s = self._service, self._service.limits.comment_s
        if self._state is _STREAMING:
            quiet_s = service.deadlines.now() - self._rate.last_s
            if quiet_s < delay_s:
                self._client.alarm.set(delay_s - quiet_s)
                return
        profile = None
        if self._lease is None:
            there = service.gate.destination(service.port, self._model)
            profile = None if there is None else there.profile
        text = "" if self._ticket is None else service.gate.waiting(self._ticket)
        self._client.alarm.set(delay_s)
        self._client.write(self._relay.comment(text, profile))
