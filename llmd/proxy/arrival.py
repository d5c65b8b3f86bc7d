"""What a request is when it has come: answered here, refused, or one for an engine."""

from msgspec import Struct

from llmd.errors import LlmdError
from llmd.proxy import dialect, local, ollama
from llmd.proxy.local import Answer
from llmd.proxy.paths import STREAMING, check
from llmd.proxy.peek import look
from llmd.proxy.relay import Relay
from llmd.proxy.reply import Reply
from llmd.proxy.request import Request
from llmd.proxy.service import Service


class Arrival(Struct, frozen=True):
    """A request for an engine.

    Attributes:
        request: As the engine will get it, but for what its profile changes.
        path: Where it goes, as `paths.canonical` has it.
        model: What it asks for; None is whatever is there.
        stream: Its own `stream`.
        expects_events: Whether its client does, and so can be sent comments.
        relay: The way of its answer.
    """

    request: Request
    path: str
    model: str | None
    stream: bool | None
    expects_events: bool
    relay: Relay


def understand(request: Request, reply: Reply, service: Service) -> Answer | Arrival:
    """What becomes of *request*, which is whole; causes nothing."""
    head = request.head
    translated = head.path in ollama.TRANSLATED and service.gate.is_gateway(service.port)
    try:
        answer = local.answer(request, port=service.port, gate=service.gate, guard=service.guard)
        if answer is not None:
            return answer
        if translated:
            return _translate(request, reply, service)
        return _for_engine(request, Relay(reply, head.name, service.limits), service)
    except LlmdError as error:
        body = dialect.render(error.to_openai(), head.path if translated else head.name)
        return Answer(error.status, dialect.error_lines(error), body)


def _for_engine(request: Request, relay: Relay, service: Service) -> Arrival:
    path = request.head.name
    said = look(request, path)
    if path != "/v1/chat/completions":
        # What the engine lacks is refused before it is loaded for that.
        there = service.gate.destination(service.port, said.model)
        if there is not None:
            check(there.profile, path, unsupported=there.unsupported, own_paths=there.own_paths)
    expects_events = said.stream is True and path in STREAMING
    return Arrival(request, path, said.model, said.stream, expects_events, relay)


def _translate(request: Request, reply: Reply, service: Service) -> Answer | Arrival:
    """A chat in Ollama's words becomes a chat completion, and its answer is told in theirs."""
    relay = ollama.OllamaRelay(reply, request.head.path, service.limits)
    question = ollama.read(request, service.gate.models(service.port))
    request.body = b""
    document = relay.ask(question, service.deadlines.now)
    if document is not None:
        return Answer(200, dialect.JSON_LINES, document)
    return _for_engine(question.request, relay, service)
