"""`kill -9` at each system call of each write: the old file or the new one, whole and private."""

import json
import subprocess
import sys

import pytest

from tests.conftest import ROOT
from tests.data.kinds import KINDS


@pytest.mark.skipif(sys.platform != "linux", reason="ptrace as Linux has it")
@pytest.mark.parametrize("kind", KINDS)
def test_writer_killed_at_any_system_call_leaves_the_old_file_or_the_new_one(kind, tmp_path):
    ran = subprocess.run(
        [sys.executable, "-m", "tests.data.killing", kind, tmp_path],
        check=False, cwd=ROOT, umask=0, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    if "PermissionError: [Errno 1] ptrace" in ran.stderr:
        pytest.skip("this machine lets nobody trace")
    assert ran.returncode == 0, ran.stderr
    found = json.loads(ran.stdout)
    assert len(found) > 20
    values = [each["value"] for each in found]
    # Once, and for good: no stop after the replacement finds the old file again.
    assert values == sorted(values, reverse=True)
    assert set(values) == {"old", "new"}
    for each in found:
        assert each["wrong"] is None
        assert each["mode"] == 0o600
        assert set(each["names"]) <= {"file", ".file.new"}
        assert (each["last"], each["names_at_last"]) == ("last", ["file"])
