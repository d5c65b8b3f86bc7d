import ctypes
import os
import sys
from typing import ClassVar

import pytest

from llmd.config.budget import MachineMemory
from llmd.hosts.gpu_limit import limit_bytes
from llmd.platform import darwin_memory
from llmd.platform.gpu import GPU_PROGRAM, ask_gpu_limit
from llmd.platform.linux_memory import GroupPressure, cgroup_limits, stalled
from llmd.platform.run import Ran
from llmd.platform.run import run as run_program
from llmd.runtime import memory
from llmd.runtime.memory import (
    gpu_limit,
    machine_memory,
    pressure,
    tree_bytes,
    tree_peak_bytes,
)


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
def test_memory_that_was_given_back_is_in_the_peak(start):
    never, once, child = start(WAIT), start(HOLD + "del x; " + WAIT), start(CHILD + WAIT, up=2)
    assert tree_bytes(once.pid) < tree_bytes(never.pid) + 4 * MIB
    assert 60 * MIB < tree_peak_bytes(once.pid) - tree_peak_bytes(never.pid) < 68 * MIB
    assert tree_peak_bytes(child.pid) > 1.6 * tree_peak_bytes(never.pid)


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
    assert tree_bytes(pid) == tree_peak_bytes(pid) == 0


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


class Group:
    """A control group of the second version, of files in a temporary directory."""

    def __init__(self, path, **files):
        self.path = path
        path.mkdir(parents=True, exist_ok=True)
        self.write(**files)

    def write(self, **files):
        """Each keyword is what follows `memory.` in a file's name, dots as double underscores."""
        for name, content in files.items():
            (self.path / f"memory.{name.replace('__', '.')}").write_text(str(content))

    def hit(self, **counts):
        lines = {"low": 0, "high": 0, "max": 0, "oom": 0, "oom_kill": 0} | counts
        text = "".join(f"{name} {count}\n" for name, count in lines.items())
        self.write(events=text, events__local=text)


@pytest.fixture
def nested(tmp_path):
    """A unit with a limit of 1000 inside a slice without one, and how to look at both."""
    (tmp_path / "cgroup").write_text("0::/user.slice/llmd.service\n")
    root = tmp_path / "fs"
    outer = Group(root / "user.slice", max="max", high="max", current=5000, stat="")
    inner = Group(
        root / "user.slice" / "llmd.service", max=1000, high="max", current=990,
        stat="anon 950\nactive_file 20\ninactive_file 15\nfile_mapped 35\n",
        pressure=PSI.format("some", "0.00"),
    )  # fmt: skip
    outer.hit(max=7)
    inner.hit(max=7)
    return inner, outer, GroupPressure(tmp_path / "cgroup", root)


def test_limit_that_was_hit_long_ago_is_no_pressure(nested):
    _, _, pressure = nested
    assert pressure.look() is None


def test_limit_that_is_hit_is_pressure_once(nested):
    inner, _, pressure = nested
    inner.hit(max=8)
    assert pressure.look() == "llmd's control group is at its memory limit of 1000 B"
    assert pressure.look() is None


def test_limit_that_only_the_page_cache_hits_is_no_pressure(nested):
    inner, _, pressure = nested
    inner.write(stat="anon 300\nactive_file 600\ninactive_file 90\n")
    inner.hit(max=9000)
    assert pressure.look() is None


def test_limit_of_a_group_around_counts_too(nested):
    _, outer, pressure = nested
    outer.write(high=5000)
    outer.hit(max=7, high=1)
    assert pressure.look() == "llmd's control group is at its memory limit of 4.9 KiB"


def test_limit_that_another_group_hits_is_its_own_affair(nested):
    _, outer, pressure = nested
    outer.write(events="high 0\nmax 99\noom 9\n", high=5000)  # not in events.local
    assert pressure.look() is None


def test_failed_allocation_is_pressure_whatever_the_cache_holds(nested):
    inner, _, pressure = nested
    inner.write(stat="anon 300\nactive_file 690\n")
    inner.hit(max=9, oom=1)
    assert pressure.look() == "llmd's control group could not get memory within its limit"


def test_tasks_of_our_own_group_that_wait_are_pressure(nested):
    inner, _, pressure = nested
    inner.write(pressure=PSI.format("some", "35.20"))
    assert pressure.look() == (
        "in llmd's control group, some tasks waited for memory 35 % of the last 10 s"
    )


def test_groups_that_vanish_or_are_of_the_first_version_are_no_pressure(nested, tmp_path):
    inner, _, pressure = nested
    for file in inner.path.iterdir():
        file.unlink()
    assert pressure.look() is None
    (tmp_path / "cgroup").write_text("5:memory:/user.slice\n")
    assert GroupPressure(tmp_path / "cgroup", tmp_path / "fs").look() is None
    assert GroupPressure(tmp_path / "none", tmp_path / "fs").look() is None


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
    memory._own_choice.cache_clear()
    yield kernel
    memory._own_choice.cache_clear()


def test_a_mac_counts_footprints_and_mapped_weights(mac, tmp_path):
    (tmp_path / "w").write_bytes(bytes(1000))
    assert tree_bytes(10) == 123
    assert tree_bytes(10, [tmp_path / "w", tmp_path / "none"]) == 1123
    assert tree_peak_bytes(10) == 3 * 999
    assert tree_peak_bytes(10, [tmp_path / "w"]) == 3 * 999 + 1000


def test_a_mac_counts_nothing_for_a_process_that_is_gone(mac, tmp_path):
    (tmp_path / "w").write_bytes(bytes(1000))
    mac.footprints = {}
    assert tree_bytes(10, [tmp_path / "w"]) == tree_peak_bytes(10, [tmp_path / "w"]) == 0


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


def answers(*answers):
    """A runner that answers so, one call after the other, and remembers what it was asked."""
    remaining = list(answers)

    def run(argv, *, timeout_s):
        run.asked.append(argv)
        return remaining.pop(0)

    run.asked = []
    return run


@pytest.mark.parametrize(
    "ran",
    [
        pytest.param(Ran(0, '{"gpu_limit_bytes": 51539607552}\n'), id="an answer"),
        pytest.param(
            Ran(0, 'a warning\n{"gpu_limit_bytes": 51539607552}\nbye\n'), id="and chatter"
        ),
    ],
)
def test_limit_of_the_gpu_is_what_the_child_says(ran):
    assert ask_gpu_limit(answers(ran)) == 48 * 2**30


@pytest.mark.parametrize(
    ("ran", "told"),
    [
        pytest.param(Ran(0, '{"gpu_limit_bytes": null}\n'), "null", id="it cannot tell"),
        pytest.param(Ran(0, ""), "nothing", id="silence"),
        pytest.param(Ran(0, "[1]\n7\n{}\n"), "{}", id="nonsense"),
        pytest.param(Ran(None, ""), "ended with None", id="too slow"),
        pytest.param(Ran(1, "Traceback\nImportError: mlx"), "ImportError: mlx", id="a failure"),
        pytest.param(Ran(1, '{"gpu_limit_bytes": 5}'), "ended with 1", id="a failure after all"),
    ],
)
def test_limit_of_the_gpu_that_cannot_be_told_is_an_error_with_the_childs_words(ran, told):
    with pytest.raises(LookupError, match=told):
        ask_gpu_limit(answers(ran))


def test_a_mac_is_asked_for_its_gpu_limit_once(mac, monkeypatch):
    mac.sysctls = {**mac.sysctls, b"hw.optional.arm64": 1}
    asked = []
    monkeypatch.setattr(memory, "ask_gpu_limit", lambda: asked.append(1) or 48 * 2**30)
    assert [gpu_limit(), gpu_limit()] == [48 * 2**30] * 2
    assert len(asked) == 1


def test_a_mac_that_could_not_tell_its_gpu_limit_is_asked_again(mac, monkeypatch):
    mac.sysctls = {**mac.sysctls, b"hw.optional.arm64": 1}
    run = answers(Ran(None, ""), Ran(0, '{"gpu_limit_bytes": 7}'))
    monkeypatch.setattr(memory, "ask_gpu_limit", lambda: ask_gpu_limit(run))
    assert [gpu_limit(), gpu_limit(), gpu_limit()] == [None, 7, 7]


def test_limit_that_the_user_has_set_needs_no_asking(mac, monkeypatch):
    monkeypatch.setattr(memory, "ask_gpu_limit", lambda: pytest.fail("nobody was to be asked"))
    mac.sysctls = {**mac.sysctls, b"iogpu.wired_limit_mb": 1024, b"hw.optional.arm64": 1}
    assert gpu_limit() == 2**30


def test_a_mac_with_a_graphics_card_has_no_limit_of_ours(mac, monkeypatch):
    monkeypatch.setattr(memory, "ask_gpu_limit", lambda: pytest.fail("nobody was to be asked"))
    monkeypatch.setattr(darwin_memory.platform, "machine", lambda: "x86_64")
    assert gpu_limit() is None


@linux_only
def test_gpu_limit_is_asked_for_on_macs_only():
    assert gpu_limit() is None


@linux_only
def test_helper_that_asks_the_gpu_runs_and_has_nothing_to_tell_here():
    assert run_program(GPU_PROGRAM, timeout_s=60) == Ran(0, '{"gpu_limit_bytes": null}\n')
    with pytest.raises(LookupError, match="null"):
        ask_gpu_limit()


def test_helper_finds_metals_limit_among_what_mlx_knows():
    assert limit_bytes({"max_recommended_working_set_size": 7, "memory_size": 9}) == 7
    assert limit_bytes({"device_name": "AMD"}) is None
