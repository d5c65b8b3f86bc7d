"""What a property list for launchd may say, checked before it is written.

launchd ignores unknown keys, drops values of the wrong type, and answers most other mistakes with
`5: Input/output error`; `plutil -lint` checks only syntax. So the keys that llmd uses are listed
here, each with what it accepts. A key that is not listed is refused, and with it those that do
harm: ResidentSetSize (limits addresses, not memory), EnableTransactions (kills without SIGTERM),
UserName (not for agents), LowPriorityIO.
"""

from collections.abc import Callable
from typing import Any, Final


Check = Callable[[Any], str]
"""Says what is wrong with a value; nothing when it is right."""

EXIT_TIMEOUT_MAX_S: Final = 60
"""More is cut to this in a login session."""

_SOCKET_PATH_MAX_BYTES: Final = 103


def problems_with(document: dict[str, Any], *, stem: str) -> list[str]:
    """All that is wrong with *document*, whose file is called *stem* with `.plist`."""
    found = _mapping(_KEYS, needed=_NEEDED)(document)
    problems = [found] if found else []
    if document.get("Label") != stem:
        problems.append(f"Label is {document.get('Label')!r} in a file called {stem}.plist")
    return problems


def _text(value: Any) -> str:
    if not isinstance(value, str):
        return f"{value!r} is no text"
    if not value or any(ord(letter) < 0x20 or 0xD800 <= ord(letter) < 0xE000 for letter in value):
        return f"{value!r} is empty or has control characters"
    return ""


def _path(value: Any) -> str:
    """An absolute path. launchd expands nothing, so `~` and `$` are what somebody forgot."""
    if wrong := _text(value):
        return wrong
    if not value.startswith("/") or "$" in value:
        return f"{value!r} is no absolute path, or has a `$` that launchd would not expand"
    return ""


def _search_path(value: Any) -> str:
    return _text(value) or next(filter(None, map(_path, value.split(":"))), "")


def _socket_path(value: Any) -> str:
    too_long = isinstance(value, str) and len(value.encode()) > _SOCKET_PATH_MAX_BYTES
    return f"{value!r} is too long for a socket" if too_long else _path(value)


def _true_or_false(value: Any) -> str:
    return "" if isinstance(value, bool) else f"{value!r} is neither true nor false"


def _number(low: int, high: int) -> Check:
    def check(value: Any) -> str:
        whole = isinstance(value, int) and not isinstance(value, bool)
        return "" if whole and low <= value <= high else f"{value!r} is not in {low} to {high}"

    return check


def _one_of(*allowed: Any) -> Check:
    def check(value: Any) -> str:
        # Their text tells True from 1, which are equal.
        known = repr(value) in map(repr, allowed)
        return "" if known else f"{value!r} is none of {', '.join(map(repr, allowed))}"

    return check


def _list_of(item: Check) -> Check:
    def check(value: Any) -> str:
        if not isinstance(value, list) or not value:
            return f"{value!r} is no list, or an empty one"
        return next(filter(None, map(item, value)), "")

    return check


def _mapping(
    keys: dict[str, Check], *, other: Check | None = None, needed: tuple[str, ...] = ()
) -> Check:
    """A dictionary with these *keys*; *other* checks what further keys hold, if any may be."""

    def check(value: Any) -> str:
        if not isinstance(value, dict):
            return f"{value!r} is no dictionary"
        found = [f"{key} is missing" for key in needed if key not in value]
        for key, item in value.items():
            rule = keys.get(key, other)
            wrong = "is no key that llmd uses" if rule is None else rule(item)
            if wrong:
                found.append(f"{key}: {wrong}")
        return "; ".join(found)

    return check


def _arguments(value: Any) -> str:
    return _list_of(_text)(value) or _path(value[0])


_PORT: Final = _list_of(
    _mapping(
        {
            "SockNodeName": _text,
            "SockServiceName": _text,
            "SockFamily": _one_of("IPv4", "IPv6"),
        },
        needed=("SockNodeName", "SockServiceName", "SockFamily"),
    )
)
_ADMIN: Final = _mapping(
    {"SockPathName": _socket_path, "SockPathMode": _one_of(0o600)},
    needed=("SockPathName", "SockPathMode"),
)

_KEYS: Final[dict[str, Check]] = {
    "Label": _text,
    "ProgramArguments": _arguments,
    "RunAtLoad": _true_or_false,
    "KeepAlive": _one_of({"SuccessfulExit": False}),
    "ThrottleInterval": _number(1, 3600),
    "ExitTimeOut": _number(1, EXIT_TIMEOUT_MAX_S),
    "ProcessType": _one_of("Interactive"),
    "SoftResourceLimits": _mapping({"NumberOfFiles": _number(1024, 10240)}),
    "Umask": _one_of("077"),
    "EnvironmentVariables": _mapping({"PATH": _search_path}, other=_text, needed=("PATH",)),
    "WorkingDirectory": _path,
    "StandardOutPath": _path,
    "StandardErrorPath": _path,
    "Sockets": _mapping({"admin": _ADMIN}, other=_PORT),
    "LimitLoadToSessionType": _one_of("Aqua", ["Aqua", "Background"]),
}
_NEEDED: Final = tuple(_KEYS)
