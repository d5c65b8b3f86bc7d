"""Nothing forks: on macOS 26 a forked copy of the daemon can hang or die before it reaches `exec`.

Neither the daemon nor the exec host, which starts somebody else's server, nor a helper program.
"""

import ast
import os
import subprocess
import sys

import pytest

from llmd.hosts.protocol import Launch
from llmd.platform.run import run
from llmd.runtime.host_process import HostProcess
from tests.conftest import ROOT
from tests.hosts.conftest import command


BANNED_HOST = """
import os, runpy, subprocess

def forbidden(*_args, **_kwargs):
    raise AssertionError("forked")

os.fork = os.forkpty = subprocess._fork_exec = forbidden
subprocess._HAVE_POSIX_SPAWN_CLOSEFROM = False  # as on macOS
runpy.run_module("llmd.hosts", run_name="__main__")
"""


@pytest.fixture
def ban(monkeypatch):
    """Whoever forks in this process fails, as `subprocess` would have to on macOS."""

    def forbidden(*_args, **_kwargs):
        raise AssertionError("forked")

    monkeypatch.setattr(os, "fork", forbidden)
    monkeypatch.setattr(os, "forkpty", forbidden)
    monkeypatch.setattr(subprocess, "_fork_exec", forbidden)
    monkeypatch.setattr(subprocess, "_HAVE_POSIX_SPAWN_CLOSEFROM", False, raising=False)


def test_ban_is_one(ban):
    with pytest.raises(AssertionError, match="forked"):
        subprocess.run([sys.executable, "-c", ""], check=True)


async def test_host_and_the_engine_that_it_starts_come_about_without_a_fork(ban, short_dir):
    host = await HostProcess.start(
        "exec",
        directory=short_dir,
        log_path=short_dir / "host.log",
        orphan_grace_s=30,
        program=("-c", BANNED_HOST),
    )
    try:
        await host.load(Launch("lab", "exec", command(), {}, 20), "f1")
        assert host.state == "ready"
    finally:
        await host.stop(grace_s=0)


def test_helper_program_comes_about_without_a_fork(ban):
    assert run([sys.executable, "-c", "print('hi')"], timeout_s=10).output == "hi\n"


NAMES = {
    "fork", "forkpty", "posix_spawn", "posix_spawnp", "popen", "Popen",
    *(f"spawn{kind}" for kind in ("l", "le", "lp", "lpe", "v", "ve", "vp", "vpe")),
    "create_subprocess_exec", "create_subprocess_shell", "subprocess_exec", "subprocess_shell",
    "ProcessPoolExecutor", "preexec_fn",
}  # fmt: skip
"""What starts processes."""

HIDDEN = {"find_library", "processor", "getnode", "uuid1"}
"""What runs a program (gcc, uname, ifconfig) where nobody would think so."""

MODULES = {"subprocess", "multiprocessing", "pty", "webbrowser"}

ALLOWED = {"llmd/platform/spawn.py": {"posix_spawn"}}


def mentioned(tree):
    """Every name that a module looks up on something, or imports."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            yield node.attr
        elif isinstance(node, ast.Import | ast.ImportFrom):
            yield from (alias.name.split(".")[0] for alias in node.names)
            yield (getattr(node, "module", None) or "").split(".")[0]


def test_nothing_but_one_module_names_what_starts_processes():
    for path in sorted((ROOT / "llmd").rglob("*.py")):
        name = str(path.relative_to(ROOT))
        found = set(mentioned(ast.parse(path.read_text()))) & (NAMES | HIDDEN | MODULES)
        assert found <= ALLOWED.get(name, set()), f"{name} uses {found}"


@pytest.mark.parametrize(
    "code",
    [
        "import subprocess",
        "from os import fork",
        "import asyncio; asyncio.create_subprocess_exec('x')",
        "def later():\n    from multiprocessing import Process",
        "import ctypes.util; ctypes.util.find_library('c')",
        "import psutil; psutil.Popen(['x'])",
    ],
)
def test_check_sees_through(code):
    assert set(mentioned(ast.parse(code))) & (NAMES | HIDDEN | MODULES)
