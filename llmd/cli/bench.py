"""`llmd-ctl bench`: how fast the models are, engine against engine, on this machine."""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import click

from llmd.admin import asking as ports
from llmd.admin import wire
from llmd.admin.names import find_profile
from llmd.cli.bench_measure import Measurement
from llmd.cli.bench_report import document, markdown_lines, terminal_lines
from llmd.cli.bench_result import Result
from llmd.cli.invocation import Command, Invocation, complete_profile, pass_invocation
from llmd.cli.terminal import Palette, columns, describe_victims, is_terminal, note
from llmd.errors import ConfigError, LlmdError


if TYPE_CHECKING:
    from rich.progress import Progress, TaskID


class NotAgreedError(LlmdError):
    """The person at the terminal did not want it."""

    code = "not_agreed"


class Bar(Protocol):
    """Where the progress is told."""

    def begin(self, profile: str, steps: int) -> None:
        """*steps* of *profile* come next."""

    def step(self, text: str) -> None:
        """The next of them is *text*."""


@click.command(cls=Command)
@click.argument("names", metavar="[PROFILE]...", nargs=-1, shell_complete=complete_profile)
@click.option(
    "--repeats",
    type=click.IntRange(1, 100),
    default=3,
    show_default=True,
    metavar="N",
    help="How often each is measured; shown are median, least and most.",
)
@click.option("--markdown", "as_markdown", is_flag=True, help="Print Markdown tables.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask first.")
@pass_invocation
def bench(
    invocation: Invocation, *, names: tuple[str, ...], repeats: int, as_markdown: bool, yes: bool
) -> int:
    """Measure each PROFILE (or all): first token, prefill, decode, memory.

    Asks through the profile's own port, as any client. Each is unloaded and loaded again, which may
    evict others. Ctrl-C prints what is known by then. Exit status 1 when one could not be measured.
    """
    client = invocation.client()
    status = client.status()
    chosen = list(dict.fromkeys(find_profile(name, status.profiles) for name in names))
    chosen = chosen or list(status.profiles)
    if not yes:
        _agree(chosen, status)
    weights = _weights(status)
    results: list[Result] = []
    interrupted = False
    try:
        with _bar(len(chosen)) as bar:
            for profile in chosen:
                result = Result(
                    profile=profile.name,
                    engine=profile.engine,
                    model=weights.get(profile.name, profile.name),
                    at_once=profile.sequences or 1,
                )
                results.append(result)
                address = ports.address_of(profile, status.ports)
                _measure(Measurement(client, profile, address, result, repeats), result, bar)
    except KeyboardInterrupt:
        interrupted = True
    _print(invocation, results, repeats, as_markdown=as_markdown)
    if interrupted:
        raise KeyboardInterrupt
    return 1 if any(result.error for result in results) else 0


def _measure(measurement: Measurement, result: Result, bar: Bar) -> None:
    """One profile; its failure is part of the result, and no reason to leave out the others."""
    bar.begin(result.profile, measurement.steps)
    try:
        for step in measurement.run():
            bar.step(step)
    except LlmdError as error:
        remedy = f"; {error.remedy}" if error.remedy else ""
        result.error = " / ".join(f"{error.message}{remedy}".split("\n"))
    except KeyboardInterrupt:
        result.error = "interrupted"
        raise


def _agree(chosen: Sequence[wire.Profile], status: wire.Status) -> None:
    """Say what will happen to whom, and ask where somebody can answer.

    Raises:
        NotAgreedError: The answer is no.
    """
    measured = {profile.name for profile in chosen}
    others = [p.name for p in status.profiles if p.footprint_bytes and p.name not in measured]
    text = f"{describe_victims(sorted(measured))} will be unloaded and loaded again"
    if others:
        text += f"; {describe_victims(others)} may be evicted"
    note(text)
    if not (is_terminal(sys.stdin) and is_terminal(sys.stderr)):
        return
    if not click.confirm("go on?", default=True, err=True):
        raise NotAgreedError("nothing was measured", remedy="--yes does not ask")


def _weights(status: wire.Status) -> dict[str, str]:
    """Profile to weights, as the daemon's configuration has them; empty when it cannot be read."""
    from llmd.config.load import load_config

    try:
        config = load_config(Path(status.config_path))
    except ConfigError:
        return {}
    return {
        name: str(model)
        for name, profile in config.profiles.items()
        if (model := getattr(profile, "model", None))
    }


def _print(
    invocation: Invocation, results: Sequence[Result], repeats: int, *, as_markdown: bool
) -> None:
    if invocation.as_json:
        invocation.emit(document(results, repeats))
    elif as_markdown:
        invocation.say("\n".join(markdown_lines(results)))
    else:
        palette, width = Palette.of(sys.stdout), columns(sys.stdout)
        invocation.say("\n".join(terminal_lines(results, palette, width)))


@contextmanager
def _bar(profiles: int) -> Iterator[Bar]:
    """A rich progress bar on a terminal, else a line for each profile."""
    if not is_terminal(sys.stderr):
        yield _Lines(profiles)
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    progress = Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=30),
        TimeElapsedColumn(),
        TextColumn("{task.fields[step]}", markup=False),
        console=Console(stderr=True),
        transient=True,
    )
    with progress:
        yield _Drawn(progress, profiles)


class _Lines:
    """Progress for a log."""

    def __init__(self, profiles: int) -> None:
        self._profiles = profiles
        self._begun = 0

    def begin(self, profile: str, steps: int) -> None:
        """One line."""
        self._begun += 1
        note(f"{profile} ({self._begun} of {self._profiles}): {steps} measurements")

    def step(self, text: str) -> None:
        """Nothing."""


class _Drawn:
    """Progress for a person: one bar for each profile."""

    def __init__(self, progress: "Progress", profiles: int) -> None:
        self._progress = progress
        self._profiles = profiles
        self._begun = 0
        self._task: TaskID | None = None

    def begin(self, profile: str, steps: int) -> None:
        """Another bar, in place of the last."""
        if self._task is not None:
            self._progress.remove_task(self._task)
        self._begun += 1
        what = f"{profile} ({self._begun} of {self._profiles})"
        self._task = self._progress.add_task(what, total=steps, completed=-1, step="")

    def step(self, text: str) -> None:
        """What came before is done."""
        if self._task is not None:
            self._progress.update(self._task, advance=1, step=text)
