"""Programs of other people, each with a home of its own, a time limit, and nothing but loopback.

They are told to report nothing and to update nothing. Whatever else they try to reach goes to a
proxy that is not there. What they leave running (Cline's hub, for one) is ended by its process id:
it is known by a variable that only they inherit.
"""

import contextlib
import dataclasses
import json
import os
import signal
import subprocess
import uuid
from pathlib import Path

import psutil
import pytest

from tests.conftest import ROOT


PYTHON = ROOT / "build" / "clients-venv" / "bin"
NODE = ROOT / "build" / "node_modules"
NOWHERE = "http://127.0.0.1:9"

QUIET = {
    "DO_NOT_TRACK": "1",
    "DISABLE_TELEMETRY": "1",
    "NO_COLOR": "1",
    "CI": "1",
    "NO_UPDATE_NOTIFIER": "1",
    "npm_config_offline": "true",
    "npm_config_registry": NOWHERE,
    # libraries
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    "LITELLM_TELEMETRY": "False",
    "LANGSMITH_TRACING": "false",
    # agents
    "CLINE_NO_AUTO_UPDATE": "1",
    "CLINE_SESSION_BACKEND_MODE": "local",
    "DISABLE_AUTOUPDATER": "1",
    "DISABLE_ERROR_REPORTING": "1",
    "OPENCODE_DISABLE_AUTOUPDATE": "1",
    "OPENCODE_DISABLE_DEFAULT_PLUGINS": "1",
    "OPENCODE_DISABLE_LSP_DOWNLOAD": "1",
    "OPENCODE_DISABLE_MODELS_FETCH": "1",
    "OPENCODE_DISABLE_SHARE": "1",
    # everything else that they could want to reach
    "HTTP_PROXY": NOWHERE,
    "HTTPS_PROXY": NOWHERE,
    "NO_PROXY": "127.0.0.1,localhost,::1",
}


@dataclasses.dataclass
class Ran:
    code: int
    output: str
    errors: str

    @property
    def json(self):
        return json.loads(self.output)

    @property
    def lines(self):
        """The output as JSON lines."""
        return [json.loads(line) for line in self.output.splitlines() if line.startswith("{")]


class Surroundings:
    """A home, a working directory and an environment for programs; `end` ends what they left."""

    def __init__(self, directory):
        self.home = Path(directory) / "home"
        self.work = Path(directory) / "work"
        self.home.mkdir()
        self.work.mkdir()
        self._mark = uuid.uuid4().hex

    def run(self, argv, *, timeout_s, env=None):
        """Run *argv* to its end. Fails the test when it takes longer, or ends with an error."""
        environment = {
            "PATH": f"{NODE / '.bin'}:{os.environ['PATH']}",
            "HOME": str(self.home),
            "LLMD_CLIENTS": self._mark,
            **QUIET,
            **(env or {}),
        }
        process = subprocess.Popen(
            [str(word) for word in argv], cwd=self.work, env=environment, text=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            start_new_session=True,
        )  # fmt: skip
        try:
            output, errors = process.communicate(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            output, errors = process.communicate()
            pytest.fail(
                f"{argv[0]} took longer than {timeout_s} s: {output[-2000:]}{errors[-2000:]}"
            )
        ran = Ran(process.returncode, output, errors)
        assert ran.code == 0, ran
        return ran

    def end(self):
        """End every process that one of the programs left behind."""
        left = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if process.environ().get("LLMD_CLIENTS") == self._mark:
                    process.kill()
                    left.append(process)
        psutil.wait_procs(left, timeout=10)


def need(path, what):
    """Skip, and say why, when *path* was not installed: `make test-clients` says what failed."""
    if not path.exists():
        pytest.skip(f"{what} is not installed: {path.relative_to(ROOT)} is missing")
    return path
