"""What all tests share: the demo models, and short private directories."""

import fcntl
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import settings


# A shell without job control starts background jobs with SIGINT ignored, and whatever they start
# inherits that: Ctrl-C could not be tested.
signal.signal(signal.SIGINT, signal.default_int_handler)

# No deadlines: a busy machine is no bug. In CI the examples are the same each time, so that a
# change is judged by what it changed; everywhere else they are new ones.
settings.register_profile("local", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "local")

ROOT = Path(__file__).parents[1]
DEMO = ROOT / "build" / "demo"


@pytest.fixture(scope="session")
def demo_models():
    """The directory of the demo models; made on first use, by one test process at a time."""
    DEMO.parent.mkdir(exist_ok=True)
    with (DEMO.parent / "demo.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        script = ROOT / "etc" / "demo" / "variants.py"
        subprocess.run([sys.executable, str(script), str(DEMO)], check=True, capture_output=True)
    return DEMO


@pytest.fixture
def short_dir():
    """A private directory with a path short enough for sockets."""
    with tempfile.TemporaryDirectory(prefix="llmd-", dir="/tmp") as path:
        yield Path(path)
