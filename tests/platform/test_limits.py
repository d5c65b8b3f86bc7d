"""Open files: as many as are needed, wherever the daemon was started."""

import resource
import sys

import pytest

from llmd.platform import limits
from llmd.platform.limits import WANTED_FILES, raise_file_limit
from llmd.platform.run import run


INFINITY = resource.RLIM_INFINITY

LIMITED = """
import resource, sys
from llmd.platform.limits import raise_file_limit
from llmd.platform.run import run
_, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
print(raise_file_limit())
print(resource.getrlimit(resource.RLIMIT_NOFILE)[0])
print(run(["sh", "-c", "ulimit -n"], timeout_s=10).output)
"""


def test_limit_as_launchd_sets_it_is_raised_for_the_daemon_and_its_children():
    ran = run([sys.executable, "-c", LIMITED], timeout_s=30)
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    expected = WANTED_FILES if hard == INFINITY else min(WANTED_FILES, hard)
    assert ran.output.split() == [str(expected)] * 3


@pytest.mark.parametrize(
    ("soft", "hard", "expected"),
    [
        pytest.param(256, INFINITY, WANTED_FILES, id="launchd: finite though infinity is allowed"),
        pytest.param(1024, 2**20, WANTED_FILES, id="systemd"),
        pytest.param(256, 1000, 1000, id="as far as allowed"),
        pytest.param(65536, 2**20, 65536, id="never lowered"),
        pytest.param(INFINITY, INFINITY, INFINITY, id="nor is infinity"),
    ],
)
def test_soft_limit_is_raised_and_the_hard_one_kept(monkeypatch, soft, hard, expected):
    now = [(soft, hard)]
    monkeypatch.setattr(limits.resource, "getrlimit", lambda _which: now[-1])
    monkeypatch.setattr(limits.resource, "setrlimit", lambda _which, pair: now.append(pair))
    assert raise_file_limit() == expected
    assert now[-1] == (expected, hard)


@pytest.mark.parametrize("error", [OSError, ValueError])
def test_system_that_refuses_leaves_the_limit_as_it_was(monkeypatch, error):
    def refuse(_which, _pair):
        raise error

    monkeypatch.setattr(limits.resource, "getrlimit", lambda _which: (256, INFINITY))
    monkeypatch.setattr(limits.resource, "setrlimit", refuse)
    assert raise_file_limit() == 256
