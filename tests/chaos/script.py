"""What happens in a chaos run, decided beforehand: a pure function of the seed.

Timing is the machine's; the sequence of actions and every number in them is not. `rounds(seed)`
yields rounds without end, each some seconds of traffic, commands and faults, after which the run
calms down and is looked at.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from tests.lessons import LESSONS


ROUND_S: Final = 10.0
REQUESTS_PER_S: Final = 7
HOSTS: Final = ("code", "code6", "raw", "reason", "lab", "deaf", "leaky")
"""Profiles that can serve. `bad` and `endless` cannot, and are asked for all the same."""
DEMO: Final = ("code", "code6", "raw", "reason")
PORT_OF: Final = {
    "code": "code", "code6": "code", "raw": "raw", "reason": "reason",
    "lab": "lab", "bad": "lab", "endless": "lab", "deaf": "deaf", "leaky": "leaky",
}  # fmt: skip
"""The profile that each port is called after."""
PROMPTS: Final = ("hello", "capital", "multiply", "bat_and_ball", "count", "story")
BAD: Final = (
    "no json", "no body", "deep json", "unknown path", "unknown model", "foreign host",
    "foreign origin", "two lengths", "bare noise", "endless header", "wrong type",
)  # fmt: skip
ENGINE_FAULTS: Final[tuple[dict[str, Any], ...]] = (
    {"crash_after": 2},
    {"crash_after": 0},
    {"cut_after": 2},
    {"silent": True},
    {"hang": True},
    {"status": 500},
    {"close_delimited": True},
    {"babble": 6 * 2**20},
    {"chunk_bytes": 100_000, "chunks": 60},
)
FAULTS_A_ROUND: Final = 3
"""Of the daemon's, one after the other."""
HOST_FAULTS: Final = ("SIGKILL", "SIGKILL tree", "SIGABRT", "SIGSTOP")
DAEMON_FAULTS: Final = (
    "kill", "restart", "disk full", "disk read-only", "few descriptors", "spare", "clock jump",
)  # fmt: skip
JUMP_S: Final = 3 * 365 * 86_400
"""The time of day is set by as much, at most, to either side."""
COMMANDS: Final = (
    "load", "load", "load for a moment", "load and pin", "unload", "unload all", "pin", "unpin",
    "plan",
)  # fmt: skip
RELOADS: Final = ("changed", "removed", "broken", "budget", "base")


@dataclass(frozen=True, slots=True)
class Ask:
    """One client.

    Attributes:
        profile: Whom it means to reach.
        prompt: The name of a lesson, or of a bad request; empty for the unruly engine.
        stream: Whether it wants one.
        gateway: Whether it goes there.
        leave_s: When it hangs up, at the latest; None if it waits for the end.
        slow: `""`, `"reader"` or `"writer"`.
        unruly: What the unruly engine is told to do.
    """

    profile: str
    prompt: str = ""
    stream: bool = False
    gateway: bool = False
    leave_s: float | None = None
    slow: str = ""
    unruly: dict[str, Any] = field(default_factory=dict)
    bad: bool = False


@dataclass(frozen=True, slots=True)
class Command:
    """An administrator's."""

    name: str
    profile: str


@dataclass(frozen=True, slots=True)
class Reload:
    """A changed configuration file, and `reload`."""

    how: str
    profile: str


@dataclass(frozen=True, slots=True)
class HostFault:
    """A signal to a host; SIGSTOP is followed by SIGCONT after *seconds*."""

    name: str
    profile: str
    seconds: float


@dataclass(frozen=True, slots=True)
class DaemonFault:
    """Something that happens to the daemon, or around it, for *seconds*.

    *amount* is how many descriptors are left to it, or by how many seconds its clock is wrong.
    """

    name: str
    seconds: float
    amount: int


@dataclass(frozen=True, slots=True)
class Action:
    """*what* happens *at_s* seconds after the round began."""

    at_s: float
    what: Ask | Command | Reload | HostFault | DaemonFault


def rounds(seed: int) -> Iterator[tuple[Action, ...]]:
    """The rounds of *seed*, without end. Daemon faults take turns, in an order of the seed's."""
    dice = random.Random(seed)
    turns: list[str] = []
    while True:
        if len(turns) < FAULTS_A_ROUND:
            turns += dice.sample(DAEMON_FAULTS, len(DAEMON_FAULTS))
        actions = [
            *(_at(dice, _ask(dice)) for _ in range(int(ROUND_S * REQUESTS_PER_S))),
            *(_at(dice, _command(dice)) for _ in range(10)),
            *(_at(dice, Reload(dice.choice(RELOADS), dice.choice(HOSTS))) for _ in range(2)),
            *(_at(dice, _host_fault(dice)) for _ in range(6)),
            *(_at(dice, _daemon_fault(dice, turns.pop(0))) for _ in range(FAULTS_A_ROUND)),
        ]
        yield tuple(sorted(actions, key=lambda action: action.at_s))


def _at(dice: random.Random, what: Ask | Command | Reload | HostFault | DaemonFault) -> Action:
    return Action(round(dice.uniform(0, ROUND_S), 3), what)


def _ask(dice: random.Random) -> Ask:
    profile = dice.choice((*HOSTS, *HOSTS, "bad", "endless"))
    ask: dict[str, Any] = {
        "profile": profile,
        "stream": dice.random() < 0.6,
        "gateway": dice.random() < 0.2,
        "leave_s": round(dice.uniform(0, 4), 3) if dice.random() < 0.25 else None,
        "slow": dice.choice(("", "", "", "", "reader", "writer")),
    }
    if dice.random() < 0.12:
        return Ask(**{**ask, "prompt": dice.choice(BAD), "bad": True, "slow": ""})
    if profile in DEMO:
        return Ask(**ask, prompt=dice.choice(PROMPTS))
    chunks = dice.randint(1, 40)
    told: dict[str, Any] = {"chunks": chunks, "chunk_delay": dice.choice((0, 0, 0.01, 0.05))}
    if dice.random() < 0.3:
        told |= dice.choice(ENGINE_FAULTS)
    if told.get("silent") or told.get("hang"):  # nobody but its client ends it
        ask["leave_s"] = round(dice.uniform(0.5, 4), 3)
    return Ask(**ask, unruly=told)


def _command(dice: random.Random) -> Command:
    return Command(dice.choice(COMMANDS), dice.choice((*HOSTS, "bad")))


def _host_fault(dice: random.Random) -> HostFault:
    name, profile = dice.choice(HOST_FAULTS), dice.choice(HOSTS)
    return HostFault(name, profile, round(dice.uniform(0.2, 3), 3))


def _daemon_fault(dice: random.Random, name: str) -> DaemonFault:
    amount = dice.randint(-JUMP_S, JUMP_S) if name == "clock jump" else dice.randrange(12)
    return DaemonFault(name, round(dice.uniform(0.5, 3), 3), amount)


def expected(ask: Ask) -> str:
    """The one right answer to *ask*."""
    if ask.prompt:
        return str(LESSONS[ask.prompt]["answer"])
    count, size = ask.unruly["chunks"], ask.unruly.get("chunk_bytes", 0)
    return "".join(f"w{n} ".ljust(size, ".") for n in range(count))
