"""What all commands share: `--socket`, `--json`, the client, and how results are printed."""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
import msgspec

import llmd
from llmd.config.paths import socket_path


if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

    from llmd.admin.client import AdminClient


FC = TypeVar("FC", bound=Callable[..., Any] | click.Command)
"""What click's decorators take, and give back."""


@dataclass
class Invocation:
    """One run of `llmd-ctl`: its global options, wherever on the command line they were typed."""

    socket: str | None = None
    as_json: bool = False

    @property
    def socket_path(self) -> Path:
        """Where the daemon is looked for."""
        return socket_path(self.socket)

    def client(self) -> "AdminClient":
        """The daemon's client. Nothing is dialled yet."""
        from llmd.admin.client import AdminClient

        return AdminClient(self.socket_path, on_version=self._tell_version)

    def emit(self, document: Any) -> None:
        """Print *document* as the one JSON document of a command."""
        text = msgspec.json.format(msgspec.json.encode(document), indent=2)
        sys.stdout.write(text.decode() + "\n")

    def emit_line(self, document: Any) -> None:
        """Print *document* as one of the JSON lines of a stream."""
        sys.stdout.write(msgspec.json.encode(document).decode() + "\n")
        sys.stdout.flush()

    def say(self, text: str) -> None:
        """Print a result for people; flushed, because more may take a while."""
        sys.stdout.write(text + "\n")
        sys.stdout.flush()

    def _tell_version(self, theirs: str) -> None:
        if not self.as_json and sys.stderr.isatty():
            click.echo(
                f"llmd-ctl is {llmd.__version__} and the daemon is {theirs}: restart the daemon",
                err=True,
            )


pass_invocation = click.make_pass_decorator(Invocation, ensure=True)


def _remember_socket(ctx: click.Context, _option: click.Parameter, value: str | None) -> None:
    if value is not None:
        ctx.ensure_object(Invocation).socket = value


def _remember_json(ctx: click.Context, _option: click.Parameter, value: bool) -> None:  # noqa: FBT001
    if value:
        ctx.ensure_object(Invocation).as_json = True


def shared_options() -> list[click.Parameter]:
    """`--socket` and `--json`: people type them before the command, and after it."""
    return [
        click.Option(
            ["--socket"],
            metavar="PATH",
            expose_value=False,
            is_eager=True,
            callback=_remember_socket,
            help="The daemon's control socket [default: LLMD_SOCKET, else the user's].",
        ),
        click.Option(
            ["--json"],
            is_flag=True,
            expose_value=False,
            is_eager=True,
            callback=_remember_json,
            help="Print one JSON document, errors too; streams print one on each line.",
        ),
    ]


class Command(click.Command):
    """A command that takes the shared options as well."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.params.extend(shared_options())


def complete_profile(
    ctx: click.Context, _param: click.Parameter, incomplete: str
) -> "list[CompletionItem]":
    """Profile names for the shell; none when no daemon answers."""
    from click.shell_completion import CompletionItem

    from llmd.errors import LlmdError

    invocation = ctx.find_object(Invocation) or Invocation()
    try:
        profiles = invocation.client().profiles()
    except LlmdError:
        return []
    return [
        CompletionItem(p.name, help=f"{p.engine}, {p.state}")
        for p in profiles
        if p.name.startswith(incomplete)
    ]


def profile_argument(*, required: bool = True) -> Callable[[FC], FC]:
    """The PROFILE argument, completed from the daemon."""
    return click.argument(
        "profile", required=required, shell_complete=complete_profile, metavar="PROFILE"
    )
