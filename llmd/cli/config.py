"""`llmd-ctl config`: the configuration file. Works without a daemon."""

import os
from pathlib import Path
from typing import Any

import click

from llmd.cli.invocation import FC, Command, Invocation, pass_invocation, shared_options
from llmd.config.paths import config_file
from llmd.errors import ConfigError


def _file_option(command: FC) -> FC:
    return click.option(
        "--config",
        "chosen",
        metavar="FILE",
        help="The file [default: LLMD_CONFIG, else the user's llmd.yaml].",
    )(command)


class ConfigGroup(click.Group):
    """Its commands take the shared options, too."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.params.extend(shared_options())


@click.group(cls=ConfigGroup)
def config() -> None:
    """Check, show or begin the configuration file. Needs no daemon."""


@config.command(cls=Command)
@click.argument("file", required=False)
@_file_option
@pass_invocation
def check(invocation: Invocation, *, file: str | None, chosen: str | None) -> None:
    """Read the file, and say all that is wrong with it."""
    from llmd.config.keyfile import check_key_files
    from llmd.config.load import load_config

    path = config_file(file or chosen)
    loaded = load_config(path)
    check_key_files(loaded)
    names = list(loaded.profiles)
    if invocation.as_json:
        invocation.emit({"path": str(path), "valid": True, "profiles": names})
        return
    ports = len({profile.port for profile in loaded.profiles.values()})
    invocation.say(f"{path} is valid: {_count(len(names), 'profile')} on {_count(ports, 'port')}")


@config.command(cls=Command)
@_file_option
@pass_invocation
def show(invocation: Invocation, *, chosen: str | None) -> None:
    """The configuration as llmd understands it: complete, with defaults; keys are not shown."""
    from llmd.config.load import load_config

    loaded = load_config(config_file(chosen)).model_dump(mode="json")
    if invocation.as_json:
        invocation.emit(loaded)
        return
    import yaml

    text = yaml.safe_dump(loaded, sort_keys=False, allow_unicode=True)
    invocation.say(text.rstrip("\n"))


@config.command(cls=Command)
@pass_invocation
def schema(invocation: Invocation) -> None:
    """JSON Schema of the file, for editors."""
    from llmd.config.load import json_schema

    invocation.emit(json_schema())


@config.command(cls=Command)
@_file_option
@pass_invocation
def path(invocation: Invocation, *, chosen: str | None) -> None:
    """Where the file is looked for."""
    file = config_file(chosen).absolute()
    if invocation.as_json:
        invocation.emit({"path": str(file), "exists": file.exists()})
    else:
        invocation.say(str(file))


@config.command(cls=Command)
@_file_option
@click.option("--force", is_flag=True, help="Replace a file that is there.")
@pass_invocation
def init(invocation: Invocation, *, chosen: str | None, force: bool) -> None:
    """Write a commented example to begin with."""
    from llmd.config.load import example_text

    file = config_file(chosen).absolute()
    _write(file, example_text(), force=force)
    if invocation.as_json:
        invocation.emit({"path": str(file), "written": True})
    else:
        invocation.say(f"wrote {file}; edit it, then `llmd-ctl config check`")


def _write(file: Path, text: str, *, force: bool) -> None:
    """Write *text* for nobody else to read: it may come to hold keys."""
    from llmd.config.replace import replace_file

    def check() -> None:
        if not force and os.path.lexists(file):
            raise ConfigError(
                f"{file} is there already",
                remedy="llmd-ctl config check reads it; --force replaces it",
            )

    try:
        # A link is followed, as it is by whoever edits the file.
        replace_file(file.resolve(), text.encode(), lasting=True, check=check)
    except OSError as error:
        raise ConfigError(
            f"cannot write {file}: {error.strerror}", remedy="name another with --config"
        ) from error


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
