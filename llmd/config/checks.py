"""What no single value can tell: whether the parts of a configuration go together."""

from collections.abc import Iterator
from itertools import groupby
from typing import Final
from urllib.parse import urlsplit

from llmd.config.budget import absolute_budget_bytes
from llmd.config.models import CommandProfile, Config, Profile, ProfileBase, RemoteProfile
from llmd.config.yamlfile import Document
from llmd.errors import describe_bytes


_LOCAL: Final = {"localhost", "127.0.0.1", "::1", "0.0.0.0"}  # noqa: S104 - compared, not bound


def cross_check(config: Config, document: Document) -> None:
    """Add to *document* every contradiction in *config*, at the place where it was written.

    *config* may lack profiles that are faulty in themselves; their names still count.
    """
    _check_names(config, document)
    _check_ports(config, document)
    _check_sizes(config, document)
    for name, profile in config.profiles.items():
        if isinstance(profile, CommandProfile):
            _check_command(name, profile, document)
        if isinstance(profile, RemoteProfile):
            _check_loop(config, name, profile, document)
            if profile.api_key_env is not None and profile.api_key_file is not None:
                text = "`api_key_env` names its key already; remove one of the two"
                document.report(("profiles", name, "api_key_file"), text, key=True)


def _check_names(config: Config, document: Document) -> None:
    """A name or alias means one profile, on all ports: the gateway serves them all."""
    owners = dict.fromkeys([*document.data.get("profiles", ()), *config.profiles], "")
    for name, profile in config.profiles.items():
        for index, alias in enumerate(profile.aliases):
            path = ("profiles", name, "aliases", index)
            if alias not in owners:
                owners[alias] = name
            elif alias == name or owners[alias] == name:
                document.report(path, f"{alias!r} is this profile's name or alias already")
            elif owners[alias]:
                document.report(path, f"{alias!r} is an alias of {owners[alias]} already")
            else:
                document.report(path, f"{alias!r} is the name of another profile")


def _by_port(config: Config) -> Iterator[tuple[int, list[Profile]]]:
    def port_of(profile: ProfileBase) -> int:
        return profile.port

    for port, group in groupby(sorted(config.profiles.values(), key=port_of), key=port_of):
        yield port, list(group)


def _check_ports(config: Config, document: Document) -> None:
    for port, profiles in _by_port(config):
        if config.gateway is not None and port == config.gateway.port:
            for profile in profiles:
                document.report(
                    ("profiles", profile.name, "port"),
                    f"{port} is the gateway's port; choose another, or set `gateway: null`",
                )
        for flag, why in (
            ("default", "a port loads one profile by default"),
            ("pinned", "a port holds one profile at a time, so only one can be pinned there"),
            ("preload", "a port holds one profile at a time, so only one can be loaded at start"),
        ):
            marked = [profile for profile in profiles if getattr(profile, flag)]
            for profile in marked[1:]:
                document.report(
                    ("profiles", profile.name, flag),
                    f"{marked[0].name} has `{flag}` on port {port} already; {why}",
                )


def _check_sizes(config: Config, document: Document) -> None:
    budget = absolute_budget_bytes(config)
    for name, profile in config.profiles.items():
        if budget is not None and profile.memory is not None and profile.memory > budget:
            document.report(
                ("profiles", name, "memory"),
                f"{describe_bytes(profile.memory)} can never be loaded: "
                f"the whole budget is {describe_bytes(budget)}",
            )


def _check_command(name: str, profile: CommandProfile, document: Document) -> None:
    if not any("{port}" in argument for argument in (*profile.cmd, *profile.args)):
        document.report(
            ("profiles", name, "cmd"),
            "`{port}` is not used: llmd chooses the port that the program must listen on, "
            'for example [my-server, --port, "{port}"]',
        )
    if not profile.cmd[0].strip():
        document.report(("profiles", name, "cmd", 0), "the program's name is empty")


def _check_loop(config: Config, name: str, profile: RemoteProfile, document: Document) -> None:
    url = urlsplit(profile.url)
    own = {other.port for other in config.profiles.values()}
    if config.gateway is not None:
        own.add(config.gateway.port)
    port = url.port or (443 if url.scheme == "https" else 80)
    if url.hostname in _LOCAL and port in own:
        document.report(
            ("profiles", name, "url"), f"port {port} is llmd's own: requests would go in a circle"
        )
