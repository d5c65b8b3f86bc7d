"""`llmd-ctl doctor`: each finding from what causes it, and from nothing else."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from llmd.admin import wire
from llmd.cli import service_checks
from llmd.cli.doctor import CHECKS, configuration_loads
from llmd.cli.findings import Examined
from llmd.cli.main import run
from llmd.config.load import parse_config
from llmd.platform import machine as machines
from llmd.platform import service as services
from llmd.platform.definition import ServiceState
from llmd.platform.launchd import render
from llmd.platform.launchd_job import LaunchAgent
from llmd.platform.systemd_units import UserUnits
from tests.admin.fake_operator import served
from tests.cli.fake_machine import FakeMachine
from tests.platform.definitions import in_directory
from tests.platform.fake_managers import WAITING, FakeLaunchctl, FakeSystemctl, fails
from tests.weights.making import write_mlx


CONFIG = (
    "gateway: null\nlisten: [127.0.0.1]\nmodels_dirs: [models]\n"
    "profiles: {a: {engine: mlx, model: m, port: 8081}}\n"
)
GIB = 2**30
HEALTHY = ServiceState(
    places=("gui/501",), pid=4711, stop_limit_s=60.0, scheduling="interactive (4)"
)


@pytest.fixture
def seen(short_dir):
    """A Mac on which all is well."""
    config = parse_config(CONFIG, source="f", directory=short_dir)
    agent = LaunchAgent(short_dir, domain="gui/501", runner=FakeLaunchctl(loaded=["gui/501"]))
    definition = in_directory(short_dir)
    agent.path.parent.mkdir(parents=True)
    agent.path.write_text(render(definition))
    write_mlx(short_dir / "models" / "m")
    status = wire.Status(
        version="0.1.0",
        pid=4711,
        uptime_s=1.0,
        budget=wire.Budget(total_bytes=GIB, used_bytes=0, free_bytes=GIB, peak_bytes=0),
        ports=(),
        profiles=(),
    )
    return Examined(
        config_file=definition.config_file,
        config=config.model_copy(update={"models_dirs": (short_dir / "models",)}),
        config_error=("", ""),
        service=agent,
        installed=definition,
        state=HEALTHY,
        state_error=("", ""),
        status=status,
        machine=FakeMachine(),
    )


def with_state(seen, **changes):
    return replace(seen, state=replace(seen.state, **changes))


def found_in(seen):
    return [finding for check in CHECKS for finding in check(seen)]


def test_healthy_service_has_no_findings(seen):
    assert found_in(seen) == []


@pytest.mark.parametrize(
    ("change", "check", "says", "remedy", "serious"),
    [
        pytest.param(
            lambda s: replace(s, config=None, config_error=("f:1: bad", "mend it")),
            configuration_loads,
            "f:1: bad",
            "mend it",
            True,
            id="bad configuration",
        ),
        pytest.param(
            lambda s: replace(s, installed=None, state=ServiceState(), status=None),
            service_checks.is_installed,
            "after the next login it does not run",
            "llmd-ctl install",
            False,
            id="not installed",
        ),
        pytest.param(
            lambda s: replace(s, state=None, state_error=("it hangs", "wait")),
            service_checks.manager_answers,
            "it hangs",
            "wait",
            True,
            id="manager does not answer",
        ),
        pytest.param(
            lambda s: replace(s, installed=replace(s.installed, python=Path("/gone/python"))),
            service_checks.python_is_there,
            "/gone/python cannot be run",
            "llmd-ctl install",
            True,
            id="Python upgraded away",
        ),
        pytest.param(
            lambda s: replace(s, config_file=Path("/other.yaml")),
            service_checks.serves_this_configuration,
            "this is /other.yaml",
            "llmd-ctl install --config /other.yaml",
            False,
            id="another configuration",
        ),
        pytest.param(
            lambda s: replace(s, installed=replace(s.installed, ports=(8081, 8085))),
            service_checks.holds_the_ports,
            "it holds 8085, which nobody serves",
            "llmd-ctl install",
            False,
            id="port too many",
        ),
        pytest.param(
            lambda s: replace(s, installed=replace(s.installed, ports=(8085,))),
            service_checks.holds_the_ports,
            "connections to 8081 are refused while no daemon runs; it holds 8085",
            "llmd-ctl install",
            False,
            id="port missing",
        ),
        pytest.param(
            lambda s: replace(s, installed=replace(s.installed, addresses=("::1",))),
            service_checks.holds_the_ports,
            "it listens on ::1; `listen` says 127.0.0.1",
            "llmd-ctl install",
            False,
            id="other address",
        ),
        pytest.param(
            lambda s: with_state(s, pid=None, failure="it ended with status 1"),
            service_checks.runs,
            "it ended with status 1; it said: no room / bye",
            "llmd-ctl start",
            True,
            id="down",
        ),
        pytest.param(
            lambda s: replace(s, state=ServiceState(), status=None),
            service_checks.runs,
            "it starts at the next login",
            "llmd-ctl start",
            False,
            id="stopped",
        ),
        pytest.param(
            lambda s: replace(s, status=None),
            service_checks.answers,
            "nobody answers for it on the admin socket (pid 4711)",
            "llmd-ctl logs; if it hangs for good: llmd-ctl stop, then llmd-ctl start",
            True,
            id="does not answer",
        ),
        pytest.param(
            lambda s: with_state(s, pid=None),
            service_checks.answers,
            "pid 4711 was started in another way",
            "llmd-ctl stop, then llmd-ctl start",
            False,
            id="another daemon answers",
        ),
        pytest.param(
            lambda s: with_state(s, places=("gui/501", "user/501")),
            service_checks.is_loaded_once,
            "it is loaded in gui/501 and user/501",
            "llmd-ctl install",
            True,
            id="loaded twice",
        ),
        pytest.param(
            lambda s: with_state(s, stop_limit_s=5.0),
            service_checks.may_take_its_time,
            "it is killed 5 s after it was told to",
            "llmd-ctl install",
            False,
            id="short exit timeout",
        ),
        pytest.param(
            lambda s: with_state(s, scheduling="background (5)"),
            service_checks.is_not_slowed_down,
            "its spawn type is background (5)",
            "llmd-ctl install",
            True,
            id="background",
        ),
        pytest.param(
            lambda s: with_state(s, scheduling="daemon (3)"),
            service_checks.is_not_slowed_down,
            "its spawn type is daemon (3)",
            "llmd-ctl install",
            False,
            id="standard",
        ),
    ],
)
def test_what_is_wrong_is_found_with_its_remedy(seen, change, check, says, remedy, serious):
    seen.installed.log_dir.mkdir()
    (seen.installed.log_dir / "service.log").write_text("no room\nbye\n")
    [finding] = check(change(seen))
    assert says in finding.why
    assert (finding.remedy, finding.serious) == (remedy, serious)


def test_definition_of_another_version_is_found(seen):
    seen.service.path.write_text(seen.service.path.read_text().replace("Interactive", "Adaptive"))
    [finding] = service_checks.is_current(seen)
    assert str(seen.service.path) in finding.why


def test_models_in_a_protected_folder_are_found_on_a_mac_only(seen, short_dir):
    models = (Path.home() / "Documents" / "AI", Path.home() / ".lmstudio")
    seen = replace(seen, config=seen.config.model_copy(update={"models_dirs": models}))
    [finding] = service_checks.may_read_its_files(seen)
    assert finding.what.startswith(str(models[0]))
    linux = UserUnits(short_dir, runner=FakeSystemctl())
    assert list(service_checks.may_read_its_files(replace(seen, service=linux))) == []


def test_user_who_does_not_linger_is_told(seen, short_dir):
    linux = UserUnits(short_dir, runner=FakeSystemctl(linger="no"))
    [finding] = service_checks.lasts(replace(seen, service=linux))
    assert (finding.remedy, finding.serious) == ("loginctl enable-linger", False)


# --- the command ---------------------------------------------------------------------------------


@pytest.fixture
def linux(short_dir, monkeypatch):
    """An installed service of Linux, and a configuration that fits it."""
    definition = replace(in_directory(short_dir), socket=short_dir / "s")
    units = UserUnits(short_dir / "units", runner=FakeSystemctl())
    units.install(definition)
    definition.config_file.write_text(CONFIG)
    write_mlx(definition.config_file.parent / "models" / "m")
    monkeypatch.setattr(services, "this_service", lambda: units)
    monkeypatch.setattr(machines, "Machine", FakeMachine)
    return units


def test_doctor_of_a_healthy_machine_says_so(linux, short_dir, capsys):
    with served(short_dir / "s", pid=4711):
        assert run(["doctor"]) == 0
    assert capsys.readouterr().out == f"{len(CHECKS)} checks, nothing found\n"


def test_serious_finding_is_exit_status_1(linux, capsys):
    linux._run.active.clear()
    linux._run.failed.add("llmd.service")
    linux._run.journal = "last words\n"
    assert run(["doctor"]) == 1
    assert capsys.readouterr().out == (
        "the service is down\n"
        "  llmd.service failed: exit-code, its last status is 78; it said: last words\n"
        "  -> llmd-ctl start\n"
    )


def test_doctor_as_json_is_one_document(linux, capsys):
    linux._run.active.clear()
    assert run(["doctor", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["serious"], document["checks"]) == (False, len(CHECKS))
    [finding] = document["findings"]
    assert finding == {
        "what": "the service is stopped",
        "why": "it starts at the next login",
        "remedy": "llmd-ctl start",
        "serious": False,
    }


def test_doctor_goes_on_when_the_manager_does_not_answer(linux, capsys):
    linux._run.answers["show"] = [fails(1, "Failed to connect to bus")]
    assert run(["doctor"]) == 1
    assert "the service manager does not answer\n" in capsys.readouterr().out


def test_doctor_judges_the_file_that_the_service_reads(linux, short_dir, monkeypatch, capsys):
    monkeypatch.setenv("LLMD_CONFIG", "/nowhere.yaml")
    with served(short_dir / "s", pid=4711):
        assert run(["doctor"]) == 0
        capsys.readouterr()
        assert run(["doctor", "--config", "/nowhere.yaml"]) == 1
    assert "there is no configuration at /nowhere.yaml" in capsys.readouterr().out


def test_waiting_job_of_a_mac_is_down(short_dir):
    launchctl = FakeLaunchctl()
    launchctl.loaded["gui/501"] = WAITING
    state = LaunchAgent(short_dir, domain="gui/501", runner=launchctl).state()
    assert (state.pid, state.stop_limit_s, state.scheduling) == (None, 5.0, "background (5)")
