"""The request as a host gets to see it."""

from llmd.proxy.gate import Upstream
from llmd.proxy.request import Request


def request_head(
    request: Request, upstream: Upstream, *, body_bytes: int, request_id: bytes
) -> bytes:
    """The head for the engine: the client's, without what is not for it, plus the host's own."""
    target = request.target
    if upstream.prefix:
        if target == b"/v1" or target.startswith((b"/v1/", b"/v1?")):
            target = target[3:]
        target = upstream.prefix.rstrip("/").encode() + target
    lines = b"".join(request.forward)
    if upstream.headers:
        replaced = {name.lower().encode() for name in upstream.headers}
        if any(line.partition(b":")[0].lower() in replaced for line in request.forward):
            lines = b"".join(
                line for line in request.forward if line.partition(b":")[0].lower() not in replaced
            )
        lines += "".join(
            f"{name}: {value}\r\n" for name, value in upstream.headers.items()
        ).encode()
    length = b"Content-Length: %d\r\n" % body_bytes if body_bytes or request.length else b""
    return (
        b"%b %b HTTP/1.1\r\nHost: %b\r\n%b%bAccept-Encoding: identity\r\nX-Request-Id: %b\r\n\r\n"
        % (
            request.method,
            target,
            host_header(upstream),
            lines,
            length,
            request_id,
        )
    )


def host_header(upstream: Upstream) -> bytes:
    """What a host expects as its name."""
    if upstream.path is not None:
        return b"localhost"
    name = f"[{upstream.host}]" if ":" in upstream.host else upstream.host
    default = 443 if upstream.tls else 80
    return (name if upstream.port == default else f"{name}:{upstream.port}").encode()
