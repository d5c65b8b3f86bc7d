"""Keys of the ports, in a running daemon: who gets in, when they change, and where they show."""

import contextlib
import subprocess
from pathlib import Path

import psutil
import pytest

from tests.conftest import ROOT
from tests.system.conftest import running
from tests.system.running import BIN, GOOD, Llmd, free_ports, lay_out, request, unruly


OLD, NEW, LITERAL = "sesame-old", "sesame-new", "sesame-literal"


@pytest.fixture(scope="module")
def daemon(tmp_path_factory):
    """A daemon with one key in the configuration and one in a file; `daemon.ask` sends a key."""
    file = tmp_path_factory.mktemp("keys") / "keys"
    file.touch(mode=0o600)
    file.write_text(f"# the laptop's\n{OLD}\n")
    port = free_ports(1)[0]
    config = lay_out({"a": unruly(port)}, api_keys=[LITERAL], api_keys_file=str(file))
    with running(config) as started:
        started.port, started.keys = port, file
        yield started


@pytest.fixture(autouse=True)
def _as_at_first(daemon):
    yield
    daemon.keys.chmod(0o600)
    daemon.keys.write_text(f"{OLD}\n")
    assert daemon.ctl("reload").returncode == 0


def ask(daemon, key=None):
    """The status of one question, asked with *key*."""
    headers = {} if key is None else {"Authorization": f"Bearer {key}"}
    return request(daemon.port, body=GOOD, headers=headers)[0]


def test_key_of_the_file_and_of_the_configuration_let_in_and_others_do_not(daemon):
    assert [ask(daemon, key) for key in (OLD, LITERAL)] == [200, 200]
    assert [ask(daemon, key) for key in (None, NEW, "", "# the laptop's", OLD[:-1])] == [401] * 5


def test_new_keys_count_from_the_reload_on(daemon):
    daemon.keys.write_text(f"{NEW}\n")
    assert daemon.ctl("reload").returncode == 0
    assert [ask(daemon, key) for key in (NEW, OLD)] == [200, 401]


@pytest.mark.parametrize(
    ("mode", "text", "words"),
    [
        (0o644, f"{NEW}\n", "chmod 600"),
        (0o600, "", "holds no key"),
        (0o600, f"two {NEW}\n", "line 1 of the key file"),
    ],
)
def test_bad_key_file_is_refused_at_a_reload_and_the_old_keys_stay(daemon, mode, text, words):
    daemon.keys.write_text(text)
    daemon.keys.chmod(mode)
    for command in ("reload", "restart"):
        done = daemon.ctl(command)
        assert done.returncode == 1
        assert words in done.stderr
        assert "sesame" not in done.stderr + done.stdout
    assert [ask(daemon, key) for key in (OLD, NEW, None)] == [200, 401, 401]
    assert words in daemon.ctl("config", "check").stderr


def test_keys_are_shown_nowhere(daemon):
    daemon.keys.write_text(f"{OLD}\n{NEW}\n")
    said = [daemon.ctl("reload").stdout, daemon.ctl("--json", "reload").stdout]
    assert [ask(daemon, key) for key in (OLD, f"{NEW}-guess")] == [200, 401]
    for command in ("status", "events", "logs", "config show", "config check", "doctor"):
        done = daemon.ctl("--json", *command.split(), timeout=120)
        said += [done.stdout, done.stderr]
    for pid in (daemon.process.pid, *daemon.host_pids()):
        said += [*psutil.Process(pid).cmdline(), *psutil.Process(pid).environ().values()]
    for file in daemon.directory.rglob("*"):
        if file.is_file() and file.read_bytes() == daemon.config_file.read_bytes():
            # It, or the private copy of what last worked: here with a key in plain text.
            assert file == daemon.config_file or file.stat().st_mode & 0o777 == 0o600
        elif file.is_file():
            said.append(file.read_text(errors="replace"))

    assert len(said) > 20
    assert [text for text in said if "sesame" in text] == []


def test_engine_does_not_hear_the_key(daemon):
    headers = {"Authorization": f"Bearer {OLD}"}
    status, _, body = request(daemon.port, "GET", "/echo", headers=headers)
    assert status == 200
    assert b"sesame" not in body


def test_commands_ask_with_the_key_of_their_environment_and_say_when_it_is_missing(daemon):
    refused = daemon.ctl("query", "-p", "a", "hi")
    assert refused.returncode == 1
    assert "LLMD_API_KEY" in refused.stderr
    assert daemon.ctl("query", "-p", "a", "hi", env={"LLMD_API_KEY": OLD}).returncode == 0
    told = daemon.ctl("connect", "cline", "-p", "a")
    assert "api_keys_file" in told.stderr
    assert "sesame" not in told.stdout + told.stderr


def test_administration_needs_no_key_and_a_key_does_not_administer(daemon):
    assert daemon.admin("GET", "/v1/status")[0] == 200
    headers = {"Authorization": f"Bearer {OLD}"}
    for method, path in (("POST", "/v1/stop"), ("GET", "/v1/status"), ("GET", "/metrics")):
        status, _, body = request(daemon.port, method, path, headers=headers)
        assert (status, b"budget" in body) == (404, False), path
    assert daemon.process.poll() is None


def serve(directory, config, **env):
    """`llmd serve` that is expected to refuse: its status, and what it said."""
    refused = Llmd(directory, config)
    done = subprocess.run(
        [BIN / "llmd", "serve"], env={**refused.env, **env}, capture_output=True, text=True,
        timeout=30, check=False,
    )  # fmt: skip
    return done.returncode, done.stdout + done.stderr


def test_daemon_does_not_start_without_the_keys_it_should_ask_for(short_dir):
    keys = short_dir / "keys"
    keys.write_text(f"{OLD}\n")
    keys.chmod(0o640)
    config = lay_out({"a": unruly(free_ports(1)[0])}, api_keys_file="keys")

    status, said = serve(short_dir, config)

    assert status == 1
    assert f"chmod 600 {keys}" in said
    assert "Traceback" not in said
    assert "sesame" not in said


def test_machine_without_a_keychain_is_told_so(short_dir):
    config = lay_out({"a": unruly(free_ports(1)[0])}, api_keys_keyring=True)
    status, said = serve(
        short_dir, config, PYTHON_KEYRING_BACKEND="keyring.backends.fail.Keyring"
    )  # fmt: skip
    assert status == 1
    assert "no keychain that a service can use" in said
    assert "api_keys_file" in said
    assert "Traceback" not in said


def test_key_of_the_keychain_lets_in(short_dir):
    port = free_ports(1)[0]
    daemon = Llmd(short_dir, lay_out({"a": unruly(port)}, api_keys_keyring=True))
    daemon.port = port
    daemon.env |= {
        "PYTHON_KEYRING_BACKEND": "tests.security.chain.Chain",
        "PYTHONPATH": str(ROOT),
        "LLMD_TEST_CHAIN": OLD,
    }
    with contextlib.ExitStack() as stack:
        daemon.start()
        stack.callback(daemon.stop)
        assert [ask(daemon, key) for key in (OLD, NEW, None)] == [200, 401, 401]
        assert Path(daemon.log_file).read_text().count("sesame") == 0
