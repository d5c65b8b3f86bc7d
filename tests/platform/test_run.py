"""Helper programs: what they print, how they end, and that none outlives its time."""

import sys
import time

from llmd.platform.run import Ran, run


def python(text, **options):
    return run([sys.executable, "-c", text], **{"timeout_s": 10, **options})


def test_output_of_both_kinds_and_status_are_told():
    ran = python("import sys; print('out', flush=True); print('err', file=sys.stderr); sys.exit(3)")
    assert ran == Ran(3, "out\nerr\n")
    assert not ran.ok


def test_program_is_looked_up_on_path():
    assert run(["true"], timeout_s=5).ok


def test_missing_program_is_an_answer():
    assert run(["no-such-program"], timeout_s=5) == Ran(127, "no-such-program: no such program")


def test_program_that_hangs_is_ended():
    began = time.monotonic()
    ran = python("print('here', flush=True); import signal; signal.pause()", timeout_s=0.5)
    assert ran == Ran(None, "here\n")
    assert time.monotonic() - began < 5


def test_environment_is_what_is_given():
    ran = python("import os; print(os.environ['A'])", env={"A": "b", "PATH": "/usr/bin"})
    assert ran == Ran(0, "b\n")
