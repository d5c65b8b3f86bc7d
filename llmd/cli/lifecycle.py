"""`llmd-ctl load`, `unload`, `plan`, `pin`, `unpin`, `reload`, `restart` and `stop`."""

import contextlib
import os
import select
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import click

from llmd.admin import wire
from llmd.admin.client import NoAnswerError
from llmd.admin.operator import Progress
from llmd.cli.invocation import (
    Command,
    Invocation,
    complete_profile,
    pass_invocation,
    profile_argument,
)
from llmd.cli.terminal import (
    describe_bytes,
    describe_seconds,
    describe_victims,
    is_terminal,
    note,
)
from llmd.errors import LlmdError


_RESTART_S: Final = 120.0
"""For requests in flight (`drain_timeout`) and the start."""
_LOOK_AGAIN_S: Final = 0.1


class StillRunningError(LlmdError):
    """The daemon was told to stop, and has not done so in the time given."""

    code = "still_running"


def _duration(_ctx: click.Context, _option: click.Parameter, value: str | None) -> float | None:
    """`30m` as seconds."""
    if value is None:
        return None
    from llmd.config.units import parse_duration  # brings pydantic, for this option alone

    text: str | float = float(value) if value.replace(".", "", 1).isdigit() else value
    try:
        seconds = parse_duration(text)
    except ValueError as error:
        raise click.BadParameter(str(error)) from error
    if seconds <= 0:
        raise click.BadParameter("it must be more than 0; `llmd-ctl unload` unloads at once")
    return seconds


@click.command(cls=Command)
@profile_argument()
@click.option("--pin", is_flag=True, help="Never evict it until it is unpinned.")
@click.option(
    "--ttl",
    metavar="TIME",
    callback=_duration,
    help="Unload it after so long without use: 30m, 2h, never.",
)
@pass_invocation
def load(invocation: Invocation, *, profile: str, pin: bool, ttl: float | None) -> None:
    """Make PROFILE resident, and wait until it is ready.

    Says what was evicted for it and how long it took. Ctrl-C stops the waiting, not the load.
    """
    try:
        with _progress(invocation, profile) as progress:
            report = invocation.client().load(profile, pin=pin, ttl_s=ttl, progress=progress)
    except KeyboardInterrupt:
        if not invocation.as_json:
            note(f"the load goes on; `llmd-ctl unload {profile}` ends it")
        raise
    if invocation.as_json:
        invocation.emit(report)
        return
    place = f" on port {report.port}" if report.port else ""
    size = f" ({describe_bytes(report.footprint_bytes)})" if report.footprint_bytes else ""
    if not report.changed:
        invocation.say(f"{report.profile} was ready already{place}{size}")
        return
    evicted = f"; evicted {describe_victims(report.evicted)}" if report.evicted else ""
    invocation.say(
        f"{report.profile} is ready{place}{size}, after {describe_seconds(report.seconds)}{evicted}"
    )


@contextmanager
def _progress(invocation: Invocation, profile: str) -> Iterator[Progress | None]:
    """How a load is followed: a bar on a terminal, a line for each stage elsewhere."""
    if invocation.as_json:
        yield None
        return
    if not is_terminal(sys.stderr):
        stages: list[str] = []

        def tell(stage: str, _fraction: float | None) -> None:
            if stage not in stages:
                stages.append(stage)
                note(f"{profile}: {stage}")

        yield tell
        return
    with contextlib.ExitStack() as drawn:
        bar: list[Any] = []

        def draw(stage: str, fraction: float | None) -> None:
            if not bar:
                bar.extend(_open_bar(drawn, profile))
            shown, task = bar
            total = None if fraction is None else 1.0
            shown.update(task, completed=fraction or 0.0, total=total, stage=stage)

        yield draw


def _open_bar(drawn: contextlib.ExitStack, profile: str) -> tuple[Any, Any]:
    """A rich progress bar on stderr. Imported now: most loads are over before it could be drawn."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    progress = Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=30),
        TimeElapsedColumn(),
        TextColumn("{task.fields[stage]}", markup=False),
        console=Console(stderr=True),
        transient=True,
    )
    shown = drawn.enter_context(progress)
    return shown, shown.add_task(profile, total=None, stage="")


@click.command(cls=Command)
@click.argument("profile", required=False, shell_complete=complete_profile, metavar="[PROFILE]")
@click.option("--all", "everything", is_flag=True, help="Every resident, pinned ones too.")
@pass_invocation
def unload(invocation: Invocation, *, profile: str | None, everything: bool) -> None:
    """Let PROFILE's memory go, once its requests in flight are finished."""
    if (profile is not None) == everything:
        raise click.UsageError("name a profile, or give --all")
    client = invocation.client()
    report = client.unload(profile) if profile is not None else client.unload_all()
    if invocation.as_json:
        invocation.emit(report)
    elif report.unloaded:
        freed = f", {describe_bytes(report.freed_bytes)} freed" if report.freed_bytes else ""
        took = describe_seconds(report.seconds)
        invocation.say(f"unloaded {describe_victims(report.unloaded)}{freed}, in {took}")
    else:
        invocation.say("nothing was loaded" if everything else f"{profile} was not loaded")


@click.command(cls=Command)
@profile_argument()
@pass_invocation
def plan(invocation: Invocation, *, profile: str) -> None:
    """What a load of PROFILE would do: victims, bytes, expected seconds. Changes nothing."""
    report = invocation.client().plan(profile)
    if invocation.as_json:
        invocation.emit(report)
    else:
        invocation.say("\n".join(_plan_lines(report)))


def _plan_lines(report: wire.PlanReport) -> Iterator[str]:
    verdict = "fits" if report.fits else "does not fit"
    yield f"{report.profile} {verdict}{f': {report.reason}' if report.reason else ''}"
    need, free = describe_bytes(report.need_bytes), describe_bytes(report.free_bytes)
    yield f"  needs {need}, {free} free"
    for victim in report.evict:
        again = f", loaded again in {describe_seconds(victim.cost_s)}" if victim.cost_s else ""
        yield f"  evicts {victim.profile} ({describe_bytes(victim.bytes)}{again})"
    if report.fits and report.expected_s is not None:
        yield f"  takes about {describe_seconds(report.expected_s)}"


@click.command(cls=Command)
@profile_argument()
@pass_invocation
def pin(invocation: Invocation, *, profile: str) -> None:
    """Keep PROFILE from being evicted or replaced, until `unpin` or the daemon's end."""
    _set_pinned(invocation, profile, pinned=True)


@click.command(cls=Command)
@profile_argument()
@pass_invocation
def unpin(invocation: Invocation, *, profile: str) -> None:
    """Let PROFILE be evicted again."""
    _set_pinned(invocation, profile, pinned=False)


def _set_pinned(invocation: Invocation, profile: str, *, pinned: bool) -> None:
    report = invocation.client().pin(profile, pinned=pinned)
    if invocation.as_json:
        invocation.emit(report)
    else:
        invocation.say(f"{report.profile} is {'pinned' if report.pinned else 'not pinned'} now")


@click.command(cls=Command)
@pass_invocation
def reload(invocation: Invocation) -> None:
    """Read the configuration file again.

    Profiles that did not change stay resident and go on serving. A bad file changes nothing.
    """
    report = invocation.client().reload()
    if invocation.as_json:
        invocation.emit(report)
        return
    changes = [
        f"{verb} {describe_victims(names)}"
        for verb, names in (
            ("added", report.added),
            ("changed", report.changed),
            ("removed", report.removed),
        )
        if names
    ]
    invocation.say("; ".join(changes) if changes else "nothing changed")
    for warning in report.warnings:
        note(f"warning: {warning}")


@click.command(cls=Command)
@pass_invocation
def restart(invocation: Invocation) -> None:
    """Drain, and start anew in the same process, with whatever version is installed now.

    Models stay loaded, and no connection is refused. Refused when the daemon would not start again.
    """
    client = invocation.client()
    before = client.restart().restarts
    deadline = time.monotonic() + _RESTART_S
    while time.monotonic() < deadline:
        with contextlib.suppress(NoAnswerError):  # it hung up to make way for itself
            now = client.status()
            if now.restarts > before:
                break
        time.sleep(_LOOK_AGAIN_S)
    else:
        raise StillRunningError(
            f"llmd has not restarted within {describe_seconds(_RESTART_S)}",
            remedy="it waits for requests in flight; see `llmd-ctl status` and `llmd-ctl logs`",
        )
    if invocation.as_json:
        invocation.emit({"pid": now.pid, "version": now.version, "restarts": now.restarts})
        return
    ready = [profile.name for profile in now.profiles if profile.state == "ready"]
    kept = f"; {describe_victims(ready)} stayed loaded" if ready else ""
    invocation.say(f"llmd {now.version} (pid {now.pid}) has restarted{kept}")


@click.command(cls=Command)
@click.option("--no-wait", is_flag=True, help="Return at once, while it drains.")
@click.option(
    "--timeout",
    type=click.FloatRange(min=0),
    metavar="SECONDS",
    help="Wait no longer than so for its end.",
)
@pass_invocation
def stop(invocation: Invocation, *, no_wait: bool, timeout: float | None) -> None:
    """Drain, unload everything, end the daemon, and wait until it is gone.

    The installed service stays down until `llmd-ctl start` or the next login.
    """
    client = invocation.client()
    manager = client.status().manager
    report = client.stop()
    if not no_wait and not _await_exit(report.pid, timeout):
        raise StillRunningError(
            f"llmd (pid {report.pid}) still runs after {describe_seconds(timeout or 0.0)}",
            remedy="it ends once the requests in flight are finished; see `llmd-ctl status`",
        )
    if manager is not None and manager != "other":
        # Without this the next connection to one of its ports would start it again.
        from llmd.platform import service

        service.stop(manager)
    if invocation.as_json:
        invocation.emit({"pid": report.pid, "stopped": not no_wait})
    else:
        invocation.say(f"llmd (pid {report.pid}) {'is stopping' if no_wait else 'has stopped'}")


def _await_exit(pid: int, timeout_s: float | None) -> bool:
    """Wait for the end of process *pid*, which need not be our child; False when time is up."""
    if sys.platform == "linux":
        try:
            fd = os.pidfd_open(pid)
        except ProcessLookupError:
            return True
        try:
            return bool(select.select([fd], [], [], timeout_s)[0])
        finally:
            os.close(fd)
    with contextlib.closing(select.kqueue()) as queue:
        exit_of_pid = select.kevent(
            pid, select.KQ_FILTER_PROC, select.KQ_EV_ADD, select.KQ_NOTE_EXIT
        )
        try:
            return bool(queue.control([exit_of_pid], 1, timeout_s))
        except ProcessLookupError:
            return True
