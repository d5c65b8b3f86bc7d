"""The command line of a host, written and recognized."""

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Final


HOST_PROGRAM: Final = ("-m", "llmd.hosts")
"""The interpreter's arguments that name the host program."""


def host_options(
    kind: str,
    *,
    instance: str,
    control: Path,
    upstream: Path,
    orphan_grace_s: float,
    owner: Path | None,
) -> list[str]:
    """What the host program is told; see `HostProcess.start`."""
    return [
        *("--kind", kind, "--instance", instance),
        *("--control", str(control), "--upstream", str(upstream)),
        *("--orphan-grace", f"{orphan_grace_s:g}"),
        *((f"--owner={owner}",) if owner is not None else ()),
    ]


def is_host_of(words: Sequence[str], owner: Path) -> bool:
    """Whether a command line is that of a host that the daemon on *owner* started."""
    return tuple(words[1:3]) == HOST_PROGRAM and f"--owner={owner}" in words


def sockets_of(words: Sequence[str]) -> list[Path]:
    """The sockets that a host's command line names."""
    return [Path(path) for option, path in pairwise(words) if option in ("--control", "--upstream")]
