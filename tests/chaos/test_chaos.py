"""Chaos for as long as the suite can afford; `make chaos SECONDS=600` goes on."""

import ast
import itertools
import os
import subprocess
import sys

import pytest

from tests.chaos.run import chaos
from tests.chaos.script import DAEMON_FAULTS, JUMP_S, DaemonFault, rounds
from tests.chaos.wall_clock import WallClock
from tests.conftest import ROOT


SECONDS = 45.0
"""Then the round under way is finished: about a minute."""
SEED = 17
WALL_CLOCK = {("time", "time"), ("time", "time_ns"), ("datetime", "now"), ("datetime", "today")}
SHOWN = {"runtime/log.py", "runtime/gate.py"}
"""Where the time of day is read, to be shown: in log lines, and in `created` of lists."""
COMPARED = {"runtime/saved_prompts.py"}
"""With what files carry: a clock that is put forward costs the prompts that were saved, no more."""


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


def test_set_clock_is_wrong_for_whoever_preloads_it_and_for_nobody_else(short_dir):
    clock = WallClock(short_dir)
    if clock.library is None:
        pytest.skip("needs Linux and a C compiler")
    program = "import time; print(time.time(), time.monotonic())"
    clock.jump(JUMP_S)
    told = [
        subprocess.run(
            [sys.executable, "-c", program], env={**os.environ, **more}, check=True,
            capture_output=True, text=True,
        ).stdout.split()
        for more in ({}, clock.environ)
    ]  # fmt: skip
    (right, before), (wrong, after) = ([float(word) for word in words] for words in told)
    assert JUMP_S <= wrong - right < JUMP_S + 100
    assert 0 <= after - before < 100


def test_nobody_who_decides_reads_the_time_of_day():
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
    assert found <= SHOWN | COMPARED
