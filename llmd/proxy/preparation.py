"""What a request becomes on its way to an engine: fields set, tools made fit, addresses refused."""

from llmd.proxy import edits, media, tools
from llmd.proxy.gate import Gate, Lease
from llmd.proxy.paths import JSON_ENDPOINTS, STREAMING, lacks
from llmd.proxy.request import Request


def prepare(request: Request, path: str, lease: Lease, gate: Gate, *, stream: bool | None) -> bool:
    """Change the body of *request* as the profile of *lease* wants it.

    Args:
        request: What the client sent; its `body` is replaced.
        path: Where it goes, as `paths.canonical` has it.
        lease: The place it got, and with it the profile's edits.
        gate: Told what was repaired.
        stream: The body's own `stream`.

    Returns:
        Whether the client will be answered with events: the profile may decide that.

    Raises:
        UnsupportedError: The engine lacks *path*.
        InvalidRequestError: The body is none that the engine may get.
    """
    if path in lease.unsupported:
        raise lacks(lease.profile, path)
    change = lease.edits
    if change.refuse_addresses:
        media.check(request)
    streams = stream is True and path in STREAMING
    if path not in JSON_ENDPOINTS:
        return streams
    if change.defaults or change.force:
        request.body = edits.apply(change, request.body)
        streams = edits.effective(change, "stream", stream) is True and path in STREAMING
    if tools.concerned(change, request.body):
        request.body, repairs = tools.apply(change, request.body)
        for repair in repairs:
            gate.repaired(lease.profile, repair)
    return streams
