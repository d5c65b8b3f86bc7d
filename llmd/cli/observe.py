"""`llmd-ctl logs` and `llmd-ctl events`."""

import json
import sys
from collections.abc import Callable
from datetime import datetime
from typing import Final

import click

from llmd.admin import wire
from llmd.cli.invocation import FC, Command, Invocation, pass_invocation, profile_argument
from llmd.cli.terminal import Palette, describe_bytes, describe_seconds, harmless, is_terminal


_NAME_COLUMNS: Final = 18
_BAD_ENDINGS: Final = (
    "failed", "died", "stalled", "refused", "dropped", "lost", "exceeded", "timed_out",
)  # fmt: skip

_follow = click.option("-f", "--follow", is_flag=True, help="Go on with what comes, until Ctrl-C.")


def _lines(default: int) -> Callable[[FC], FC]:
    return click.option(
        "-n",
        "--lines",
        type=click.IntRange(min=0, max=100_000),
        default=default,
        show_default=True,
        metavar="N",
        help="Begin with the last N.",
    )


@click.command(cls=Command)
@profile_argument(required=False)
@_follow
@_lines(100)
@pass_invocation
def logs(invocation: Invocation, *, profile: str | None, follow: bool, lines: int) -> None:
    """The log of PROFILE's engine; without PROFILE, the daemon's own."""
    source = invocation.client().logs(profile, follow=follow, lines=lines)
    try:
        if not invocation.as_json:
            clean = harmless if is_terminal(sys.stdout) else str
            for line in source:
                invocation.say(clean(line))
        elif follow:
            for line in source:
                invocation.emit_line({"line": line})
        else:
            invocation.emit({"profile": profile, "lines": list(source)})
    except KeyboardInterrupt:
        if not follow:
            raise


@click.command(cls=Command)
@_follow
@_lines(50)
@pass_invocation
def events(invocation: Invocation, *, follow: bool, lines: int) -> None:
    """Decisions, each with its reason and numbers, oldest first."""
    source = invocation.client().events(follow=follow, lines=lines)
    palette = Palette.of(sys.stdout)
    try:
        if not invocation.as_json:
            for record in source:
                invocation.say(describe_event(record, palette))
        elif follow:
            for record in source:
                invocation.emit_line(record)
        else:
            invocation.emit({"events": list(source)})
    except KeyboardInterrupt:
        if not follow:
            raise


def describe_event(record: wire.Event, palette: Palette) -> str:
    """One record as a line: local time, name, profile and port, then the rest by name."""
    fields = {key: value for key, value in record.items() if key not in {"time", "name"}}
    name = str(record.get("name", "?"))
    style = "red" if name.rpartition(".")[2].endswith(_BAD_ENDINGS) else "cyan"
    parts = [palette.paint(_clock(record.get("time")), "dim")]
    parts.append(palette.paint(name.ljust(_NAME_COLUMNS), style))
    profile, port = fields.pop("profile", None), fields.pop("port", None)
    if profile is not None or port is not None:
        place = f"{profile or ''}{f':{port}' if port is not None else ''}"
        parts.append(palette.paint(place, "bold"))
    reason = fields.pop("reason", None)
    for key, value in fields.items():
        text = _field(key, value)
        if text:
            parts.append(text)
    if reason:
        parts.append(palette.paint(f"({_one_line(reason)})", "dim"))
    return "  ".join(parts).rstrip()


def _clock(time: object) -> str:
    """The local time of day of an ISO 8601 time."""
    try:
        return datetime.fromisoformat(str(time)).astimezone().strftime("%H:%M:%S")
    except ValueError:
        return "--:--:--"


def _field(key: str, value: object) -> str:
    """A field with its unit, which its name tells; nothing when there is nothing to say."""
    match value:
        case None | False | "" | []:
            return ""
        case True:
            return _label(key).rstrip()
        case int() | float():
            return _number(key, value)
        case str():
            return f"{_label(key)}{_one_line(value)}"
        case list() if all(isinstance(item, str) for item in value):
            return f"{_label(key)}{', '.join(value)}"
        case _:
            return f"{_label(key)}{json.dumps(value, ensure_ascii=False)}"


def _number(key: str, value: float) -> str:
    name, _, unit = key.rpartition("_")
    match unit:
        case "bytes":
            return f"{_label(name)}{describe_bytes(int(value))}"
        case "s" | "seconds":
            return f"{_label(name)}{describe_seconds(value)}"
        case _:
            return f"{_label(key)}{value}"


def _label(key: str) -> str:
    return f"{key.replace('_', ' ')} " if key else ""


def _one_line(text: object) -> str:
    return harmless(" ".join(str(text).split()))
