"""What h11, a strict parser that shares no line with llhttp, makes of the same bytes."""

from dataclasses import dataclass, field

import h11


@dataclass
class Reading:
    """Whole messages, and why there were no more.

    Attributes:
        messages: Those that were whole.
        refused: What h11 says is wrong with the rest; empty when the rest is only unfinished.
    """

    messages: list["Message"] = field(default_factory=list)
    refused: str = ""


@dataclass
class Message:
    """One request or answer. Header names are in lower case, in their order."""

    start: tuple[bytes, bytes] | int
    headers: list[tuple[bytes, bytes]]
    body: bytes

    def values(self, name):
        return [value for key, value in self.headers if key == name]


def requests_in(data, *, empty_lines=False):
    """The requests that *data* holds, as h11 reads them.

    *empty_lines*: skip those before a request, as RFC 9112 (2.2) has it and h11 does not.
    """
    found = Reading()
    while data:
        while empty_lines and data.startswith(b"\r\n"):
            data = data[2:]
        connection = h11.Connection(h11.SERVER, max_incomplete_event_size=2**20)
        connection.receive_data(data)
        try:
            message = _next(connection)
        except h11.RemoteProtocolError as error:
            found.refused = str(error)
            break
        if message is None:
            break
        found.messages.append(message)
        data, _ = connection.trailing_data
    return found


def answer_in(data, *, to=b"GET", ended=True):
    """The one answer to a *to* request that *data* holds, what follows it, and what is wrong.

    *ended*: the connection was closed behind it.
    """
    connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=2**20)
    connection.send(h11.Request(method=to, target=b"/", headers=[(b"host", b"a")]))
    connection.send(h11.EndOfMessage())
    connection.receive_data(data)
    if ended:
        connection.receive_data(b"")
    try:
        message = _next(connection)
    except h11.RemoteProtocolError as error:
        return None, b"", str(error)
    return message, connection.trailing_data[0], ""


def _next(connection):
    head, body = None, b""
    while True:
        event = connection.next_event()
        if event is h11.NEED_DATA or event is h11.PAUSED or isinstance(event, h11.ConnectionClosed):
            return None
        if isinstance(event, h11.Request | h11.Response):
            head = event
        elif isinstance(event, h11.Data):
            body += event.data
        elif isinstance(event, h11.EndOfMessage):
            start = (
                (head.method, head.target) if isinstance(head, h11.Request) else head.status_code
            )
            return Message(start, list(head.headers), body)
