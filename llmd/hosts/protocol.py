"""The control protocol between the daemon and a host: JSON lines on a Unix socket.

The daemon connects. It sends requests `{"id": 1, "op": "load", …}`, one per line; the host answers
`{"id": 1, "ok": true, …}` or `{"id": 1, "ok": false, "error": "…"}`, and may send
`{"event": "progress", "fraction": 0.4, "stage": "weights"}` in between. A host without a connection
for `orphan_grace_s` ends itself.

| op | argument | answer |
|---|---|---|
| hello | | protocol, instance, kind, pid, fingerprint, state, upstream |
| prepare | | imports the engine; answers when done |
| load | launch (see `Launch`), fingerprint | upstream; answers after a one-token completion |
| status | | state, memory (engine's own count), in_flight |
| trim | | drops prompt caches; freed_bytes |
| stop | | answers, then exits with status 0 |

States: `idle` (started), `preparing`, `prepared`, `loading`, `ready`, `failed`, `stopping`.
"""

import json
from dataclasses import asdict, dataclass, field
from typing import Any, Final


PROTOCOL: Final = 1
MAX_LINE_BYTES: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Launch:
    """All that a host must know to run one profile; plain data, so that it can cross a socket.

    Attributes:
        profile: The profile's name, which the engine reports as `model`.
        kind: `mlx`, `llama` or `exec`: which host runs it.
        options: The engine's settings; the keys are documented by the host of that kind.
        env: Environment variables set before the engine is imported.
        load_timeout_s: The host gives up (and reports) after so long.
    """

    profile: str
    kind: str
    options: dict[str, Any] = field(default_factory=dict)
    env: dict[str, str] = field(default_factory=dict)
    load_timeout_s: float = 600.0

    def to_wire(self) -> dict[str, Any]:
        """The launch as JSON-ready data."""
        return asdict(self)

    @classmethod
    def from_wire(cls, data: dict[str, Any]) -> "Launch":
        """The reverse of `to_wire`."""
        return cls(**data)


def encode(message: dict[str, Any]) -> bytes:
    """One message as a line."""
    return json.dumps(message, separators=(",", ":")).encode() + b"\n"


def decode(line: bytes) -> dict[str, Any]:
    """One line as a message.

    Raises:
        ValueError: The line is not a JSON object.
    """
    message = json.loads(line)
    if not isinstance(message, dict):
        raise ValueError("a message is a JSON object")
    return message
