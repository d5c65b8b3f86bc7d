"""What a host died of, by signal, status, last words and the kernel's count."""

import pytest

from llmd.core.death import Cause, judge
from llmd.core.facts import Failure
from llmd.core.history import History


METAL = (
    "libc++abi: terminating due to uncaught exception of type std::runtime_error: [METAL] Command "
    "buffer execution failed: Insufficient Memory "
    "(00000008:kIOGPUCommandBufferCallbackErrorOutOfMemory)"
)


def died(code=None, signal=None, log=(), oom_kills=None):
    return judge(Failure("it ended", code, signal, tuple(log), oom_kills))


@pytest.mark.parametrize(
    ("death", "cause", "words"),
    [
        pytest.param(died(3), Cause.EXIT, "exit code 3", id="a status"),
        pytest.param(died(), Cause.EXIT, "", id="nothing is known"),
        pytest.param(
            died(signal="SIGABRT", log=[METAL]), Cause.GPU_MEMORY, "the GPU had no", id="Metal"
        ),
        pytest.param(
            died(70, log=[METAL, "giving up"]), Cause.GPU_MEMORY, "the GPU", id="Metal, caught"
        ),
        pytest.param(
            died(signal="SIGABRT", log=["GGML_ASSERT(n > 0) failed"]),
            Cause.ABORT,
            "gave itself up",
            id="an assertion",
        ),
        pytest.param(
            died(signal="SIGABRT", log=["  what():  std::bad_alloc"]),
            Cause.SYSTEM_MEMORY,
            "no more memory",
            id="an allocation that failed",
        ),
        pytest.param(
            died(1, log=["ggml_backend_alloc: failed to allocate CPU buffer of size 9"]),
            Cause.SYSTEM_MEMORY,
            "no more memory",
            id="a load that found no memory",
        ),
        pytest.param(
            died(signal="SIGKILL", oom_kills=1), Cause.SYSTEM_MEMORY, "the kernel", id="counted"
        ),
        pytest.param(
            died(signal="SIGKILL"), Cause.SYSTEM_MEMORY, "as macOS does", id="nobody counts"
        ),
        pytest.param(
            died(signal="SIGKILL", oom_kills=0), Cause.KILL, "somebody killed it", id="a person"
        ),
        pytest.param(died(137, oom_kills=2), Cause.SYSTEM_MEMORY, "the kernel", id="a server's"),
        pytest.param(died(134), Cause.ABORT, "SIGABRT", id="a server that aborts"),
        pytest.param(died(signal="SIGSEGV"), Cause.CRASH, "crashed (SIGSEGV)", id="a crash"),
        pytest.param(died(signal="SIGBUS"), Cause.CRASH, "page of its weights", id="a cut file"),
        pytest.param(died(signal="SIGHUP"), Cause.CRASH, "(SIGHUP)", id="another signal"),
        pytest.param(
            judge(Failure("it hung", log_tail=(METAL,), hangs=True)), Cause.HANG, "", id="a hang"
        ),
        pytest.param(
            died(signal="SIGSEGV", log=["out of memory"]), Cause.CRASH, "SIGSEGV", id="words alone"
        ),
    ],
)
def test_kinds_of_death_are_told_apart(death, cause, words):
    assert death.cause is cause
    assert words in death.words
    smaller = "`context`" in death.remedy
    assert smaller == (cause in {Cause.GPU_MEMORY, Cause.SYSTEM_MEMORY})


def test_whoever_asks_again_is_told_what_to_make_smaller():
    history = History(load_s=1.0)
    error = history.failed(
        0.0, "code", Failure("the host ended", signal="SIGABRT", log_tail=(METAL,))
    )
    assert "the GPU had no memory left" in error.message
    assert METAL in error.message
    assert "`context`" in error.remedy
    assert "llmd-ctl load code" in error.remedy


def test_death_without_a_remedy_points_at_the_log():
    error = History(load_s=1.0).failed(0.0, "code", Failure("it ended", exit_code=3))
    assert error.remedy.startswith("see `llmd-ctl logs code`")
