"""The systemd user units: rendered from their templates, and read back.

What systemd makes of the values: systemd.unit(5), systemd.service(5), systemd.socket(5). Reasons
for each are in the templates.
"""

import ipaddress
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from llmd.platform.definition import Definition, ServiceError, fill, template


SERVICE: Final = "llmd.service"
SOCKET: Final = "llmd.socket"
UNITS: Final = (SOCKET, SERVICE)
"""Started and stopped together: while the socket unit is active, a connection starts the other."""

_WORD: Final = re.compile(r'"((?:[^"\\]|\\.)*)"|(\S+)')
_TIMES_S: Final = {
    "us": 1e-6,
    "ms": 1e-3,
    "s": 1.0,
    "min": 60.0,
    "h": 3600.0,
    "d": 86400.0,
    "w": 604800.0,
    "month": 2629800.0,
    "y": 31557600.0,
}


def unit_dir(home: Path, environ: Mapping[str, str]) -> Path:
    """Where a user's own units are."""
    configured = environ.get("XDG_CONFIG_HOME", "")
    base = Path(configured) if configured.startswith("/") else home / ".config"
    return base / "systemd" / "user"


def render_service(definition: Definition) -> str:
    """`llmd.service` for *definition*.

    Raises:
        ServiceError: A path cannot stand in a unit, or the template is missing.
    """
    words = {
        "@PYTHON@": _program(definition.python),
        "@BIN@": _inside_quotes(definition.python.parent),
        "@CONFIG@": _quoted(definition.config_file),
        "@SOCKET@": _quoted(definition.socket),
        "@STATE_DIR@": _plain(definition.state_dir),
    }
    lines = []
    for line in _template_lines(SERVICE):
        if "@VARIABLE@" in line:
            lines += [
                fill(line, {"@VARIABLE@": name, "@VALUE@": _inside_quotes(value)})
                for name, value in definition.variables
            ]
        else:
            lines.append(fill(line, words))
    return "\n".join(lines) + "\n"


def render_socket(definition: Definition) -> str:
    """`llmd.socket` for *definition*.

    Raises:
        ServiceError: As `render_service`.
    """
    lines = []
    for line in _template_lines(SOCKET):
        if "@ADDRESS@" in line:
            lines += [fill(line, {"@ADDRESS@": address}) for address in _endpoints(definition)]
        else:
            lines.append(fill(line, {"@SOCKET@": _plain(definition.socket)}))
    return "\n".join(lines) + "\n"


def read_back(service: str, sockets: str) -> Definition | None:
    """The definition that the two units were rendered from; None when they are not ours.

    They name no directory for logs: the journal has what is printed.
    """
    try:
        words = _words(_values(service, "ExecStart")[0].removeprefix(":"))
        found = [_endpoint(value) for value in _values(sockets, "ListenStream") if value[0] != "/"]
        variables = [_words(value)[0].partition("=") for value in _values(service, "Environment")]
        state_dir = Path(_unescaped(_values(service, "WorkingDirectory")[0].removeprefix("-")))
        return Definition(
            python=Path(words[0]),
            config_file=Path(words[words.index("--config") + 1]),
            socket=Path(words[words.index("--socket") + 1]),
            ports=tuple(dict.fromkeys(port for _, port in found)),
            addresses=tuple(dict.fromkeys(address for address, _ in found)),
            state_dir=state_dir,
            log_dir=state_dir,
            variables=tuple(
                (name, value) for name, _, value in variables if name not in ("PATH", "PYTHONUTF8")
            ),
        )
    except (IndexError, ValueError):
        return None


def parse_timespan(text: str) -> float | None:
    """Seconds of a time as systemd prints it: `1min 30s`, `500ms`; None for `infinity`.

    A time that it cannot read is None, too: neither is a limit to count on.
    """
    total_s = 0.0
    for part in text.split():
        found = re.fullmatch(r"(\d+(?:\.\d+)?)([a-z]+)", part)
        if found is None or found[2] not in _TIMES_S:
            return None
        total_s += float(found[1]) * _TIMES_S[found[2]]
    return total_s if text.strip() else None


def _template_lines(unit: str) -> Iterator[str]:
    """The lines of a template without its comments, one blank line between sections."""
    for line in template(unit, f"etc/{unit}").splitlines():
        if line.startswith("["):
            if line != "[Unit]":
                yield ""
            yield line
        elif line and not line.startswith("#"):
            yield line


def _endpoints(definition: Definition) -> Iterator[str]:
    for port in definition.ports:
        for text in definition.addresses:
            address = ipaddress.ip_address(text)
            host = f"[{address}]" if address.version == 6 else str(address)
            yield _escaped(f"{host}:{port}")


def _endpoint(text: str) -> tuple[str, int]:
    host, _, port = _unescaped(text).rpartition(":")
    return host.strip("[]"), int(port)


def _values(unit: str, key: str) -> list[str]:
    """What *key* is set to in the text of a unit, in order."""
    lines = unit.splitlines()
    return [line.partition("=")[2] for line in lines if line.startswith(f"{key}=")]


def _program(value: Path) -> str:
    """*value* as the program of a command line; systemd is choosier with it than with the rest."""
    if re.search(r"""["'\\]""", str(value)):
        raise ServiceError(
            f"systemd cannot start a program called {value}",
            remedy="install llmd where the path has no quotes and no backslashes",
        )
    return _quoted(value)


def _quoted(value: Path | str) -> str:
    """*value* as one word of a command line."""
    inside = _inside_quotes(value)
    return inside if re.fullmatch(r"[\w./+:@%=,-]+", inside) else f'"{inside}"'


def _inside_quotes(value: Path | str) -> str:
    return _escaped(str(value).replace("\\", "\\\\").replace('"', '\\"'))


def _plain(value: Path) -> str:
    """*value* as a whole setting, which systemd takes as it stands."""
    if (text := str(value)) != text.strip() or text.endswith("\\"):
        raise ServiceError(
            f"systemd cannot use the path {text!r}", remedy="choose one without blanks at its ends"
        )
    return _escaped(text)


def _escaped(text: str) -> str:
    """*text* with what systemd would take for a specifier doubled.

    Raises:
        ServiceError: It has line ends or other control characters.
    """
    if any(ord(letter) < 0x20 or ord(letter) == 0x7F for letter in text):
        raise ServiceError(
            f"systemd cannot use {text!r}", remedy="choose a path without control characters"
        )
    return text.replace("%", "%%")


def _unescaped(text: str) -> str:
    return text.replace("%%", "%")


def _words(command: str) -> list[str]:
    """The words of a command line that `_quoted` made."""
    return [
        _unescaped(re.sub(r"\\(.)", r"\1", found[1]) if found[1] is not None else found[2])
        for found in _WORD.finditer(command)
    ]
