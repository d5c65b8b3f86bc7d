import ctypes
import os
import sys
from typing import ClassVar

import pytest

from llmd.config.budget import MachineMemory
from llmd.platform import darwin_memory
from llmd.runtime import memory
from llmd.runtime.memory import cgroup_limits, machine_memory, pressure, stalled, tree_bytes


MIB = 2**20
linux_only = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")

WAIT = "import sys; print('up', flush=True); sys.stdin.read()"
HOLD = f"x = bytearray({64 * MIB}); x[::4096] = b'1' * len(x[::4096]); "
SPAWN = "import os, sys; os.posix_spawn(sys.executable, [sys.executable, '-c', {!r}], os.environ); "
CHILD = SPAWN.format(WAIT)


class Program:
    """A Python program that says `up` and then waits for the end of its input."""

    def __init__(self, code: str, *, own_session: bool = False) -> None:
        inside, self._keep = os.pipe()
        self._answers, outside = os.pipe()
        self.pid = os.posix_spawn(
            sys.executable,
            [sys.executable, "-c", code],
            os.environ,
            file_actions=[(os.POSIX_SPAWN_DUP2, inside, 0), (os.POSIX_SPAWN_DUP2, outside, 1)],
            setsid=own_session,
        )
        os.close(inside)
        os.close(outside)

    def heard(self, count: int = 1) -> None:
        """Wait until *count* processes of the program are up."""
        text = b""
        while text.count(b"up") < count:
            text += os.read(self._answers, 100)

    def end(self) -> None:
        os.close(self._keep)
        os.waitpid(self.pid, 0)
        os.close(self._answers)


@pytest.fixture
def start():
    programs = []

    def start(code: str, *, up: int = 1, own_session: bool = False) -> Program:
        programs.append(Program(code, own_session=own_session))
        programs[-1].heard(up)
        return programs[-1]

    yield start
    for program in programs:
        program.end()


@linux_only
def test_memory_that_a_process_touches_is_measured(start):
    small, large = start(WAIT), start(HOLD + WAIT)
    grown = tree_bytes(large.pid) - tree_bytes(small.pid)
    assert 60 * MIB < grown < 68 * MIB


@linux_only
def test_children_are_part_of_the_tree(start):
    alone, family = start(WAIT), start(CHILD + WAIT, up=2)
    assert tree_bytes(family.pid) > 1.6 * tree_bytes(alone.pid)


@linux_only
def test_a_grandchild_whose_parent_is_gone_is_part_of_the_session(start):
    orphaned = SPAWN.format(CHILD) + "os.wait(); "
    alone, family = start(WAIT), start(orphaned + WAIT, up=2, own_session=True)
    assert tree_bytes(family.pid) > 1.6 * tree_bytes(alone.pid)


@linux_only
def test_mapped_weights_are_in_the_resident_set_already(start, tmp_path):
    weights = tmp_path / "w"
    weights.write_bytes(bytes(8 * MIB))
    program = start(WAIT)
    assert abs(tree_bytes(program.pid, [weights]) - tree_bytes(program.pid)) < MIB


@linux_only
def test_a_process_that_is_gone_holds_nothing():
    pid = os.posix_spawn(sys.executable, [sys.executable, "-c", ""], os.environ)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    assert tree_bytes(pid) == 0  # a zombie
    os.waitpid(pid, 0)
    assert tree_bytes(pid) == 0


def test_the_machine_has_memory():
    found = machine_memory(gpu_limit_bytes=5)
    assert 2**28 < found.total_bytes < 2**50
    assert found.gpu_limit_bytes == 5


def test_pressure_can_be_asked_for():
    assert pressure() is None or "memory" in pressure()


PSI = "{} avg10={} avg60=0.00 avg300=0.00 total=1\n"
STALLS = [
    pytest.param(PSI.format("some", "0.00") + PSI.format("full", "0.00"), None, id="at ease"),
    pytest.param(
        PSI.format("some", "19.99") + PSI.format("full", "9.99"), None, id="just bearable"
    ),
    pytest.param(
        PSI.format("some", "35.20") + PSI.format("full", "0.00"),
        "some tasks waited for memory 35 % of the last 10 s",
        id="some wait",
    ),
    pytest.param(
        PSI.format("some", "12.00") + PSI.format("full", "11.50"),
        "all tasks waited for memory 12 % of the last 10 s",
        id="all wait",
    ),
    pytest.param("", None, id="a kernel without PSI"),
    pytest.param("some\nfull nonsense\nfull avg10=lots\n", None, id="a kernel from the future"),
]


@pytest.mark.parametrize(("content", "expected"), STALLS)
def test_stalls(tmp_path, content, expected):
    (tmp_path / "memory").write_text(content)
    assert stalled(tmp_path / "memory") == expected


def test_no_stalls_where_nobody_counts_them(tmp_path):
    assert stalled(tmp_path / "none") is None


GROUPS = [
    pytest.param("0::/\n", {"memory.max": "4096"}, [4096], id="a container is its own root"),
    pytest.param(
        "0::/user.slice/a.service\n",
        {"user.slice/memory.max": "8192", "user.slice/a.service/memory.max": "4096"},
        [4096, 8192],
        id="every group around counts",
    ),
    pytest.param("0::/a\n", {"a/memory.max": "max"}, [], id="no limit"),
    pytest.param("0::/not/visible\n", {"memory.max": "4096"}, [4096], id="a path of the host's"),
    pytest.param(
        "5:cpu:/x\n4:memory,hugetlb:/x\n",
        {"memory/x/memory.limit_in_bytes": "4096", "memory/memory.limit_in_bytes": str(2**63)},
        [4096],
        id="the first version of control groups",
    ),
    pytest.param("0::/../../etc\n", {"memory.max": "4096"}, [4096], id="a way out"),
    pytest.param("", {}, [], id="no control groups"),
]


@pytest.mark.parametrize(("membership", "files", "expected"), GROUPS)
def test_limits_of_control_groups(tmp_path, membership, files, expected):
    (tmp_path / "cgroup").write_text(membership)
    root = tmp_path / "fs"
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content + "\n")
    assert sorted(cgroup_limits(tmp_path / "cgroup", root)) == expected


class FakeKernel:
    """libSystem, as far as it is used: processes 10 (leads a session), 11 and 12 below it."""

    children: ClassVar = {10: [11], 11: [12]}
    footprints: ClassVar = {10: 100, 11: 20, 12: 3}
    sysctls: ClassVar = {b"hw.memsize": 64 * 2**30, b"kern.memorystatus_vm_pressure_level": 1}

    def proc_pid_rusage(self, pid, flavor, buffer):
        assert flavor == 4
        if pid not in self.footprints:
            return -1
        fields = (ctypes.c_uint64 * 64).from_address(ctypes.addressof(buffer))
        fields[72 // 8], fields[240 // 8] = self.footprints[pid], 999
        return 0

    def proc_listchildpids(self, pid, buffer, size):
        found = self.children.get(pid, [])
        buffer[: len(found)] = found
        assert size == ctypes.sizeof(buffer)
        return len(found)

    def proc_listallpids(self, buffer, _size):
        buffer[0] = 10
        return 1

    def sysctlbyname(self, name, value, _size, _new, _new_size):
        if name not in self.sysctls:
            return -1
        value._obj.value = self.sysctls[name]
        return 0


@pytest.fixture
def mac(monkeypatch):
    """A Mac, as far as this module can tell."""
    kernel = FakeKernel()
    monkeypatch.setattr(darwin_memory, "_libsystem", lambda: kernel)
    monkeypatch.setattr(darwin_memory.os, "getsid", lambda pid: pid if pid == 10 else 1)
    monkeypatch.setattr(memory.sys, "platform", "darwin")
    return kernel


def test_a_mac_counts_footprints_and_mapped_weights(mac, tmp_path):
    (tmp_path / "w").write_bytes(bytes(1000))
    assert tree_bytes(10) == 123
    assert tree_bytes(10, [tmp_path / "w", tmp_path / "none"]) == 1123
    assert darwin_memory.peak_bytes(10) == 999


def test_a_mac_counts_nothing_for_a_process_that_is_gone(mac, tmp_path):
    (tmp_path / "w").write_bytes(bytes(1000))
    mac.footprints = {}
    assert tree_bytes(10, [tmp_path / "w"]) == 0


def test_a_mac_tells_its_memory_and_the_limit_that_was_set(mac):
    assert machine_memory().total_bytes == 64 * 2**30
    assert machine_memory().gpu_limit_bytes is None
    mac.sysctls = {**mac.sysctls, b"iogpu.wired_limit_mb": 0}
    assert machine_memory().gpu_limit_bytes is None
    mac.sysctls = {**mac.sysctls, b"iogpu.wired_limit_mb": 1024, b"hw.optional.arm64": 1}
    assert machine_memory() == MachineMemory(64 * 2**30, 2**30, unified=True)


@pytest.mark.parametrize(
    ("level", "expected"),
    [
        pytest.param(1, None, id="normal"),
        pytest.param(2, "macOS warns that memory is short", id="warning"),
        pytest.param(4, "memory is critically short", id="critical"),
        pytest.param(3, "macOS warns that memory is short", id="a level of the future"),
    ],
)
def test_a_mac_tells_its_pressure(mac, level, expected):
    mac.sysctls = {b"kern.memorystatus_vm_pressure_level": level}
    assert pressure() == expected
