"""Real processes: started without fork, told apart, killed by group, and reaped."""

import asyncio
import fcntl
import os
import signal
import stat
import subprocess
import sys
import threading

import psutil
import pytest
import uvloop

from llmd.platform.spawn import Exit, adopt, spawn


SLEEPER = "import signal; print('up', flush=True); signal.pause()"
DEAF = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); {SLEEPER}"


@pytest.fixture
def start(tmp_path):
    """Starts Python one-liners; whoever is left is killed."""
    children = []

    def begin(code, *words, env=None, **options):
        argv = [sys.executable, "-S", "-c", code, *words]
        child = spawn(argv, env=env or {}, log=tmp_path / "log", **options)
        children.append(child)
        return child

    yield begin
    for child in children:
        child.kill(signal.SIGKILL)
        child.wait(10)


def wait_for_line(path, line):
    """Block until *line* is in the file *path*, looking closely."""
    pause = threading.Event()
    for _ in range(2000):
        if path.exists() and line in path.read_text().splitlines():
            return
        pause.wait(0.005)
    raise AssertionError(f"{line!r} never came: {path.read_text()!r}")


def gone(pid):
    """Whether a process has ended (a zombie has)."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


@pytest.mark.parametrize(
    ("code", "expected", "words"),
    [
        pytest.param("", Exit(code=0), "exit status 0", id="a good end"),
        pytest.param("raise SystemExit(7)", Exit(code=7), "exit status 7", id="an exit status"),
        pytest.param(
            "import os; os.kill(os.getpid(), 9)", Exit(signal="SIGKILL"), "SIGKILL", id="a signal"
        ),
    ],
)
def test_end_of_a_child_is_told_as_it_was(start, code, expected, words):
    ended = start(code).wait(10)
    assert ended == expected
    assert str(ended) == words


def test_output_is_appended_to_a_private_log(start, tmp_path):
    start("import sys; print('out'); print('err', file=sys.stderr)").wait(10)
    start("print('again')").wait(10)
    assert sorted((tmp_path / "log").read_text().split()) == ["again", "err", "out"]
    assert stat.S_IMODE((tmp_path / "log").stat().st_mode) == 0o600


def test_child_gets_its_environment_no_input_and_no_descriptor_of_ours(start, tmp_path):
    with (tmp_path / "open").open("w") as file:
        fcntl.fcntl(file, fcntl.F_SETFD, 0)
        start(
            "import os, sys; print(sorted(set(os.environ) - {'LC_CTYPE'}), sys.stdin.read());"
            "print(len([fd for fd in os.listdir('/dev/fd') if int(fd) > 2]))",
            env={"ONLY": "this"},
        ).wait(10)
    # one descriptor above 2 is the listing's own
    assert (tmp_path / "log").read_text().split() == ["['ONLY']", "1"]


def test_child_leads_a_session_and_finds_signals_as_a_shell_would(start, tmp_path):
    start(
        "import os, signal; print(os.getsid(0) == os.getpid() == os.getpgrp());"
        "print(signal.pthread_sigmask(signal.SIG_BLOCK, []) == set())"
    ).wait(10)
    assert (tmp_path / "log").read_text().split() == ["True", "True"]


def test_missing_program_is_an_error_and_nothing_runs(tmp_path):
    with pytest.raises(FileNotFoundError):
        spawn([tmp_path / "missing"], env={}, log=tmp_path / "log")
    with pytest.raises(ValueError, match="absolute"):
        spawn(["python3"], env={}, log=tmp_path / "log")


def test_log_that_cannot_be_opened_is_an_error_that_names_it(tmp_path):
    with pytest.raises(OSError, match="nowhere"):
        spawn([sys.executable], env={}, log=tmp_path / "nowhere" / "log")


def test_spawning_never_forks(start, monkeypatch):
    def forbidden(*_args):
        raise AssertionError("forked")

    monkeypatch.setattr(os, "fork", forbidden)
    monkeypatch.setattr(subprocess, "_fork_exec", forbidden)
    assert start("").wait(10) == Exit(code=0)


def test_signals_reach_the_whole_group(start, tmp_path):
    helper = f"import os, sys; os.posix_spawn(sys.executable, ['x', '-c', {SLEEPER!r}], {{}})"
    child = start(f"{helper}; {SLEEPER}")
    wait_for_line(tmp_path / "log", "up")
    assert child.kill(signal.SIGTERM)
    assert child.wait(10) == Exit(signal="SIGTERM")


def test_helpers_that_outlive_their_leader_are_killed_with_it(start, tmp_path):
    code = (
        "import os, sys, time;"
        f"pid = os.posix_spawn(sys.executable, ['x', '-S', '-c', {DEAF!r}], {{}});"
        "print('helper', pid, flush=True); sys.stdin.read()"
    )
    child = start(code)
    assert child.wait(10) == Exit(code=0)
    helper = int((tmp_path / "log").read_text().split()[1])
    assert gone(helper)


def test_child_in_our_group_is_signalled_alone(start, tmp_path):
    child = start(SLEEPER, own_session=False)
    wait_for_line(tmp_path / "log", "up")
    assert os.getpgid(child.pid) == os.getpgrp()
    child.kill(signal.SIGTERM)
    assert child.wait(10) == Exit(signal="SIGTERM")


def test_signals_after_the_end_go_nowhere(start):
    child = start("")
    child.wait(10)
    assert not child.kill(signal.SIGKILL)


def test_waiting_may_be_limited(start):
    assert start(SLEEPER).wait(0.01) is None


def test_end_of_an_adopted_process_is_noticed_without_its_status(start, tmp_path):
    argv = [sys.executable, "-S", "-c", SLEEPER]
    parent = start(
        f"import os, sys; print(os.posix_spawn({argv[0]!r}, {argv}, {{}}, setsid=True), flush=True)"
    )
    assert parent.wait(10) == Exit(code=0)
    wait_for_line(tmp_path / "log", "up")
    orphan = int(next(w for w in (tmp_path / "log").read_text().split() if w.isdigit()))
    adopted = adopt(orphan)
    assert adopted.kill(signal.SIGTERM)
    assert adopted.wait(10) == Exit()
    assert gone(orphan)


def test_adopted_process_that_is_our_own_child_is_reaped_with_its_status(tmp_path):
    """An earlier image of this process started it."""
    argv = [sys.executable, "-S", "-c", SLEEPER]
    out = (os.POSIX_SPAWN_OPEN, 1, os.fspath(tmp_path / "log"), os.O_CREAT | os.O_WRONLY, 0o600)
    child = os.posix_spawn(argv[0], argv, {}, setsid=True, file_actions=[out])
    wait_for_line(tmp_path / "log", "up")
    adopted = adopt(child)
    assert adopted.kill(signal.SIGTERM)
    assert adopted.wait(10) == Exit(signal="SIGTERM")
    with pytest.raises(ChildProcessError):
        os.waitpid(child, os.WNOHANG)


def test_adopting_a_process_that_is_gone_reports_its_end(start):
    child = start("")
    child.wait(10)
    assert adopt(child.pid).wait(10) == Exit()


@pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_exit_wakes_an_event_loop(start, new_loop):
    async def run():
        loop = asyncio.get_running_loop()
        ended = loop.create_future()
        start("raise SystemExit(3)").on_exit(
            lambda how: loop.call_soon_threadsafe(ended.set_result, how)
        )
        return await asyncio.wait_for(ended, 10)

    with asyncio.Runner(loop_factory=new_loop) as runner:
        assert runner.run(run()) == Exit(code=3)


def test_late_callback_is_called_at_once(start):
    child = start("")
    child.wait(10)
    heard = []
    child.on_exit(heard.append)
    assert heard == [Exit(code=0)]
