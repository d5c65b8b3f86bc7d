"""Chaos for as long as the suite can afford; `make chaos SECONDS=600` goes on."""

import ast
import itertools

from tests.chaos.run import chaos
from tests.chaos.script import DAEMON_FAULTS, DaemonFault, rounds
from tests.conftest import ROOT


SECONDS = 45.0
"""Then the round under way is finished: about a minute."""
SEED = 20
WALL_CLOCK = {("time", "time"), ("time", "time_ns"), ("datetime", "now"), ("datetime", "today")}
SHOWN = {"runtime/log.py", "runtime/gate.py"}
"""Where the time of day is read, to be shown: in log lines, and in `created` of lists."""


def test_a_minute_of_chaos_violates_nothing(demo_models):
    tally = chaos(SECONDS, SEED)
    assert tally.violations == [], tally.report()
    assert tally.outcomes["right"] + tally.outcomes["right, streamed"] > 20, tally.report()


def test_seed_decides_every_action():
    first, again, other = (list(itertools.islice(rounds(seed), 4)) for seed in (7, 7, 8))
    assert first == again
    assert first != other


def test_each_daemon_fault_has_its_turn():
    actions = itertools.chain.from_iterable(itertools.islice(rounds(1), 4))
    named = {action.what.name for action in actions if isinstance(action.what, DaemonFault)}
    assert named == set(DAEMON_FAULTS)


def test_clock_that_jumps_decides_nothing():
    """None of those who decide reads the time of day."""
    found = set()
    for package in ("core", "runtime", "platform", "admin"):
        for path in (ROOT / "llmd" / package).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                match node:
                    case ast.Attribute(value=ast.Name(id=module), attr=name):
                        if (module, name) in WALL_CLOCK:
                            found.add(str(path.relative_to(ROOT / "llmd")))
                    case ast.ImportFrom(module="time", names=names):
                        assert "time" not in {name.name for name in names}, path
    assert found <= SHOWN
