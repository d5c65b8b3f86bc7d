"""What a request becomes on its way to an engine: fields set, tools made fit, addresses refused."""

from llmd.proxy import edits, fields, media, tools
from llmd.proxy.gate import Gate, Lease
from llmd.proxy.paths import FORMS, JSON_ENDPOINTS, STREAMING, check
from llmd.proxy.peek import peek
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
        NotFoundError: The engine does not get to see it.
        InvalidRequestError: The body is none that the engine may get.
    """
    check(lease.profile, path, unsupported=lease.unsupported, own_paths=lease.own_paths)
    change = lease.edits
    if change.refuse_addresses:
        media.check(request)
    streams = stream is True and path in STREAMING
    if path not in JSON_ENDPOINTS:
        if lease.own_paths is None or path in FORMS or not request.body:
            return streams
        peek(request.body)  # an engine's own path, whose body is edited like any other
    if change.check_fields:
        request.body = fields.check(path, request.body)
    if change.defaults or change.force:
        request.body = edits.apply(change, request.body)
        streams = edits.effective(change, "stream", stream) is True and path in STREAMING
    if tools.concerned(change, request.body):
        request.body, repairs = tools.apply(change, request.body)
        for repair in repairs:
            gate.repaired(lease.profile, repair)
    return streams
