"""Each command as a person types it and as a program does, against a daemon in memory."""

import io
import json
import os
import signal
import subprocess
import sys

import pytest

from llmd.cli.main import run
from llmd.errors import BudgetExceededError, ConfigError, LoadFailedError, RestartRefusedError
from tests.admin.fake_operator import served


GIB = 2**30


@pytest.mark.usefixtures("daemon")
@pytest.mark.parametrize(
    ("args", "expected"),
    [
        pytest.param(
            "load code6",
            "code6 is ready on port 8081 (26 GiB), after 12 s; evicted code",
            id="load tells the evicted",
        ),
        pytest.param(
            "load coder",
            "code was ready already on port 8081 (17.2 GiB)",
            id="load of what is loaded, by an alias",
        ),
        pytest.param("unload chat", "unloaded chat, 8 GiB freed, in 0.4 s", id="unload"),
        pytest.param("unload raw", "raw was not loaded", id="unload of what is not loaded"),
        pytest.param(
            "unload --all", "unloaded code and chat, 25.2 GiB freed, in 1.5 s", id="unload all"
        ),
        pytest.param("pin code", "code is pinned now", id="pin"),
        pytest.param("unpin chat", "chat is not pinned now", id="unpin"),
        pytest.param(
            "plan code6",
            "code6 fits: evicting code frees 17.2 GiB\n"
            "  needs 26 GiB, 22 GiB free\n"
            "  evicts code (17.2 GiB, loaded again in 6.2 s)\n"
            "  takes about 9.5 s",
            id="plan that fits",
        ),
        pytest.param(
            "plan raw",
            "raw does not fit: backing off\n  needs 5 GiB, 1 GiB free",
            id="plan that does not fit",
        ),
        pytest.param("reload", "added lab; changed chat and raw", id="reload"),
    ],
)
def test_command_says_what_it_did(ctl, args, expected):
    done = ctl(*args.split())
    assert (done.returncode, done.stdout) == (0, expected + "\n")


@pytest.mark.usefixtures("daemon")
@pytest.mark.parametrize(
    ("args", "expected"),
    [
        pytest.param("load code6", {"profile": "code6", "evicted": ["code"]}, id="load"),
        pytest.param("unload chat", {"unloaded": ["chat"]}, id="unload"),
        pytest.param("unload --all", {"unloaded": ["code", "chat"]}, id="unload all"),
        pytest.param("pin code", {"profile": "code", "pinned": True}, id="pin"),
        pytest.param("unpin code", {"profile": "code", "pinned": False}, id="unpin"),
        pytest.param("plan raw", {"fits": False, "need_bytes": 5 * GIB}, id="plan"),
        pytest.param("reload", {"added": ["lab"], "warnings": ["lab: no weights"]}, id="reload"),
        pytest.param("status", {"version": "0.1.0"}, id="status"),
        pytest.param("events", {"events": []}, id="events"),
        pytest.param("logs", {"profile": None, "lines": []}, id="logs"),
        pytest.param("stop --no-wait", {"stopped": False}, id="stop"),
    ],
)
def test_json_is_one_document_and_nothing_else(ctl, args, expected):
    done = ctl("--json", *args.split())
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout).items() >= expected.items()


def test_load_options_reach_the_daemon(ctl, daemon):
    assert ctl("load", "code", "--pin", "--ttl", "1h30m").returncode == 0
    assert ctl("load", "code", "--ttl", "never").returncode == 0
    assert ctl("load", "code", "--ttl", "90").returncode == 0
    assert daemon.operator.calls == [
        ("load", "code", True, 5400.0),
        ("load", "code", False, float("inf")),
        ("load", "code", False, 90.0),
    ]


def test_load_tells_each_stage_once_in_a_pipe(ctl, daemon):
    daemon.operator.stages = [("evicting code", None), ("weights", 0.1), ("weights", 0.9)]
    assert ctl("load", "code6").stderr == "code6: evicting code\ncode6: weights\n"


@pytest.mark.usefixtures("daemon")
def test_shared_options_work_after_the_command_too(ctl, short_dir):
    done = ctl("status", "--socket", str(short_dir / "s"), "--json", LLMD_SOCKET="/nowhere")
    assert json.loads(done.stdout)["version"] == "0.1.0"


# --- failure -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "line"),
    [
        pytest.param(
            LoadFailedError("code6 exited with status 1:\nno such file", remedy="mend `model`"),
            "llmd-ctl: code6 exited with status 1: / no such file; mend `model`\n",
            id="one line, whatever the log says",
        ),
        pytest.param(
            BudgetExceededError("code6", need_bytes=26 * GIB, budget_bytes=16 * GIB),
            "llmd-ctl: code6 needs 26 GiB, more than the whole budget of 16 GiB; "
            "raise `budget`, or lower `context` or `parallel` of the profile\n",
            id="the numbers and the remedy",
        ),
    ],
)
def test_failure_is_one_line_and_status_1(ctl, daemon, error, line):
    daemon.operator.fail["code6"] = error
    daemon.operator.stages = []
    done = ctl("load", "code6")
    assert (done.returncode, done.stdout, done.stderr) == (1, "", line)
    done = ctl("load", "code6", "--json")
    assert (done.returncode, done.stderr) == (1, "")
    assert json.loads(done.stdout) == error.to_openai()


def test_bad_configuration_may_take_several_lines(ctl, daemon):
    daemon.operator.fail["reload"] = ConfigError(
        "llmd.yaml has 2 problems:\na: b\nc: d", remedy="correct the file"
    )
    done = ctl("reload")
    assert done.returncode == 1
    assert done.stderr == "llmd-ctl: llmd.yaml has 2 problems:\na: b\nc: d\ncorrect the file\n"


@pytest.mark.usefixtures("daemon")
def test_unknown_profile_names_the_nearest(ctl):
    done = ctl("pin", "cod")
    assert done.returncode == 1
    assert done.stderr == (
        "llmd-ctl: no profile is called 'cod'; "
        "did you mean code? profiles: code, code6, chat, raw\n"
    )


@pytest.mark.parametrize(
    "args",
    ["status", "load code", "unload --all", "stop", "logs", "events -f", "query -p code hello"],
)
def test_without_a_daemon_the_status_is_3(ctl, short_dir, args):
    done = ctl(*args.split())
    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr == (
        f"llmd-ctl: no llmd answers on {short_dir / 's'}; "
        "start it with `llmd-ctl start` (the installed service) or `llmd serve`, "
        "or name its socket with --socket\n"
    )


def test_without_a_daemon_json_says_so(ctl):
    done = ctl("status", "--json")
    assert (done.returncode, done.stderr) == (3, "")
    assert json.loads(done.stdout)["error"]["code"] == "daemon_not_running"


@pytest.mark.parametrize(
    ("args", "words"),
    [
        pytest.param("statsu", "Did you mean 'status'?", id="mistyped command"),
        pytest.param("frobnicate", "No such command 'frobnicate'.", id="unknown command"),
        pytest.param("status --colour", "No such option", id="unknown option"),
        pytest.param("load", "Missing argument 'PROFILE'", id="load of nothing"),
        pytest.param("load code --ttl soon", "'soon' is no duration", id="no duration"),
        pytest.param("load code --ttl 0", "it must be more than 0", id="no time at all"),
        pytest.param("unload", "name a profile, or give --all", id="unload of nothing"),
        pytest.param("unload code --all", "name a profile, or give --all", id="unload of both"),
        pytest.param("logs -n x", "'x' is not a valid integer", id="no number"),
        pytest.param("query -p code", "there is nothing to ask", id="no question"),
    ],
)
def test_wrong_usage_is_status_2(capsys, monkeypatch, args, words):
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO()))
    assert run(args.split()) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert words in err
    assert run(["--json", *args.split()]) == 2
    out, err = capsys.readouterr()
    assert err == ""
    error = json.loads(out)["error"]
    assert error["code"] == "usage"
    assert words in error["message"]


def test_bug_shows_no_traceback_unless_asked(ctl, daemon):
    daemon.operator.by_name["raw"] = None
    done = ctl("status", LLMD_DEBUG="0")
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert done.stderr.startswith("llmd-ctl: something unexpected happened in llmd (request adm_")
    assert len(done.stderr.splitlines()) == 1


def test_version_and_help_need_no_daemon(ctl):
    assert ctl("--version").stdout == "llmd-ctl 0.1.0\n"
    done = ctl("--help")
    assert done.returncode == 0
    assert "Decisions, each with its reason and numbers." in done.stdout
    assert "load" in ctl("load", "-h").stdout


# --- streams and ends --------------------------------------------------------------------------


def test_events_are_one_line_each_with_reason_and_numbers(ctl, daemon):
    daemon.operator.event_log.record(
        "profile.evicted",
        {
            "profile": "raw",
            "port": 8083,
            "reason": "room for code",
            "freed_bytes": 5 * GIB,
            "idle_s": 900.0,
            "set": ["raw", "lab"],
            "exit_code": None,
        },
    )
    (line,) = ctl("events").stdout.splitlines()
    assert line[8:] == (
        "  profile.evicted     raw:8083  freed 5 GiB  idle 15 min  set raw, lab  (room for code)"
    )
    (record,) = json.loads(ctl("events", "--json").stdout)["events"]
    assert record["reason"] == "room for code"


def test_followed_events_are_json_lines(start, daemon):
    daemon.operator.event_log.record("host.started", {"host": 1})
    process = start("events", "-f", "--json")
    assert json.loads(process.stdout.readline())["host"] == 1
    daemon.call(lambda: daemon.operator.event_log.record("host.started", {"host": 2}))
    assert json.loads(process.stdout.readline())["host"] == 2


def test_followed_log_ends_with_ctrl_c(start, daemon):
    daemon.operator.line_log.write("host.exited port=8081")
    process = start("logs", "code", "-f", "-n", "1")
    assert process.stdout.readline() == "code: host.exited port=8081\n"
    process.send_signal(signal.SIGINT)
    assert process.wait(10) == 0
    assert process.stderr.read() == ""
    daemon.wait_for("follower left")


def test_followed_log_ends_with_the_daemon(start, daemon):
    daemon.operator.line_log.write("last words")
    process = start("logs", "--follow")
    assert process.stdout.readline() == "last words\n"
    daemon.close()
    assert (process.wait(10), process.stderr.read()) == (0, "")


def test_ctrl_c_during_a_load_leaves_it_going(start, daemon):
    daemon.hold("code6")
    process = start("load", "code6")
    assert process.stderr.readline() == "code6: weights\n"
    process.send_signal(signal.SIGINT)
    assert process.wait(10) == 130
    assert "the load goes on; `llmd-ctl unload code6` ends it" in process.stderr.read()
    daemon.release("code6")
    daemon.wait_for("load code6 ended")


def test_reader_that_goes_away_is_no_failure_to_report(start, daemon):
    for number in range(2000):
        daemon.operator.line_log.write(f"{number} " + "x" * 100)
    process = start("logs", "-n", "2000")
    process.stdout.readline()
    process.stdout.close()
    assert (process.wait(10), process.stderr.read()) == (141, "")


def test_restart_says_what_stayed_loaded(ctl, daemon):
    done = ctl("restart")
    assert done.returncode == 0
    assert done.stdout.startswith(f"llmd 0.1.0 (pid {os.getpid()}) has restarted")
    assert daemon.operator.calls == [("restart",)]
    report = json.loads(ctl("--json", "restart").stdout)
    assert report == {"pid": os.getpid(), "version": "0.1.0", "restarts": 2}


def test_restart_that_is_refused_is_one_line(ctl, daemon):
    error = RestartRefusedError("llmd would not start again: no", remedy="mend it")
    daemon.operator.fail["restart"] = error
    done = ctl("restart")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "llmd-ctl: llmd would not start again: no; mend it\n"


def test_stop_waits_for_the_end_of_the_process(ctl, short_dir):
    with (
        subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process,
        served(short_dir / "s", pid=process.pid) as daemon,
    ):
        daemon.operator.on_stop = process.stdin.close
        done = ctl("stop")
        assert (done.returncode, done.stdout) == (0, f"llmd (pid {process.pid}) has stopped\n")


def test_stop_gives_up_after_its_timeout(ctl, daemon):
    done = ctl("stop", "--timeout", "0.05")
    assert done.returncode == 1
    assert f"llmd (pid {os.getpid()}) still runs" in done.stderr
