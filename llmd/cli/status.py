"""`llmd-ctl status`."""

import sys
import time
from collections.abc import Iterator
from typing import Final

import click

from llmd.admin import wire
from llmd.cli.invocation import Command, Invocation, pass_invocation
from llmd.cli.terminal import (
    Cell,
    Palette,
    columns,
    describe_bytes,
    describe_seconds,
    is_terminal,
    rows,
)
from llmd.errors import DaemonNotRunningError, LlmdError


_STATE_STYLES: Final = {
    "ready": "green",
    "waiting": "yellow",
    "loading": "yellow",
    "draining": "yellow",
    "unloading": "yellow",
    "failed": "red",
    "unloaded": "dim",
}
_HEADINGS: Final = (
    Cell("PORT", "bold", right=True),
    Cell("PROFILE", "bold"),
    Cell("STATE", "bold"),
    Cell("FOOTPRINT", "bold", right=True),
    Cell("BUSY", "bold", right=True),
    Cell("QUEUE", "bold", right=True),
    Cell("IDLE", "bold", right=True),
    Cell("TOK/S", "bold", right=True),
)
_BAR_COLUMNS: Final = 30
_NAME: Final = 1  # the column that is cut when there is not enough room
_PINNED: Final = " (pinned)"
_INDENT: Final = " " * 6
_HOME: Final = "\x1b[H"
_CLEAR_LINE, _CLEAR_BELOW = "\x1b[K", "\x1b[J"
# Without the cursor, and without wrapping lines in a narrow window; and as it was.
_BEGIN_WATCH, _END_WATCH = "\x1b[?25l\x1b[?7l", "\x1b[?7h\x1b[?25h\n"


@click.command(cls=Command)
@click.option("-w", "--watch", is_flag=True, help="Draw it again and again, until Ctrl-C.")
@click.option(
    "--interval",
    type=click.FloatRange(min=0.1),
    default=1.0,
    show_default=True,
    metavar="SECONDS",
    help="How often --watch draws.",
)
@pass_invocation
def status(invocation: Invocation, *, watch: bool, interval: float) -> None:
    """The budget, the ports and the profiles.

    FOOTPRINT is what a profile is charged; in parentheses, what it would be. BUSY is how many
    requests are in flight, of how many the engine serves at once.
    """
    if watch:
        _watch(invocation, interval)
        return
    now = invocation.client().status()
    if invocation.as_json:
        invocation.emit(now)
    else:
        lines = render(now, palette=Palette.of(sys.stdout), width=columns(sys.stdout))
        invocation.say("\n".join(lines))


def _watch(invocation: Invocation, interval: float) -> None:
    """Draw until interrupted, also while the daemon is restarted."""
    client, palette = invocation.client(), Palette.of(sys.stdout)
    terminal = is_terminal(sys.stdout) and not invocation.as_json
    if terminal:
        sys.stdout.write(_BEGIN_WATCH + _HOME + _CLEAR_BELOW)
    try:
        while True:
            try:
                now = client.status()
            except DaemonNotRunningError as error:
                if not terminal:
                    raise
                lines = [f"{error.message}; waiting for it"]
            except LlmdError as error:
                lines = [error.message]
            else:
                if invocation.as_json:
                    invocation.emit_line(now)
                    time.sleep(interval)
                    continue
                lines = render(now, palette=palette, width=columns(sys.stdout))
            if terminal:
                shown = lines[: rows(sys.stdout) - 1]
                sys.stdout.write(_HOME + "".join(f"{line}{_CLEAR_LINE}\n" for line in shown))
                sys.stdout.write(_CLEAR_BELOW)
            else:
                sys.stdout.write("\n".join(lines) + "\n\n")
            sys.stdout.flush()
            time.sleep(interval)
    except KeyboardInterrupt:
        return
    finally:
        if terminal:
            sys.stdout.write(_END_WATCH)
            sys.stdout.flush()


def render(now: wire.Status, *, palette: Palette, width: int) -> list[str]:
    """*now* as lines of at most *width* columns (80 or more)."""
    return [*_head(now, palette, width), "", *_table(now, palette, width)]


def _head(now: wire.Status, palette: Palette, width: int) -> Iterator[str]:
    stopping = palette.paint(", stopping", "yellow") if now.stopping else ""
    title = palette.paint(f"llmd {now.version}", "bold")
    yield f"{title}, pid {now.pid}, up {describe_seconds(now.uptime_s)}{stopping}"
    budget = now.budget
    used = budget.used_bytes / budget.total_bytes if budget.total_bytes else 0.0
    style = "green" if used < 0.75 else "yellow" if used <= 1.0 else "red"
    bar = palette.bar(used, _BAR_COLUMNS, style)
    yield (
        f"{bar} {describe_bytes(budget.used_bytes)} of {describe_bytes(budget.total_bytes)}, "
        f"peak {describe_bytes(budget.peak_bytes)}"
    )
    if now.spare is not None:
        yield palette.paint(
            f"warm spare: {now.spare.kind}, {now.spare.state}, "
            f"{describe_bytes(now.spare.footprint_bytes)}",
            "dim",
        )
    for warning in (*([now.config_error] if now.config_error else []), *now.warnings):
        for line in palette.wrap(f"! {warning}", width, lines=3):
            yield palette.paint(line, "yellow")


def _table(now: wire.Status, palette: Palette, width: int) -> Iterator[str]:
    """One row for each profile under its port; what needs words goes on a line below its row."""
    table: list[tuple[Cell, ...]] = [_HEADINGS]
    below: dict[int, list[str]] = {}
    for port in now.ports:
        label = Cell(str(port.port), right=True)
        remarks = [palette.paint(f"not open: {port.error}", "red")] if port.error else []
        if port.gateway:
            busy = str(port.in_flight) if port.in_flight else "-"
            table.append(_row(label, Cell("(gateway)", "dim"), busy=busy))
            below[len(table) - 1] = remarks
        for profile in now.profiles:
            if profile.port == port.port:
                table.append(_profile_row(profile, label))
                below[len(table) - 1] = [*remarks, *_remarks(profile, palette, width)]
                label, remarks = Cell("", right=True), []
    for number, line in enumerate(palette.table(_fit(table, palette, width))):
        yield line
        for remark in below.get(number, ()):
            yield _INDENT + remark


def _fit(table: list[tuple[Cell, ...]], palette: Palette, width: int) -> list[tuple[Cell, ...]]:
    """Cut the names so that the table is no wider than *width*."""
    by_column = list(zip(*table, strict=True))
    others = sum(
        2 + max(len(cell.text) for cell in column)
        for number, column in enumerate(by_column)
        if number != _NAME
    )
    room = max(8, width - others)
    return [
        (
            *row[:_NAME],
            row[_NAME]._replace(text=_cut_name(row[_NAME].text, room, palette)),
            *row[_NAME + 1 :],
        )
        for row in table
    ]


def _cut_name(name: str, room: int, palette: Palette) -> str:
    if len(name) > room and name.endswith(_PINNED):
        return palette.cut(name.removesuffix(_PINNED), room - len(_PINNED)) + _PINNED
    return palette.cut(name, room)


def _row(port: Cell, name: Cell, busy: str = "") -> tuple[Cell, ...]:
    blank = Cell("")
    return (port, name, blank, blank, Cell(busy, right=True), blank, blank, blank)


def _profile_row(profile: wire.Profile, port: Cell) -> tuple[Cell, ...]:
    if profile.footprint_bytes:
        footprint = Cell(describe_bytes(profile.footprint_bytes), right=True)
    elif profile.estimated_bytes:
        footprint = Cell(f"({describe_bytes(profile.estimated_bytes)})", "dim", right=True)
    else:
        footprint = Cell("-", "dim", right=True)
    sequences = f"/{profile.sequences}" if profile.sequences and profile.in_flight else ""
    return (
        port,
        Cell(f"{profile.name}{_PINNED if profile.pinned else ''}"),
        Cell(profile.state, _STATE_STYLES[profile.state]),
        footprint,
        _count(profile.in_flight, sequences),
        _count(profile.queued),
        _optional(None if profile.idle_s is None else describe_seconds(profile.idle_s)),
        _optional(None if profile.tokens_per_s is None else f"{profile.tokens_per_s:.1f}"),
    )


def _count(number: int, of: str = "") -> Cell:
    return Cell(f"{number}{of}" if number else "-", "" if number else "dim", right=True)


def _optional(text: str | None) -> Cell:
    return Cell("-", "dim", right=True) if text is None else Cell(text, right=True)


def _remarks(profile: wire.Profile, palette: Palette, width: int) -> Iterator[str]:
    """What a row has no column for."""
    room = width - len(_INDENT)
    if profile.state == "waiting" and profile.waiting_for:
        yield palette.paint(palette.cut(profile.waiting_for, room), "yellow")
    if profile.state == "loading" and profile.progress is not None:
        yield f"{palette.bar(profile.progress, 20, 'yellow')} {profile.progress:4.0%}"
    if profile.reduced:
        hint = f"`llmd-ctl unload {profile.name}` and `load {profile.name}` give it its full size"
        said = f"smaller since it died of memory: {profile.reduced}; {hint}"
        for line in palette.wrap(said, room, lines=3):
            yield palette.paint(line, "yellow")
    if profile.state == "failed":
        for line in palette.wrap(profile.last_error or "the load failed", room, lines=3):
            yield palette.paint(line, "red")
        if profile.retry_in_s:
            again = describe_seconds(profile.retry_in_s)
            yield palette.paint(f"tried again in {again} at the earliest", "dim")
