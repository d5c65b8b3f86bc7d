"""`install`, `uninstall` and `start`, with a service manager in memory and an answering daemon."""

import json
import sys
from pathlib import Path

import pytest

from llmd.cli.main import run
from llmd.cli.service import NoServiceAnswerError, await_daemon, definition_for
from llmd.config.load import parse_config
from llmd.platform import service as services
from llmd.platform.definition import ServiceError
from llmd.platform.launchd_job import LaunchAgent
from llmd.platform.systemd_units import UserUnits
from tests.admin.fake_operator import served
from tests.platform.fake_managers import FakeLaunchctl, FakeSystemctl, FakeTime, fails


PID = 4711
BOTH = ("llmd.socket", "llmd.service")
CONFIG = """
gateway: {port: 8080}
profiles:
  code: {engine: mlx, model: some/weights, port: 8081}
  chat: {engine: mlx, model: some/weights, port: 8082}
"""


@pytest.fixture(autouse=True)
def places(short_dir, monkeypatch):
    """A user's files, all of them below one private directory."""
    (short_dir / "llmd.yaml").write_text(CONFIG)
    for variable, name in (
        ("LLMD_SOCKET", "s"),
        ("LLMD_CONFIG", "llmd.yaml"),
        ("LLMD_STATE_DIR", "state"),
        ("LLMD_LOG_DIR", "log"),
        ("XDG_CACHE_HOME", "no-cache-yet"),
    ):
        monkeypatch.setenv(variable, str(short_dir / name))
    return short_dir


@pytest.fixture
def linux(places, monkeypatch):
    """A systemd; the argument is what it has."""

    def make(**options):
        units = UserUnits(places / "units", runner=FakeSystemctl(**options))
        monkeypatch.setattr(services, "this_service", lambda: units)
        return units

    return make


@pytest.fixture
def mac(places, monkeypatch):
    """A launchd; the argument is what it has."""

    def make(**options):
        time = FakeTime()
        launchctl = FakeLaunchctl(**options)
        agent = LaunchAgent(
            places, domain="gui/501", runner=launchctl, pause=time.pause, now=time.now
        )
        monkeypatch.setattr(services, "this_service", lambda: agent)
        return agent

    return make


@pytest.fixture
def daemon(places):
    """What the service would run: a daemon with the pid that the fakes give it."""
    with served(places / "s", pid=PID) as running:
        yield running


def definition(places):
    config = parse_config(CONFIG, source="f", directory=places)
    return definition_for(config, places / "llmd.yaml", places / "s")


# --- install -----------------------------------------------------------------------------------


def test_install_says_what_it_wrote_did_and_how_to_undo_it(linux, places, daemon, capsys):
    linux(active=BOTH)
    assert run(["install"]) == 0
    said = capsys.readouterr()
    assert said.out.splitlines() == [
        f"wrote {places}/units/llmd.service",
        f"wrote {places}/units/llmd.socket",
        "restarted it, with other ports",
        "llmd.service is active (pid 4711)",
        "llmd (pid 4711) serves 8080, 8081, 8082, 8083; undo with `llmd-ctl uninstall`",
    ]
    assert said.err == ""


def test_install_on_a_mac_loads_the_agent(mac, places, daemon, capsys):
    mac(loaded=["gui/501"])
    assert run(["install"]) == 0
    said = capsys.readouterr().out
    assert f"wrote {places}/Library/LaunchAgents/dev.llmd.plist\n" in said
    assert "unloaded the former dev.llmd of gui/501\nloaded dev.llmd in gui/501\n" in said


def test_install_twice_is_install_once(linux, daemon, capsys):
    units = linux(active=BOTH)
    assert run(["install"]) == 0
    units._run.calls.clear()
    capsys.readouterr()
    assert run(["install"]) == 0
    assert units._run.changes() == ["enable llmd.socket llmd.service"]
    assert capsys.readouterr().out.startswith("llmd.service is active (pid 4711)\n")


def test_install_as_json_is_one_document(linux, places, daemon, capsys):
    linux(active=BOTH, linger="no")
    daemon.operator.ports[8083] = {"error": "port 8083 is in use by nc (pid 9)", "listen": ()}
    assert run(["install", "--json"]) == 0
    said = capsys.readouterr()
    document = json.loads(said.out)
    assert (document["service"], document["pid"]) == ("systemd", PID)
    assert document["files"] == [
        f"{places}/units/{name}" for name in ("llmd.service", "llmd.socket")
    ]
    assert document["notes"] == [
        "port 8083 is in use by nc (pid 9)",
        "it ends when you log out, and starts when you log in (`loginctl enable-linger`)",
    ]
    assert said.err == ""


def test_install_notes_what_is_not_perfect(linux, daemon, capsys):
    linux(active=BOTH, linger="no")
    assert run(["install"]) == 0
    assert "note: it ends when you log out" in capsys.readouterr().err


def test_configuration_with_a_mistake_is_not_installed(linux, places, capsys):
    units = linux()
    (places / "llmd.yaml").write_text("profiles: {a: {engine: mlx, model: m, port: eighty}}")
    assert run(["install"]) == 1
    refused = capsys.readouterr().err
    assert run(["config", "check"]) == 1
    assert refused == capsys.readouterr().err
    assert not units.service.exists()
    assert units._run.calls == []


def test_daemon_that_is_not_the_service_stops_the_install(linux, daemon, capsys):
    units = linux()
    assert run(["install"]) == 1
    said = capsys.readouterr().err
    assert said == (
        "llmd-ctl: another llmd (pid 4711), which is not the service, has the admin socket; "
        "llmd-ctl stop, then try again\n"
    )
    assert not units.service.exists()


def test_service_manager_that_refuses_is_one_line_with_a_remedy(mac, capsys):
    agent = mac()
    agent._run.answers["bootstrap"] = [fails(125)]
    assert run(["install"]) == 1
    assert capsys.readouterr().err == (
        "llmd-ctl: launchctl bootstrap failed with 125: the domain does not support this: it has "
        "no login at the screen; log in at the screen of this machine, then `llmd-ctl install`\n"
    )


def test_daemon_that_never_answers_is_reported_with_its_last_words(linux, places):
    from llmd.admin.client import AdminClient

    units = linux(failed=["llmd.service"], journal="Traceback\nno such module\n")
    with pytest.raises(NoServiceAnswerError, match=r"failed: exit-code.*no such module") as caught:
        await_daemon(units, AdminClient(places / "s"), definition(places), within_s=0)
    assert caught.value.remedy == "llmd-ctl doctor"


# --- what is installed ---------------------------------------------------------------------------


def test_service_runs_this_environment_by_its_own_path(places, monkeypatch):
    link = places / "venv" / "bin" / "python"
    link.parent.mkdir(parents=True)
    link.symlink_to(sys.executable)
    monkeypatch.setattr(sys, "executable", str(link))
    assert definition(places).python == link


def test_service_holds_the_ports_of_profiles_and_gateway(places):
    made = definition(places)
    assert made.ports == (8080, 8081, 8082)
    assert made.addresses == ("127.0.0.1", "::1")
    assert (made.state_dir, made.log_dir) == (places / "state", places / "log")
    assert dict(made.variables)["LLMD_STATE_DIR"] == str(places / "state")


def test_disposable_environment_is_refused(places, monkeypatch):
    monkeypatch.setattr(sys, "executable", "/home/ada/.cache/uv/archive-v0/x/bin/python")
    with pytest.raises(ServiceError, match="is in a cache"):
        definition(places)


def test_relative_configuration_is_written_absolute(linux, places, daemon, monkeypatch):
    units = linux(active=BOTH)
    monkeypatch.chdir(places)
    assert run(["install", "--config", "llmd.yaml"]) == 0
    assert units.installed().config_file == Path.cwd() / "llmd.yaml"


# --- uninstall and start -----------------------------------------------------------------------


@pytest.fixture
def installed(linux, places):
    units = linux()
    units.install(definition(places))
    units._run.calls.clear()
    return units


def test_uninstall_has_the_daemon_unload_and_stop_first(installed, places, daemon, capsys):
    daemon.operator.on_stop = lambda: installed._run.active.discard("llmd.service")
    assert run(["uninstall"]) == 0
    assert daemon.operator.calls == [("stop",)]
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "stopped llmd (pid 4711) and unloaded its models"
    assert said[-4:] == [
        "left as they are:",
        f"  {places}/llmd.yaml",
        f"  {places}/state",
        f"  {places}/log",
    ]
    assert not any(path.exists() for path in installed.files)


def test_uninstall_spares_a_daemon_that_is_not_the_service(linux, places, daemon):
    linux()
    assert run(["uninstall"]) == 0
    assert daemon.operator.calls == []


def test_uninstall_of_nothing_says_so(linux, capsys):
    linux()
    assert run(["uninstall"]) == 0
    assert capsys.readouterr().out == "llmd was not installed as a service\n"


def test_uninstall_as_json_tells_what_is_left(installed, places, capsys):
    assert run(["uninstall", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["leaves"] == [f"{places}/{name}" for name in ("llmd.yaml", "state", "log")]
    assert f"removed {installed.socket}" in document["did"]


def test_start_of_what_is_not_installed_says_what_to_do(linux, capsys):
    linux()
    assert run(["start"]) == 1
    assert "llmd-ctl install, or run it in this terminal" in capsys.readouterr().err


def test_start_starts_the_service(installed, daemon, capsys):
    installed._run.active.discard("llmd.socket")
    assert run(["start"]) == 0
    assert capsys.readouterr().out == (
        "restarted llmd.service with llmd.socket\n"
        "llmd (pid 4711) serves 8080, 8081, 8082, 8083; undo with `llmd-ctl stop`\n"
    )


def test_start_with_a_bad_configuration_does_not_try(installed, places, capsys):
    (places / "llmd.yaml").write_text("nonsense")
    assert run(["start"]) == 1
    assert "llmd.yaml" in capsys.readouterr().err
    assert installed._run.calls == []


def test_start_goes_to_the_installed_socket_whatever_the_shell_says(installed, daemon, monkeypatch):
    monkeypatch.setenv("LLMD_SOCKET", "/nowhere")
    assert run(["start"]) == 0
