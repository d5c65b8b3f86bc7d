"""`llmd-ctl doctor`: what is not as it should be, each with the command that mends it.

A check is a plain function from what was `Examined` to `Finding`s. New ones go into `CHECKS`.
"""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from llmd.cli import daemon_checks, machine_checks, model_checks, service_checks
from llmd.cli.findings import Check, Examined, Finding
from llmd.cli.invocation import Command, Invocation, pass_invocation
from llmd.cli.terminal import Palette, harmless
from llmd.config.paths import config_file, socket_path
from llmd.errors import LlmdError


if TYPE_CHECKING:
    from llmd.platform.service import Service


def configuration_loads(seen: Examined) -> Iterator[Finding]:
    """Whether the daemon could start with the file as it is."""
    if seen.config is None:
        why, remedy = seen.config_error
        yield Finding("the configuration cannot be used", why, remedy, serious=True)


CHECKS: Final[tuple[Check, ...]] = (
    configuration_loads,
    *service_checks.CHECKS,
    *daemon_checks.CHECKS,
    *model_checks.CHECKS,
    *machine_checks.CHECKS,
)


@click.command(cls=Command)
@click.option(
    "--config",
    "chosen",
    metavar="FILE",
    help="The file to judge [default: the service's, else LLMD_CONFIG, else the user's].",
)
@pass_invocation
def doctor(invocation: Invocation, *, chosen: str | None) -> int:
    """Look for what is wrong, and say how to mend it.

    Exit status 1 when something is serious. Changes nothing.
    """
    from llmd.platform.service import this_service

    seen = examine(this_service(), chosen=chosen, socket=invocation.socket)
    findings = [finding for check in CHECKS for finding in check(seen)]
    serious = any(finding.serious for finding in findings)
    if invocation.as_json:
        invocation.emit({"serious": serious, "checks": len(CHECKS), "findings": findings})
    else:
        palette = Palette.of(sys.stdout)
        for finding in findings:
            invocation.say(_shown(finding, palette))
        if not findings:
            invocation.say(f"{len(CHECKS)} checks, nothing found")
    return 1 if serious else 0


def examine(service: "Service", *, chosen: str | None, socket: str | None) -> Examined:
    """Gather what the checks look at; what fails on the way is part of it."""
    from llmd.admin.client import AdminClient
    from llmd.config.load import load_config
    from llmd.platform.machine import Machine

    installed = service.installed()
    file = Path(config_file(chosen)).absolute()
    if chosen is None and installed is not None:
        file = installed.config_file
    where = installed.socket if installed and socket is None else socket_path(socket)
    config, config_error = None, ("", "")
    try:
        config = load_config(file)
    except LlmdError as error:
        config_error = (error.message, error.remedy)
    state, state_error = None, ("", "")
    try:
        state = service.state()
    except LlmdError as error:
        state_error = (error.message, error.remedy)
    try:
        status = AdminClient(where).status()
    except LlmdError:
        status = None
    return Examined(
        config_file=file,
        config=config,
        config_error=config_error,
        service=service,
        installed=installed,
        state=state,
        state_error=state_error,
        status=status,
        machine=Machine(),
    )


def _shown(finding: Finding, palette: Palette) -> str:
    what = palette.paint(finding.what, "red" if finding.serious else "yellow")
    why = harmless(finding.why).replace("\n", "\n  ")
    return f"{what}\n  {why}\n  {palette.paint('->', 'dim')} {finding.remedy}"
