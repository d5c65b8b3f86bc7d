"""The LaunchAgent's property list: rendered from its template, checked, and read back.

The template is parsed before anything is filled in, so that no path can break out of its value.
What launchd makes of the keys: launchd.plist(5); the reasons for each are in the template.
"""

import ipaddress
import plistlib
import xml.parsers.expat
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from llmd.platform.definition import Definition, ServiceError, fill, template
from llmd.platform.launchd_schema import problems_with


LABEL: Final = "dev.llmd"
"""The job's name; the file's is this with `.plist`."""

SERVICE_LOG: Final = "service.log"
"""What the daemon prints, in the directory of logs."""

_VANISHING: Final = ("/tmp", "/private/tmp", "/var/folders", "/private/var/folders")  # noqa: S108
"""What macOS empties at a reboot, and sweeps now and then. A socket that launchd opens there once
would be lost for good; the daemon opens its own again."""


def plist_path(home: Path) -> Path:
    """Where the LaunchAgent of the user with *home* is."""
    return home / "Library" / "LaunchAgents" / f"{LABEL}.plist"


def render(definition: Definition, *, background: bool = False) -> str:
    """The property list for *definition*.

    Args:
        definition: What to run.
        background: It must load without a login at the screen, too.

    Raises:
        ServiceError: launchd would not take it, or the template is missing.
    """
    document = _template()
    document["Sockets"] = _sockets(document["Sockets"], definition)
    document = _filled(document, _words(definition))
    del document["EnvironmentVariables"]["@VARIABLE@"]
    document["EnvironmentVariables"] |= dict(definition.variables)
    document["LimitLoadToSessionType"] = ["Aqua", "Background"] if background else "Aqua"
    if problems := problems_with(document, stem=LABEL):
        raise ServiceError(
            f"launchd would refuse the service: {'; '.join(problems)}",
            remedy="use paths without special characters, or report this",
        )
    return plistlib.dumps(document, sort_keys=False).decode()


def read_back(text: str) -> Definition | None:
    """The definition that *text* was rendered from; None when it is not one of ours."""
    document = _parsed(text)
    try:
        arguments = document["ProgramArguments"]
        sockets = document["Sockets"]
        known = _template()["EnvironmentVariables"]
        entries = [
            entry
            for name, listed in sockets.items()
            if name.startswith("port-")
            for entry in listed
        ]
        return Definition(
            python=Path(arguments[0]),
            config_file=Path(arguments[arguments.index("--config") + 1]),
            socket=Path(arguments[arguments.index("--socket") + 1]),
            ports=tuple(dict.fromkeys(int(entry["SockServiceName"]) for entry in entries)),
            addresses=tuple(dict.fromkeys(entry["SockNodeName"] for entry in entries)),
            state_dir=Path(document["WorkingDirectory"]),
            log_dir=Path(document["StandardErrorPath"]).parent,
            variables=tuple(
                (name, value)
                for name, value in document["EnvironmentVariables"].items()
                if name not in known
            ),
        )
    except (KeyError, ValueError, TypeError, AttributeError, IndexError):
        return None


def loads_in_background(text: str) -> bool:
    """Whether the property list *text* was rendered with *background*."""
    kinds = _parsed(text).get("LimitLoadToSessionType", "Aqua")
    return "Background" in (kinds if isinstance(kinds, list) else [kinds])


def _template() -> dict[str, Any]:
    text = template(f"{LABEL}.plist", f"launchd/{LABEL}.plist")
    document: dict[str, Any] = plistlib.loads(text.encode())
    return document


def _parsed(text: str) -> dict[str, Any]:
    try:
        document = plistlib.loads(text.encode())
    except (ValueError, xml.parsers.expat.ExpatError, plistlib.InvalidFileException):
        return {}
    return document if isinstance(document, dict) else {}


def _words(definition: Definition) -> dict[str, str]:
    """What the placeholders outside the repeated parts stand for."""
    return {
        "@LABEL@": LABEL,
        "@PYTHON@": str(definition.python),
        "@BIN@": str(definition.python.parent),
        "@CONFIG@": str(definition.config_file),
        "@SOCKET@": str(definition.socket),
        "@STATE_DIR@": str(definition.state_dir),
        "@LOG_DIR@": str(definition.log_dir),
    }


def _sockets(pattern: dict[str, Any], definition: Definition) -> dict[str, Any]:
    """The sockets of *definition*, after the one port and the one address of *pattern*."""
    filled: dict[str, Any] = {}
    for port in definition.ports:
        entries = [
            _filled(
                pattern["port-@PORT@"][0],
                {
                    "@PORT@": str(port),
                    "@ADDRESS@": address,
                    "@FAMILY@": f"IPv{ipaddress.ip_address(address).version}",
                },
            )
            for address in definition.addresses
        ]
        filled[f"port-{port}"] = entries
    if not any(definition.socket.is_relative_to(directory) for directory in _VANISHING):
        filled["admin"] = pattern["admin"]
    return filled


def _filled(value: Any, words: Mapping[str, str]) -> Any:
    """*value* with the placeholders in all its strings replaced by *words*."""
    if isinstance(value, dict):
        return {key: _filled(item, words) for key, item in value.items()}
    if isinstance(value, list):
        return [_filled(item, words) for item in value]
    return fill(value, words) if isinstance(value, str) else value
