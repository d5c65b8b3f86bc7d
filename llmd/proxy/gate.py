"""What the data plane asks of the rest of llmd: a place for each request, and its story.

The daemon implements `Gate`; tests use a small one of their own. Everything is called on the event
loop, and `arrive` may settle before it returns.
"""

from collections.abc import Callable, Mapping
from math import inf
from typing import Any, Protocol

from msgspec import Struct, field

from llmd.errors import LlmdError


class Upstream(Struct, frozen=True):
    """A host's private address: a Unix socket path, or a loopback host and port (or a remote)."""

    path: str | None = None
    host: str = "127.0.0.1"
    port: int = 0
    tls: bool = False
    prefix: str = ""
    """Put before the request path in place of a leading `/v1` (remote base URLs)."""
    headers: Mapping[str, str] = field(default_factory=dict)
    """Set on each request, replacing the client's; among them the host's key."""


class BodyEdits(Struct, frozen=True):
    """What to change in a JSON request body; all empty means the body is not parsed.

    Attributes:
        defaults: Top-level fields, set where they are absent.
        force: Top-level fields, set always.
        check_fields: Whether the engine has fields of its own (`llmd.proxy.fields`).
        widen_schemas: Whether the engine takes only some JSON Schemas (`llmd.proxy.schemas`).
        tool_description_limit: Characters left of the description of a tool or parameter.
        refuse_addresses: Whether the engine fetches pictures by their address (`llmd.proxy.media`).
    """

    defaults: Mapping[str, Any] = field(default_factory=dict)
    force: Mapping[str, Any] = field(default_factory=dict)
    check_fields: bool = False
    widen_schemas: bool = False
    tool_description_limit: int | None = None
    refuse_addresses: bool = False


class Repair(Struct, frozen=True):
    """What was dropped from one schema that the engine would have refused.

    Attributes:
        tool: Its name; `response_format` or `json_schema` when it is the answer's own schema.
        dropped: Where, as JSON pointers into the schema: `#/properties/day/type`.
    """

    tool: str
    dropped: tuple[str, ...]


class Lease(Struct, frozen=True):
    """A granted request: where it goes, and what must be changed on the way."""

    profile: str
    upstream: Upstream
    edits: BodyEdits = BodyEdits()
    unsupported: frozenset[str] = frozenset()
    """Paths that this engine lacks and answers with a 501, such as `/v1/embeddings`."""
    own_paths: frozenset[str] | None = None
    """Further paths that this engine gets to see; None is all there are (`llmd.proxy.paths`)."""


class ModelCard(Struct, frozen=True):
    """What clients are told of a profile, by `/v1/models` and in Ollama's words.

    Attributes:
        context: Tokens of one sequence; None when llmd does not set it.
        capabilities: Of `chat`, `completions`, `embeddings`, `rerank`, `tools`, `reasoning` and
            `vision`, those that it is known to have.
        since_s: Listed since then, in seconds of the epoch.
        format: `gguf` or `mlx`; this and what follows is empty where llmd reads no weights.
        family: The architecture, as the format calls it.
        held_bytes: What its resident is charged now.
        idle_out_s: Seconds until it is unloaded if nobody uses it; infinite for never.
    """

    name: str
    state: str
    context: int | None = None
    aliases: tuple[str, ...] = ()
    capabilities: tuple[str, ...] = ()
    since_s: int = 0
    format: str = ""
    family: str = ""
    quantization: str = ""
    parameters: int = 0
    weights_bytes: int = 0
    held_bytes: int = 0
    idle_out_s: float = inf


class Destination(Struct, frozen=True):
    """Where a request would go if it arrived now."""

    profile: str
    unsupported: frozenset[str] = frozenset()
    """As in `Lease`: known before a load, so that a 501 does not cause one."""
    own_paths: frozenset[str] | None = None


Settled = Callable[[Lease | LlmdError], None]
Explained = Callable[[LlmdError], None]


class Gate(Protocol):
    """Places requests; the one door between the data plane and the decisions."""

    def arrive(self, port: int, model: str | None, settled: Settled) -> int:
        """Ask for a place for a request that came in on *port*; returns its ticket.

        *settled* is called once, now or later, with a lease or the error to answer; never after
        `leave`. Every ticket must be given back with `leave`, settled or not.
        """

    def leave(self, ticket: int, *, served: bool) -> None:
        """The request is over, in whatever way; idempotent. *served*: the engine answered it."""

    def waiting(self, ticket: int) -> str:
        """What a waiting request waits for, for a person: `loading code, 40 %`."""

    def destination(self, port: int, model: str | None) -> Destination | None:
        """Where `arrive` would send a request, without asking for it; causes nothing.

        None when it would be refused, or when there is no telling; `arrive` then says why.
        """

    def autopsy(self, lease: Lease, explained: Explained) -> None:
        """Find out why the engine of *lease* broke the connection; may wait briefly for its exit.

        *explained* is called exactly once, now or later, also when the request has been given back
        with `leave` meanwhile.
        """

    def repaired(self, profile: str, repair: Repair) -> None:
        """Tell that a request to *profile* was sent on with *repair*; most come again and again."""

    def health(self, port: int) -> dict[str, Any]:
        """The body of `GET /health`.

        `status` is `ok`, `degraded` or `failed`: nothing can be served; `ready` tells whether a
        model is ready now.
        """

    def models(self, port: int) -> list[ModelCard]:
        """The profiles that *port* serves."""

    def is_gateway(self, port: int) -> bool:
        """Whether *port* serves every profile by name."""
