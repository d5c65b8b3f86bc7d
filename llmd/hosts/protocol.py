"""The control protocol between the daemon and a host: JSON lines on a Unix socket.

The daemon connects. It sends requests `{"id": 1, "op": "load", …}`, one per line; the host answers
`{"id": 1, "ok": true, …}` or `{"id": 1, "ok": false, "error": "…"}`, and may send
`{"id": 1, "event": "progress", "fraction": 0.4, "stage": "weights"}` in between. Requests may
overlap; answers come in the order in which the work is done. A host without a connection for
`orphan_grace_s` ends itself.

| op | argument | answer |
|---|---|---|
| hello | | protocol, instance, kind, pid, profile, fingerprint, state, upstream, error |
| prepare | | imports the engine; answers when done |
| load | launch (see `Launch`), fingerprint | upstream; answers after a one-token completion |
| settled | | state, upstream, error; answers once nothing is being prepared or loaded |
| status | | state, error, memory, in_flight (None: ask the server), generated_tokens |
| pulse | | progress, resting (both only where the engine counts); answered at once |
| trim | | drops prompt caches; freed_bytes |
| save | limit_bytes, within_s | writes prompts to disk for the next host; prompts, bytes |
| stop | | answers, then exits with status 0 |

`progress` is a text that differs whenever a token or a piece of a prompt was done; `resting` says
that the engine has nothing to do.

`upstream` is `{"path": …}`, or `{"host": …, "port": …, "headers": {…}}`; the fields of
`llmd.proxy.gate.Upstream`. `memory` is the engine's own count, in bytes, of what it knows:
`active_bytes`, `cache_bytes`, `peak_bytes`, `prompt_cache_bytes`, `weights_bytes`. A load that
failed answers with `error` and, when a server gave up, its `exit_code`; the host then waits to be
stopped.

States: `idle` (started), `preparing`, `prepared`, `loading`, `ready`, `failed`, `stopping`.

While a `llama` host loads it answers nothing: llama.cpp's Python module keeps the interpreter to
itself. SIGTERM ends it at once all the same.
"""

import json
from dataclasses import asdict, dataclass, field
from typing import Any, Final, Literal


PROTOCOL: Final = 1
MAX_LINE_BYTES: Final = 1 << 20

State = Literal["idle", "preparing", "prepared", "loading", "ready", "failed", "stopping"]


@dataclass(frozen=True, slots=True)
class Launch:
    """All that a host must know to run one profile; plain data, so that it can cross a socket.

    Attributes:
        profile: The profile's name, which the engine reports as `model`.
        kind: `mlx`, `llama` or `exec`: which host runs it.
        options: The engine's settings; the keys are documented by the host of that kind.
        env: Environment variables set before the engine is imported.
        load_timeout_s: The host gives up (and reports) after so long, if it can.
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
        """The reverse of `to_wire`.

        Raises:
            TypeError: A field is missing or unknown.
        """
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
        raise ValueError("a message is a JSON object")  # noqa: TRY004 - wrong data, not code
    return message
