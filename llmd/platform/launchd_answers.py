"""What `launchctl` answers: its exit statuses in words, and the lines of `print` that are used."""

import re
from dataclasses import dataclass
from typing import Final


OK: Final = 0
NO_PROCESS: Final = 3
IN_PROGRESS: Final = 36
NO_DOMAIN: Final = 112
NO_SERVICE: Final = 113

GONE: Final = frozenset({NO_PROCESS, NO_DOMAIN, NO_SERVICE})
"""The job is in no such domain."""

PASSING: Final = frozenset({5, 17, IN_PROGRESS, 37, 124})
"""What `bootstrap` says while the job's predecessor still drains, and then no longer."""

MEANINGS: Final = {
    NO_PROCESS: "no such process: the service is not loaded",
    5: "input/output error: it is loaded, draining or disabled, its file has a wrong owner or mode "
    "or is on a protected volume, or there is no login session",
    17: "it is loaded already",
    IN_PROGRESS: "an operation on it is in progress",
    37: "an operation on it was begun already",
    64: "launchctl does not know these arguments",
    78: "it could not be started: program, working directory or log file is missing",
    109: "the property list is invalid",
    111: "the property list names no program",
    NO_DOMAIN: "there is no such domain: you are not logged in at the screen",
    NO_SERVICE: "there is no such service in the domain",
    119: "the service is disabled",
    122: "the property list has a wrong owner or mode",
    124: "the domain is shutting down",
    125: "the domain does not support this: it has no login at the screen",
    126: "this is no longer supported",
    134: "it is of another kind of session",
    139: "it cannot be run now",
    150: "System Integrity Protection forbids it",
    155: "the file is quarantined",
    159: "the sandbox forbids it",
    161: "the policy for background items forbids it",
}
"""Numbers above 100 have moved between releases of macOS; `launchctl error N` knows its own."""

REMEDIES: Final = {
    NO_DOMAIN: "log in at the screen of this machine, then `llmd-ctl install`",
    125: "log in at the screen of this machine, then `llmd-ctl install`",
    119: "allow llmd under System Settings, General, Login Items",
    161: "allow llmd under System Settings, General, Login Items",
}

_FIELD: Final = re.compile(r"^\s*(?P<name>[a-z][a-z ]*?) = (?P<value>.*\S)\s*$")


@dataclass(frozen=True, slots=True)
class JobState:
    """What `launchctl print` says of a loaded job.

    Attributes:
        state: `running`, `spawn scheduled`, `not running` and the like.
        pid: Its process.
        last_exit: The status it ended with last.
        exit_timeout_s: The time from SIGTERM to SIGKILL that is in force, in seconds.
        spawn_type: How it is scheduled, such as `interactive (4)`.
    """

    state: str = ""
    pid: int | None = None
    last_exit: int | None = None
    exit_timeout_s: int | None = None
    spawn_type: str = ""


def parse_print(text: str) -> JobState:
    """Read the output of `launchctl print domain/label`.

    Apple calls it no interface. Only the job's own lines are read, each at its first place: blocks
    inside the job's repeat their names.
    """
    fields: dict[str, str] = {}
    depth = 0
    for line in text.splitlines():
        end = line.rstrip()
        if end.strip() == "}":
            depth -= 1
        elif end.endswith("{"):
            depth += 1
        elif depth == 1 and (found := _FIELD.match(line)):
            fields.setdefault(found["name"], found["value"])
    return JobState(
        state=fields.get("state", ""),
        pid=_number(fields.get("pid")),
        last_exit=_number(fields.get("last exit code")),
        exit_timeout_s=_number(fields.get("exit timeout")),
        spawn_type=fields.get("spawn type", ""),
    )


def explain(code: int | None) -> str:
    """The exit status *code* in words; None when it gave none in time."""
    if code is None:
        return "launchctl did not answer in time"
    meaning = MEANINGS.get(code)
    return f"{code}: {meaning}" if meaning else f"{code}: see `launchctl error {code}`"


def _number(text: str | None) -> int | None:
    """The number that *text* begins with: `78: EX_CONFIG` is 78, `(never exited)` is None."""
    found = re.match(r"-?\d+", text or "")
    return int(found[0]) if found else None
