"""`llmd-ctl connect`: the exact settings that make another program use a profile.

What is printed is data, `programs.yaml`; here are only the values that go into it.
"""

import json
import shlex
import shutil
import sys
from dataclasses import asdict, dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING, Any, Final

import click

from llmd.admin import asking, wire
from llmd.admin.names import find_profile
from llmd.cli.invocation import Command, Invocation, complete_profile, pass_invocation
from llmd.cli.terminal import note
from llmd.config.paths import config_file
from llmd.errors import ConfigError, DaemonNotRunningError, LlmdError


if TYPE_CHECKING:
    from click.shell_completion import CompletionItem


NO_KEY: Final = "none"
"""For clients that insist on a key where none is asked for."""
ANY_KEY: Final = "YOUR-KEY"
ASSUMED_CONTEXT: Final = 32_768
"""In tokens, for a profile whose context is not known; local profiles have no more by default."""
MOST_TOKENS: Final = 8192
"""An answer is granted a quarter of the context, and no more than this."""
_LITTLE_CONTEXT: Final = 32_768
_KEY_LINE: Final = "?key "
_KNOCK_S: Final = 2.0


@dataclass(frozen=True, slots=True)
class Place:
    """Where a profile can be asked, and what for: the values of `programs.yaml`."""

    name: str
    port: int
    context: int
    max_tokens: int
    base_url: str
    root_url: str
    key: str


@dataclass(frozen=True, slots=True)
class _Known:
    """What is known of the profiles, and from whom."""

    profiles: tuple[wire.Profile, ...]
    ports: tuple[wire.Port, ...]
    socket: str
    source: str
    keys: bool | None
    """Whether the ports ask for a key; None when one has to be asked."""


class MissingProgramError(LlmdError):
    """The installation lacks a program of its own."""

    code = "program_missing"


def complete_program(
    _ctx: click.Context, _param: click.Parameter, incomplete: str
) -> "list[CompletionItem]":
    """The programs, for the shell."""
    from click.shell_completion import CompletionItem

    return [
        CompletionItem(name, help=program["title"])
        for name, program in programs().items()
        if name.startswith(incomplete)
    ]


@click.command(cls=Command)
@click.argument("program", required=False, shell_complete=complete_program, metavar="[PROGRAM]")
@click.option(
    "-p",
    "--profile",
    shell_complete=complete_profile,
    metavar="PROFILE",
    help="Which one to use [default: the one that is ready, else the first].",
)
@pass_invocation
def connect(invocation: Invocation, *, program: str | None, profile: str | None) -> None:
    """Print the settings with which PROGRAM uses a profile; without PROGRAM, list them.

    Settings go to stdout, and where they belong to stderr. The daemon is asked if it runs, else
    the configuration file is read. Changes nothing.
    """
    if program is None:
        _list(invocation)
        return
    entry = _entry(program)
    known = _ask_daemon(invocation) or _read_file(invocation)
    chosen = _choose(profile, known.profiles)
    place = _place(chosen, known)
    values = asdict(place) | (_mcp_values(known.socket) if "asks" not in entry else {})
    settings = [
        {
            "where": piece["where"],
            "format": piece["format"],
            "text": fill(piece["text"], values, with_key=place.key != NO_KEY),
        }
        for piece in entry["settings"]
    ]
    notes = list(_notes(entry, chosen, place, known, chose=profile is not None))
    if invocation.as_json:
        document = {"program": program, "engine": chosen.engine, "source": known.source}
        invocation.emit(document | asdict(place) | {"settings": settings, "notes": notes})
        return
    for index, piece in enumerate(settings):
        gap = "\n" if index else ""
        note(f"{gap}# {piece['where']}")
        invocation.say(piece["text"])
    for line in notes:
        note(f"# note: {line}")


@cache
def programs() -> dict[str, Any]:
    """`programs.yaml`: by name, what each program needs."""
    import yaml

    text = (resources.files("llmd.cli") / "programs.yaml").read_text(encoding="utf-8")
    loaded: dict[str, Any] = yaml.safe_load(text)
    return loaded


def fill(text: str, values: dict[str, Any], *, with_key: bool) -> str:
    """*text* with its `$values`; lines for a key are left out, or lose their mark."""
    lines = []
    for line in text.splitlines():
        if not line.lstrip().startswith(_KEY_LINE):
            lines.append(line)
        elif with_key:
            lines.append(line.replace(_KEY_LINE, "", 1))
    return Template("\n".join(lines)).substitute(values)


def _list(invocation: Invocation) -> None:
    titles = {name: entry["title"] for name, entry in programs().items()}
    if invocation.as_json:
        invocation.emit({"programs": [{"name": n, "title": t} for n, t in titles.items()]})
        return
    width = max(map(len, titles))
    invocation.say("\n".join(f"{name:{width}}  {title}" for name, title in titles.items()))
    note("llmd-ctl connect PROGRAM [-p PROFILE] prints the settings")


def _entry(program: str) -> dict[str, Any]:
    import difflib

    known = programs()
    if program not in known:
        nearest = difflib.get_close_matches(program, known, n=1)
        hint = f"did you mean {nearest[0]!r}? " if nearest else ""
        raise click.UsageError(f"no program {program!r}; {hint}there are {', '.join(known)}")
    entry: dict[str, Any] = known[program]
    return entry


def _ask_daemon(invocation: Invocation) -> _Known | None:
    try:
        status = invocation.client().status()
    except DaemonNotRunningError:
        return None
    socket = status.socket_path or str(invocation.socket_path)
    return _Known(status.profiles, status.ports, socket, "daemon", keys=None)


def _read_file(invocation: Invocation) -> _Known:
    """The profiles as the configuration file has them."""
    from llmd.config.load import load_config

    path = config_file().absolute()
    try:
        config = load_config(path)
    except ConfigError as error:
        raise ConfigError(
            f"no daemon answers, and {error.message}", remedy=error.remedy, param=error.param
        ) from error
    profiles = tuple(
        wire.Profile(
            name=name,
            engine=profile.engine,
            port=profile.port,
            state="unloaded",
            aliases=profile.aliases,
            context=getattr(profile, "context", None),
        )
        for name, profile in config.profiles.items()
    )
    gateway = [config.gateway.port] if config.gateway is not None else []
    ports = tuple(
        wire.Port(
            port=port, profile=None, state="unloaded", listen=config.listen, gateway=port in gateway
        )
        for port in {*gateway, *(profile.port for profile in profiles)}
    )
    socket = str(invocation.socket_path)
    return _Known(profiles, ports, socket, str(path), keys=config.wants_key)


def _choose(wanted: str | None, profiles: tuple[wire.Profile, ...]) -> wire.Profile:
    if wanted is not None:
        return find_profile(wanted, profiles)
    ready = [profile for profile in profiles if profile.state == "ready"]
    return ready[0] if len(ready) == 1 else profiles[0]


def _place(profile: wire.Profile, known: _Known) -> Place:
    host, port = asking.address_of(profile, known.ports)
    keys = _wants_key(host, port) if known.keys is None else known.keys
    root_url = _url(host, port)
    context = profile.context or ASSUMED_CONTEXT
    return Place(
        name=profile.name,
        port=port,
        context=context,
        max_tokens=min(MOST_TOKENS, context // 4),
        base_url=f"{root_url}/v1",
        root_url=root_url,
        key=ANY_KEY if keys else NO_KEY,
    )


def _url(host: str, port: int) -> str:
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


def _wants_key(host: str, port: int) -> bool:
    """Whether the port refuses a request without a key. The list of models loads nothing."""
    from http.client import HTTPConnection, HTTPException

    connection = HTTPConnection(host, port, timeout=_KNOCK_S)
    try:
        connection.request("GET", "/v1/models")
        return connection.getresponse().status == 401
    except (OSError, HTTPException):
        return False  # it is closed; `llmd-ctl status` tells why
    finally:
        connection.close()


def _mcp_values(socket: str) -> dict[str, str]:
    """The MCP program, by its absolute path, and how it finds the daemon.

    The socket is named because programs start it with an environment of their own making, from
    which the default cannot always be told.
    """
    beside = Path(sys.executable).with_name("llmd-mcp")
    found = str(beside) if beside.exists() else shutil.which("llmd-mcp")
    if found is None:
        raise MissingProgramError(
            "llmd-mcp is not installed beside this llmd-ctl", remedy="install llmd again"
        )
    command = [str(Path(found).absolute()), "--socket", socket]
    return {
        "llmd_mcp": json.dumps(command[0]),
        "arguments": json.dumps(command[1:]),
        "command_line": shlex.join(command),
    }


def _notes(
    entry: dict[str, Any], profile: wire.Profile, place: Place, known: _Known, *, chose: bool
) -> list[str]:
    """What the settings themselves do not say."""
    notes = []
    asks = entry.get("asks")
    if known.source != "daemon":
        notes.append(f"no daemon answers; this is from {known.source}")
    others = [other.name for other in known.profiles if other.name != profile.name]
    if asks and not chose and others:
        notes.append(f"for {profile.name}; -p chooses another: {', '.join(others)}")
    if asks and profile.context is None:
        notes.append(f"the context of {profile.name} is not known; {ASSUMED_CONTEXT} is assumed")
    if entry.get("agent") and place.context < _LITTLE_CONTEXT:
        notes.append(
            f"a context of {place.context} tokens is little for this program, whose instructions "
            "fill thousands; raise `context` of the profile"
        )
    if asks in {"/v1/messages", "/v1/responses"} and profile.engine in {"command", "remote"}:
        notes.append(
            f"{profile.name} is a {profile.engine} profile: its own server must have {asks}; llmd "
            "has it for mlx and llama.cpp profiles"
        )
    if place.key != NO_KEY:
        notes.append(
            f"put one of the ports' keys in place of {ANY_KEY}: those of `api_keys`, "
            "`api_keys_file` or `api_keys_keyring`"
        )
    gateway = next((port for port in known.ports if port.gateway), None)
    if asks and gateway is not None:
        host = place.root_url.rpartition(":")[0]
        notes.append(f"{host}:{gateway.port}/v1, the gateway, serves every profile by its name")
    return notes
