"""`llmd-ctl query`, its templates and `bench`, on the demo models and the real engines."""

import json
import os
import pty
import signal
import subprocess

import pytest

from tests.lessons import FRANCE, LESSONS
from tests.system.conftest import running
from tests.system.running import BIN, free_ports, lay_out, unruly


@pytest.fixture(scope="module")
def daemon(demo_models):
    """Small contexts, so that a few pages are long; and an engine that takes its time."""
    chat, raw, slow = free_ports(3)
    small = {"context": 1024, "parallel": 2}
    profiles = {
        "chat": {"engine": "mlx", "model": "tiny-mlx", "port": chat, **small},
        "raw": {
            "engine": "llama.cpp", "model": "tiny-q8_0.gguf", "port": raw, **small,
            "args": ["--threads", "1"],
        },
        "slow": unruly(slow, "--chunks", "1000", "--chunk-delay", "0.2"),
    }  # fmt: skip
    with running(lay_out(profiles, budget="1750MiB", models_dirs=[str(demo_models)])) as llmd:
        yield llmd


@pytest.mark.parametrize("profile", ["chat", "raw"])
def test_answer_is_rendered_on_a_terminal_and_plain_when_told_so(daemon, profile):
    question = LESSONS["parse_json"]["prompt"]
    rendered = on_terminal(daemon, "query", "-p", profile, "--temperature", "0", question)
    assert "parse_json" in rendered
    assert "\x1b[" in rendered
    assert "```" not in rendered.rpartition("\x1b[J")[2]
    plain = on_terminal(daemon, "query", "-p", profile, "--plain", "--temperature", "0", question)
    assert plain.replace("\r\n", "\n").rstrip("\n").endswith(LESSONS["parse_json"]["answer"])


def on_terminal(daemon, *args):
    """All that `llmd-ctl` writes to a terminal of its own."""
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [BIN / "llmd-ctl", *args],
        stdin=theirs, stdout=theirs, stderr=theirs, env={**daemon.env, "TERM": "xterm"},
    ) as process:  # fmt: skip
        os.close(theirs)
        shown = b""
        try:
            while block := os.read(ours, 65536):
                shown += block
        except OSError:  # how Linux says that nobody writes any more
            pass
        assert process.wait(10) == 0, shown
    os.close(ours)
    return shown.decode()


def test_ctrl_c_cancels_the_engines_work(daemon):
    with subprocess.Popen(
        [BIN / "llmd-ctl", "query", "-p", "slow", "Hi"],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=daemon.env,
    ) as process:  # fmt: skip
        assert process.stdout.read(1)
        assert daemon.profile("slow")["in_flight"] == 1
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 130
    daemon.wait_for(lambda status: in_flight(status, "slow") == 0, timeout=5)


def in_flight(status, name):
    return next(p["in_flight"] for p in status["profiles"] if p["name"] == name)


def test_template_asks_a_real_model(daemon, tmp_path):
    folder = tmp_path / "llmd" / "templates"
    folder.mkdir(parents=True)
    (folder / "capital.yaml").write_text(
        "prompt: What is the capital of {{country}}?\nprofile: raw\ntemperature: 0\n"
    )
    done = daemon.ctl(
        *("query", "-t", "capital", "--var", "country=France"),
        env={"XDG_CONFIG_HOME": str(tmp_path)},
    )
    assert (done.returncode, done.stdout) == (0, f"{FRANCE[1]}\n"), done.stderr


@pytest.mark.parametrize("profile", ["chat", "raw"])
def test_condense_runs_through_and_keeps_the_code(daemon, profile):
    code = "```python\nprint('kept, whatever the model makes of it')\n```"
    turn = "User: How is the weather?\n\nAssistant: It is fine, and it will stay so.\n\n"
    done = daemon.ctl(
        *("query", "-p", profile, "-t", "condense", "-v", "--max-tokens", "64"),
        stdin=f"{turn * 20}{code}\n\n{turn * 20}",
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count(code) == 1
    assert f"{profile}: round 1, piece 2 of " in done.stderr


def test_bench_measures_both_engines_side_by_side(daemon):
    done = daemon.ctl("--json", "bench", "--repeats", "1", "raw", "chat")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    raw, chat = document["profiles"]
    assert (raw["source"], chat["source"]) == ("timings", "usage")
    assert (raw["base"], chat["base"]) == ("tiny", "tiny")
    for measured in (raw, chat):
        medians = {name: spread["median"] for name, spread in measured["metrics"].items()}
        assert all(median > 0 for median in medians.values()), medians
        assert medians["first token, cold"] > medians["first token, warm"]
    assert raw["samples"]["short"][0]["tokens"] == 200
    (pair,) = document["speed_ups"]
    assert (pair["mlx"], pair["gguf"]) == ("chat", "raw")
    assert pair["metrics"]["decode, 1 at once"] > 0
