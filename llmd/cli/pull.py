"""`llmd-ctl pull`: download a model, in this process and not in the daemon's."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from llmd.cli.invocation import Command, Invocation, pass_invocation
from llmd.cli.surroundings import Surroundings, config_option, look_around
from llmd.cli.terminal import describe_bytes, harmless, is_terminal, note


if TYPE_CHECKING:
    from llmd.config.edit import Edit
    from llmd.hub.choose import Choice
    from llmd.hub.destination import Destination
    from llmd.hub.fetch import OnBytes
    from llmd.hub.listing import Repository

_FIRST_PORT: Final = 8081


@click.command(cls=Command)
@click.argument("repository", metavar="REPO[:QUANT]")
@click.option("--add", "profile", metavar="NAME", help="Add a profile of it to the configuration.")
@click.option(
    "--port",
    type=click.IntRange(1, 65535),
    metavar="N",
    help="The port of that profile [default: the next free one].",
)
@click.option(
    "--dir",
    "folder",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="D",
    help="A folder of models, instead of the Hugging Face cache.",
)
@click.option("--text-only", is_flag=True, help="Without the file that gives it eyes or ears.")
@click.option("--yes", is_flag=True, help="Ask nothing.")
@config_option()
@pass_invocation
def pull(
    invocation: Invocation,
    *,
    repository: str,
    profile: str | None,
    port: int | None,
    folder: Path | None,
    text_only: bool,
    yes: bool,
    chosen: str | None,
) -> None:
    """Download a model from Hugging Face: MLX weights whole, of GGUF files one quantization.

    QUANT is a quantization (Q4_K_M) or the name of a file; without it the one that suits this
    machine's budget is taken. A projector (mmproj) that the repository has comes along, so that the
    model sees. Every file is compared with the hub's checksum. An interrupted
    download goes on where it stopped when the command is repeated.
    """
    if port is not None and profile is None:
        raise click.UsageError("--port belongs to --add NAME")
    from llmd.hub.choose import choices
    from llmd.hub.destination import Destination
    from llmd.hub.listing import look_up

    around = look_around(invocation, chosen)
    name, _, wanted = repository.partition(":")
    found = look_up(name.strip("/"))
    asks = not yes and not invocation.as_json and is_terminal(sys.stdin) and is_terminal(sys.stderr)
    offered = choices(found, projectors=not text_only)
    choice = _choose(found, offered, wanted, around, asks=asks, yes=yes)
    if choice.projector is not None:
        note(f"with {harmless(choice.projector.name)}, so that it takes pictures or sound")
    destination = Destination(found, folder.expanduser().absolute() if folder else None)
    edit = _edit(around, profile, port, choice, destination)  # before it has taken an hour
    destination.check_room(choice.files)
    _download(invocation, destination, choice)
    if edit is not None:
        edit.write()
    model = _model(around, choice, destination)
    _tell(invocation, destination, choice, model, profile, edit)


def _choose(
    repository: "Repository",
    offered: "list[Choice]",
    wanted: str,
    around: Surroundings,
    *,
    asks: bool,
    yes: bool,
) -> "Choice":
    """The model to download; says which, and why."""
    from llmd.hub.choose import named, right_one
    from llmd.hub.failures import DownloadError

    budget = around.budget_bytes()
    if wanted:
        choice = named(offered, wanted, repository.name)
        if choice.need_bytes > budget:
            need, whole = describe_bytes(choice.need_bytes), describe_bytes(budget)
            note(f"{choice.label} will need about {need}, more than the budget of {whole}")
        return choice
    if yes and len(offered) == 1:
        return offered[0]
    choice, why = right_one(offered, budget, repository.name)
    others = ", ".join(
        f"{other.label} {describe_bytes(other.size_bytes)}" for other in offered if other != choice
    )
    note(f"{harmless(choice.label)}, {describe_bytes(choice.size_bytes)}: {why}")
    if others and asks:
        note(f"there are also {harmless(others)}")
        answer = click.prompt("which one", default=choice.label, err=True)
        try:
            choice = named(offered, answer.strip(), repository.name)
        except DownloadError as error:
            raise click.UsageError(f"{error.message}; {error.remedy}") from error
    return choice


def _edit(
    around: Surroundings,
    profile: str | None,
    port: int | None,
    choice: "Choice",
    destination: "Destination",
) -> "Edit | None":
    """The configuration with the profile in it, checked and not yet written."""
    if profile is None:
        return None
    from llmd.config.edit import with_profile

    fields: dict[str, Any] = {
        "engine": "mlx" if choice.label == "mlx" else "llama.cpp",
        "model": _model(around, choice, destination),
        "port": port or _free_port(around),
    }
    if (projector := choice.projector) is not None:
        beside = projector.path.rpartition("/")[0] == choice.files[0].path.rpartition("/")[0]
        fields["projector"] = (
            projector.name if beside else _reference(around, projector.path, destination)
        )
    return with_profile(around.config_file, profile, fields)


def _model(around: Surroundings, choice: "Choice", destination: "Destination") -> str:
    """What a profile writes in `model:` to mean what is downloaded."""
    inner = "" if choice.label == "mlx" else choice.files[0].path
    return _reference(around, inner, destination)


def _reference(around: Surroundings, inner: str, destination: "Destination") -> str:
    """How a profile names the file *inner* of the repository; the repository when it is empty."""
    if destination.folder is not None and destination.folder not in around.models_dirs:
        return str(destination.directory / inner)
    return "/".join(part for part in (destination.repository.name, inner) if part)


def _free_port(around: Surroundings) -> int:
    """The first port after the configuration's own."""
    config = around.config
    if config is None:
        return _FIRST_PORT
    taken = {profile.port for profile in config.profiles.values()}
    if config.gateway is not None:
        taken.add(config.gateway.port)
    port = max((profile.port for profile in config.profiles.values()), default=_FIRST_PORT - 1) + 1
    while port in taken:
        port += 1
    return min(port, 65535)


def _download(invocation: Invocation, destination: "Destination", choice: "Choice") -> None:
    from llmd.hub.fetch import fetch_all

    total = sum(file.size_bytes for file in choice.files)
    name = f"{destination.repository.name} {choice.label}"
    try:
        with _progress(harmless(name), total, quiet=invocation.as_json) as on_bytes:
            fetch_all(destination, choice.files, on_bytes)
    except KeyboardInterrupt:
        arrived = sum(destination.arrived_bytes(file) for file in choice.files)
        again = destination.repository.name + ("" if choice.label == "mlx" else f":{choice.label}")
        note(
            f"\n{describe_bytes(arrived)} of {describe_bytes(total)} are there and stay; "
            f"go on with: llmd-ctl pull {harmless(again)}"
        )
        raise


@contextmanager
def _progress(name: str, total: int, *, quiet: bool) -> "Iterator[OnBytes]":
    """A bar on a terminal, a line elsewhere."""
    if quiet or not is_terminal(sys.stderr):
        if not quiet:
            note(f"downloading {name}, {describe_bytes(total)}")
        yield lambda _what, _count: None
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    columns: list[Any] = [TextColumn("{task.description}", markup=False), BarColumn()]
    columns += [DownloadColumn(binary_units=True), TransferSpeedColumn(), TimeRemainingColumn()]
    with Progress(*columns, console=Console(stderr=True), transient=True) as bars:
        tasks = {what: bars.add_task(what, total=total) for what in ("downloading", "checking")}
        yield lambda what, count: bars.advance(tasks[what], count)


def _tell(
    invocation: Invocation,
    destination: "Destination",
    choice: "Choice",
    model: str,
    profile: str | None,
    edit: "Edit | None",
) -> None:
    repository = destination.repository
    first = destination.path(choice.files[0])
    path = first.parent if choice.label == "mlx" else first
    if invocation.as_json:
        invocation.emit(
            {
                "repository": repository.name,
                "revision": repository.revision,
                "quantization": choice.label,
                "path": str(path),
                "model": model,
                "projector": None if choice.projector is None else choice.projector.path,
                "files": [file.path for file in choice.files],
                "size_bytes": choice.size_bytes,
                "profile": profile,
                "config": str(edit.path) if edit is not None else None,
            }
        )
        return
    what = f"{repository.name}, {harmless(choice.label)}, {describe_bytes(choice.size_bytes)}"
    invocation.say(f"{what}: complete, and every checksum is right")
    invocation.say(f"  {harmless(str(path))}")
    if edit is None or profile is None:
        invocation.say(f"  whether it fits: llmd-ctl fit {harmless(model)}")
        return
    port = edit.config.profiles[profile].port
    invocation.say(f"added {profile} on port {port} to {edit.path}; llmd-ctl load {profile}")
