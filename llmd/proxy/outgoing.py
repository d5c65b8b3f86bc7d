"""The request as a host gets to see it."""

from typing import Final

from llmd.proxy.gate import Upstream
from llmd.proxy.head import Head
from llmd.proxy.headers import NOT_FORWARDED
from llmd.proxy.request import Request


_WITH_BODY: Final = frozenset({b"POST", b"PUT", b"PATCH"})


def request_head(request: Request, upstream: Upstream) -> bytes:
    """The head for the engine: the client's, without what is not for it, plus the host's own.

    The body goes along as it is now, with a Content-Length however it came. The request's number
    does not: llama-cpp-python answers any that is no UUID with an empty 400.
    """
    head = request.head
    known = head.outgoing
    if known is None or known[0] is not upstream:
        known = head.outgoing = (upstream, _without_length(head, upstream))
    if request.body or head.method in _WITH_BODY:
        return b"%bContent-Length: %d\r\n\r\n" % (known[1], len(request.body))
    return known[1] + b"\r\n"


def _without_length(head: Head, upstream: Upstream) -> bytes:
    target = head.target
    if upstream.prefix:
        if target == b"/v1" or target.startswith((b"/v1/", b"/v1?")):
            target = target[3:]
        target = upstream.prefix.rstrip("/").encode() + target
    lines = head.forward
    if upstream.headers:
        replaced = {name.lower().encode() for name in upstream.headers} - NOT_FORWARDED
        lines = [
            line
            for line in lines
            if not replaced or line.partition(b":")[0].lower() not in replaced
        ]
        lines += [f"{name}: {value}".encode() for name, value in upstream.headers.items()]
    start = b"%b %b HTTP/1.1" % (head.method, target)
    host = b"Host: %b" % host_header(upstream)
    return b"\r\n".join([start, host, *lines, b"Accept-Encoding: identity", b""])


def host_header(upstream: Upstream) -> bytes:
    """What a host expects as its name."""
    if upstream.path is not None:
        return b"localhost"
    name = f"[{upstream.host}]" if ":" in upstream.host else upstream.host
    default = 443 if upstream.tls else 80
    return (name if upstream.port == default else f"{name}:{upstream.port}").encode()
