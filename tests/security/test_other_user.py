"""Another user of the machine, against a running daemon and the model behind it."""

import contextlib
import json
import os
import subprocess
from pathlib import Path

import psutil
import pytest

from tests.system.conftest import running
from tests.system.running import BIN, GOOD, free_ports, lay_out, request


pytestmark = pytest.mark.skipif(
    os.getuid() != 0 or not Path("/usr/bin/python3").exists(),
    reason="NOT ROOT, or no Python that everybody may run: nothing is tried as another user",
)

STRANGER = 65534
PYTHON = "/usr/bin/python3"
"""The virtual environment may be where a stranger cannot read."""
INTRUDER = (Path(__file__).parent / "intruder.py").read_text()


@pytest.fixture(scope="module")
def daemon(demo_models):
    """A daemon with a loaded llama.cpp model. Everybody may look into the directories above it."""
    profile = {"engine": "llama.cpp", "model": str(demo_models / "tiny-q8_0.gguf")}
    port = free_ports(1)[0]
    config = lay_out(
        {"a": {**profile, "port": port, "runner": "xllamacpp", "context": 512}}, budget="2GiB"
    )
    with running(config) as started:
        started.port = port
        started.directory.chmod(0o755)
        assert request(port, body=GOOD)[0] == 200
        yield started


def files_of(daemon, *names):
    return [
        str(file)
        for name in names
        for file in sorted((daemon.directory / name).rglob("*"))
        if file.is_file()
    ]


def victim(daemon):
    return {
        "sockets": [str(f) for f in daemon.socket.parent.iterdir() if f.is_socket()],
        "ports": daemon.listening_ports_of_hosts(),
        "directories": [str(daemon.directory / name) for name in ("s", "log", "state")],
        "files": files_of(daemon, "s", "log", "state"),
        "pids": [daemon.process.pid, *daemon.host_pids()],
        "spare": str(daemon.directory.with_suffix(".stolen")),
    }


def intrude(aims, **user):
    """What the intruder got, running as *user*."""
    done = subprocess.run(
        [PYTHON, "-c", INTRUDER, json.dumps(aims)],
        capture_output=True, text=True, timeout=60, check=True, cwd="/", **user,
    )  # fmt: skip
    return json.loads(done.stdout)


def test_another_user_gets_nothing_of_the_daemon_or_its_hosts(daemon):
    aims = victim(daemon)
    assert len(aims["sockets"]) >= 3, "the daemon's, and two of the host"
    assert len(aims["files"]) >= 4
    assert len(aims["pids"]) >= 2

    assert intrude(aims, user=STRANGER, group=STRANGER, extra_groups=[]) == {}


def test_engine_listens_on_nothing_that_another_user_can_reach(daemon):
    assert daemon.listening_ports_of_hosts() == []


def test_arguments_which_everybody_can_read_hold_no_secret(daemon):
    for pid in (daemon.process.pid, *daemon.host_pids()):
        words = " ".join(psutil.Process(pid).cmdline())
        for secret in ("key", "Bearer"):
            assert secret not in words


def test_all_that_the_daemon_makes_is_private(daemon):
    roots = [daemon.directory / name for name in ("s", "log", "state")]
    made = [*roots, *(path for root in roots for path in root.rglob("*"))]
    assert len(made) > 8
    assert [path for path in made if path.lstat().st_mode & 0o077] == []


def test_the_same_attempts_succeed_for_the_user_itself(daemon, tmp_path):
    """Or else the test above would pass whatever it tried."""
    aims = victim(daemon)
    # Copies: it unlinks and writes.
    aims["sockets"] = [str(daemon.socket)]
    aims["directories"] = [str(tmp_path)]
    aims["spare"] = str(daemon.directory / "log" / "linked")
    (tmp_path / "file").write_text("")
    real = daemon.socket.with_name("kept")
    real.hardlink_to(daemon.socket)
    try:
        got = intrude(aims)
    finally:
        real.rename(daemon.socket)
        Path(aims["spare"]).unlink()
    assert got[f"connect {daemon.socket}"].startswith("HTTP/1.1 404")
    for name in ("unlink", "list", "write", "read", "link", "environ", "descriptors", "memory"):
        assert [attempt for attempt in got if attempt.startswith(name)], name


@pytest.mark.parametrize("loosened", ["directory", "directory and socket"])
def test_each_layer_of_the_admin_socket_holds_alone(daemon, loosened):
    """First its mode, then the check of who connects."""
    aims = {**victim(daemon), "sockets": [str(daemon.socket)]}
    aims |= {"files": [], "directories": [], "pids": [], "ports": []}
    daemon.socket.parent.chmod(0o755)
    if loosened != "directory":
        daemon.socket.chmod(0o666)
    try:
        got = intrude(aims, user=STRANGER, group=STRANGER, extra_groups=[])
    finally:
        daemon.socket.chmod(0o600)
        daemon.socket.parent.chmod(0o700)
    expected = {} if loosened == "directory" else {f"connect {daemon.socket}": "401"}
    assert {name: line.split()[1] for name, line in got.items()} == expected


def test_command_believes_no_daemon_of_another_user(short_dir):
    """A socket in a place of everybody's, made by somebody who waits for `llmd-ctl`."""
    short_dir.chmod(0o1777)
    path = short_dir / "llmd.sock"
    ready = "import socket,sys; s=socket.socket(socket.AF_UNIX); s.bind(sys.argv[1]); s.listen(); "
    squatter = subprocess.Popen(
        [PYTHON, "-c", f"{ready}print(1, flush=True); s.accept()[0].recv(9)", path],
        stdout=subprocess.PIPE, user=STRANGER, group=STRANGER, extra_groups=[], cwd="/",
    )  # fmt: skip
    with contextlib.closing(squatter.stdout):
        squatter.stdout.readline()
        done = subprocess.run(
            [BIN / "llmd-ctl", "--socket", path, "status"], capture_output=True, text=True,
            timeout=30, check=False,
        )  # fmt: skip
        squatter.kill()
        squatter.wait()
    assert done.returncode != 0
    assert f"served by user {STRANGER}, not by your llmd" in done.stderr


def test_directory_that_a_squatter_made_is_refused(short_dir):
    squatted = short_dir / "llmd-0"
    squatted.mkdir(mode=0o700)
    (short_dir / "c.yaml").write_text(
        "profiles: {a: {engine: mlx, model: m, port: 1}}\nwarm_spare: false\n"
    )
    os.chown(squatted, STRANGER, STRANGER)
    done = subprocess.run(
        [BIN / "llmd", "serve", "--config", short_dir / "c.yaml", "--socket", squatted / "s"],
        capture_output=True, text=True, timeout=30, check=False,
        env={**os.environ, "LLMD_LOG_DIR": str(short_dir / "l"), "LLMD_STATE_DIR": str(short_dir)},
    )  # fmt: skip
    assert done.returncode == 1
    assert f"belongs to user {STRANGER}, not to you" in done.stderr
    assert "Traceback" not in done.stderr
