"""What the data plane can tell of requests that are with an engine, for whoever watches engines."""

from msgspec import Struct

from llmd.proxy.gate import Upstream


class AtWork(Struct, frozen=True):
    """A request that an engine has been sent and has not answered to its end.

    Attributes:
        upstream: The engine's; the very object of the lease.
        heard_s: When a piece of the answer last came, on the event loop's clock; 0.0 before that.
        held_up: The client takes nothing more, so that the engine may be waiting for it.
    """

    upstream: Upstream
    heard_s: float
    held_up: bool
