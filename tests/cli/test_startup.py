"""What a person waits for before `llmd-ctl` does anything."""

import subprocess
import sys

import pytest


@pytest.mark.usefixtures("daemon")
def test_status_imports_nothing_slow(environment):
    """A person waits for these imports at every command. aiohttp alone takes 150 ms."""
    program = (
        "import sys; from llmd.cli.main import run; status = run(['status'])\n"
        "print(*sys.modules, file=sys.stderr); sys.exit(status)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=environment,
        capture_output=True,
        text=True,
        timeout=20,
        check=True,
    )
    imported = {name.partition(".")[0] for name in done.stderr.split()}
    slow = {
        "aiohttp",
        "email",
        "ssl",
        "asyncio",
        "mlx",
        "psutil",
        "pydantic",
        "rich",
        "structlog",
        "uvloop",
        "yaml",
    }
    assert "code" in done.stdout
    assert imported & slow == set()
    assert not {"llmd.runtime", "llmd.core", "llmd.proxy", "llmd.engines"} & set(
        done.stderr.split()
    )


@pytest.mark.usefixtures("daemon")
def test_shell_completes_profiles(environment):
    def complete(words: str, at: int) -> list[str]:
        extra = {
            "_LLMD_CTL_COMPLETE": "bash_complete",
            "COMP_WORDS": words,
            "COMP_CWORD": str(at),
        }
        done = subprocess.run(
            [sys.executable, "-m", "llmd.cli.main"],
            env=environment | extra,
            capture_output=True,
            text=True,
            timeout=20,
            check=False,
        )
        return [line.partition(",")[2] for line in done.stdout.split()]

    assert complete("llmd-ctl load co", 2) == ["code", "code6"]
    assert complete("llmd-ctl --socket /nowhere load co", 4) == []
    assert complete("llmd-ctl stat", 1) == ["status"]
