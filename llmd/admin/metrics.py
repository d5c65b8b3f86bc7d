"""A status as Prometheus text."""

from collections.abc import Iterable
from typing import Final, get_args

from llmd.admin import wire


STATES: Final = get_args(wire.State)


def prometheus_text(status: wire.Status) -> str:
    """The exposition format (0.0.4) of *status*. Counters start at zero with the daemon."""
    budget = status.budget
    out = [
        _metric(
            "llmd_info", "gauge", "The version.", [(f'version="{_quoted(status.version)}"', 1)]
        ),
        _metric("llmd_uptime_seconds", "gauge", "Since the start.", [("", status.uptime_s)]),
        _metric("llmd_tasks", "gauge", "What the daemon has under way.", [("", status.tasks)]),
        _metric("llmd_budget_bytes", "gauge", "The memory budget.", [("", budget.total_bytes)]),
        _metric("llmd_used_bytes", "gauge", "Charged to the budget.", [("", budget.used_bytes)]),
        _metric("llmd_peak_bytes", "gauge", "Its highest, so far.", [("", budget.peak_bytes)]),
        _metric(
            "llmd_port_open",
            "gauge",
            "Whether the port is bound.",
            [(f'port="{port.port}"', 0 if port.error else 1) for port in status.ports],
        ),
        _metric(
            "llmd_profile_state",
            "gauge",
            "1 for the state that a profile is in.",
            [
                (f'{_labels(profile)},state="{state}"', int(profile.state == state))
                for profile in status.profiles
                for state in STATES
            ],
        ),
    ]
    for name, kind, text, field in _PROFILE_METRICS:
        values = ((_labels(p), getattr(p, field)) for p in status.profiles)
        out.append(_metric(name, kind, text, ((k, v) for k, v in values if v is not None)))
    return "".join(out)


_PROFILE_METRICS: Final = (
    ("llmd_profile_footprint_bytes", "gauge", "Charged to the profile.", "footprint_bytes"),
    ("llmd_profile_measured_bytes", "gauge", "Held by its host, as measured.", "measured_bytes"),
    ("llmd_profile_in_flight", "gauge", "Requests being served.", "in_flight"),
    ("llmd_profile_queued", "gauge", "Requests waiting.", "queued"),
    ("llmd_profile_tokens_per_second", "gauge", "Of the last answers.", "tokens_per_s"),
    ("llmd_profile_load_seconds", "gauge", "The last load took.", "load_s"),
    ("llmd_profile_requests_total", "counter", "Requests granted.", "requests"),
    ("llmd_profile_loads_total", "counter", "Loads completed.", "loads"),
    ("llmd_profile_evictions_total", "counter", "Times it was evicted.", "evictions"),
)


def _metric(name: str, kind: str, text: str, samples: Iterable[tuple[str, float]]) -> str:
    lines = [f"# HELP {name} {text}", f"# TYPE {name} {kind}"]
    lines += [
        f"{name}{{{labels}}} {value}" if labels else f"{name} {value}" for labels, value in samples
    ]
    return "\n".join(lines) + "\n"


def _labels(profile: wire.Profile) -> str:
    pairs = (("profile", profile.name), ("engine", profile.engine), ("port", str(profile.port)))
    return ",".join(f'{key}="{_quoted(value)}"' for key, value in pairs)


def _quoted(text: str) -> str:
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
