"""Checks of `llmd-ctl doctor` that concern the daemon and its ports. Each is a plain function."""

from collections.abc import Iterator
from pathlib import Path
from typing import Final

import llmd
from llmd.cli.findings import Check, Examined, Finding


_MANAGERS: Final = {"systemd", "launchd"}
"""They hold ports for llmd."""

_AIRPLAY: Final = "ControlCe"
"""What holds 5000 and 7000 on a Mac; process names may be cut off."""


def daemon_runs(seen: Examined) -> Iterator[Finding]:
    """Whether anybody answers; of an installed service others tell more."""
    if seen.status is None and seen.installed is None:
        yield Finding(
            "no llmd is running",
            "every connection to its ports is refused",
            "llmd-ctl install, or llmd serve in a terminal",
            serious=True,
        )


def daemon_is_of_this_version(seen: Examined) -> Iterator[Finding]:
    """Whether an upgrade has reached the daemon."""
    if seen.status is not None and seen.status.version != llmd.__version__:
        yield Finding(
            "the daemon is of another version",
            f"it is {seen.status.version}, and llmd-ctl is {llmd.__version__}",
            "llmd-ctl restart",
        )


def daemon_uses_the_file(seen: Examined) -> Iterator[Finding]:
    """Whether the daemon does what the file says."""
    if seen.status is None:
        return
    if seen.status.config_error is not None:
        yield Finding(
            "the daemon uses an older configuration than its file",
            seen.status.config_error,
            "llmd-ctl config check, then llmd-ctl reload",
            serious=True,
        )
    used = seen.status.config_path
    if used and Path(used).absolute() != seen.config_file and seen.installed is None:
        yield Finding(
            "the daemon uses another configuration",
            f"it uses {used}, and this is {seen.config_file}",
            f"llmd-ctl doctor --config {used}",
        )


def ports_are_free(seen: Examined) -> Iterator[Finding]:
    """Whether another program has a port of llmd's, which one, and how to end it."""
    wanted = _wanted(seen)
    holders = seen.machine.listeners(wanted) if wanted else {}
    for port, why in sorted(wanted.items()):
        name, pid = holders.get(port, ("", 0))
        ours = seen.state.pid if seen.state else None
        if name in _MANAGERS or (pid and pid == ours):
            continue
        if not name and not why:
            if seen.config is None or _is_managed(seen, port):
                continue
            if not any(seen.machine.is_taken(address, port) for address in seen.config.listen):
                continue
        yield _held(seen, port, name, pid, why)


def _wanted(seen: Examined) -> dict[int, str]:
    """Ports that llmd should have and has not, and what the daemon says of each."""
    if seen.status is not None:
        return {port.port: port.error for port in seen.status.ports if port.error}
    if seen.config is None:
        return {}
    ports = {profile.port for profile in seen.config.profiles.values()}
    if seen.config.gateway is not None:
        ports.add(seen.config.gateway.port)
    return dict.fromkeys(ports, "")


def _is_managed(seen: Examined, port: int) -> bool:
    """Whether the service manager should hold it; launchd does not show that it does."""
    return seen.installed is not None and port in seen.installed.ports


def _held(seen: Examined, port: int, name: str, pid: int, why: str) -> Finding:
    what = f"port {port} is in use by another program"
    if not name:
        why = why or "it is another user's: this one may not see which"
        return Finding(what, why, f"sudo lsof -nP -iTCP:{port} -sTCP:LISTEN", serious=True)
    remedy = f"kill {pid}, or choose another port"
    if name.startswith(_AIRPLAY):
        remedy = "System Settings, General, AirDrop & Handoff: turn off AirPlay Receiver"
    elif name == "ollama":
        remedy = f"quit Ollama (kill {pid}), or choose another port"
    elif name.lower().startswith("python") and seen.machine.has_brew_service("mlx-lm"):
        why = "homebrew.mxcl.mlx-lm, Homebrew's service of mlx_lm.server, starts at login"
        remedy = "brew services stop mlx-lm"
    return Finding(what, why or f"{name} (pid {pid}) listens on it", remedy, serious=True)


def nobody_queues_for_one_sequence(seen: Examined) -> Iterator[Finding]:
    """Whether requests wait for an engine that serves one at a time."""
    for profile in seen.status.profiles if seen.status is not None else ():
        if profile.queued and profile.sequences == 1:
            yield Finding(
                f"{profile.name} serves one request at a time",
                f"{profile.queued} requests wait for it on port {profile.port}",
                f"{_more_sequences(seen, profile.name)} in {seen.config_file}",
            )


def _more_sequences(seen: Examined, name: str) -> str:
    """What to change so that *name* serves several at once."""
    profile = seen.config.profiles.get(name) if seen.config is not None else None
    if getattr(profile, "runner", "") == "llama-cpp-python":
        return f"take `runner: llama-cpp-python` out of {name}"
    if getattr(profile, "draft_model", None) is not None:
        return f"take `draft_model` out of {name}"
    return f"raise `parallel` of {name}"


CHECKS: Final[tuple[Check, ...]] = (
    daemon_runs,
    daemon_is_of_this_version,
    daemon_uses_the_file,
    ports_are_free,
    nobody_queues_for_one_sequence,
)
