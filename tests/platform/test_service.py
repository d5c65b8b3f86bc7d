"""Under whom this process runs, and what that means for stopping and for exit statuses."""

import os
import tomllib

import pytest

from llmd.platform import service
from llmd.platform.definition import (
    CARRIED,
    ServiceError,
    carried,
    fill,
    template,
    write_atomically,
)
from llmd.platform.launchd_job import LaunchAgent
from llmd.platform.run import Ran
from llmd.platform.systemd_units import UserUnits
from tests.conftest import ROOT
from tests.platform.fake_managers import FakeLaunchctl, FakeSystemctl, fails


ME = str(os.getpid())


@pytest.fixture
def units(tmp_path):
    return lambda **options: UserUnits(tmp_path, runner=FakeSystemctl(**options))


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        pytest.param({}, None, id="a bare terminal"),
        pytest.param({"XPC_SERVICE_NAME": "0"}, None, id="a terminal on macOS"),
        pytest.param(
            {"XPC_SERVICE_NAME": "application.com.apple.Terminal.1"}, None, id="inside an app"
        ),
        pytest.param({"XPC_SERVICE_NAME": "dev.llmd"}, None, id="a shell below another agent"),
        pytest.param(
            {"SYSTEMD_EXEC_PID": ME, "INVOCATION_ID": "a", "NOTIFY_SOCKET": "/run/n"},
            "systemd",
            id="a unit",
        ),
        pytest.param(
            {"SYSTEMD_EXEC_PID": "1", "INVOCATION_ID": "a"}, None, id="a desktop's terminal"
        ),
        pytest.param(
            {"SYSTEMD_EXEC_PID": "1", "INVOCATION_ID": "a", "NOTIFY_SOCKET": "/run/n"},
            None,
            id="a terminal below a unit that notifies",
        ),
        pytest.param({"INVOCATION_ID": "a"}, None, id="a terminal under an old systemd"),
        pytest.param(
            {"INVOCATION_ID": "a", "NOTIFY_SOCKET": "/run/n"}, "systemd", id="an old systemd"
        ),
        pytest.param(
            {"INVOCATION_ID": "a", "LISTEN_PID": ME, "LISTEN_FDS": "1"},
            "systemd",
            id="old, sockets",
        ),
        pytest.param({"NOTIFY_SOCKET": "/run/n"}, "other", id="somebody who is notified"),
        pytest.param({"LISTEN_PID": ME, "LISTEN_FDS": "2"}, "other", id="somebody with sockets"),
        pytest.param(
            {"SYSTEMD_EXEC_PID": "1", "LISTEN_PID": ME}, "other", id="somebody, in a terminal"
        ),
        pytest.param({"LISTEN_PID": "1", "LISTEN_FDS": "2"}, None, id="another's sockets"),
    ],
)
def test_manager_is_known_by_what_it_left(environ, expected):
    assert service.running_under(environ) == expected


def test_agent_is_launchds_own_child(monkeypatch):
    monkeypatch.setattr(os, "getppid", lambda: 1)
    assert service.running_under({"XPC_SERVICE_NAME": "dev.llmd"}) == "launchd"
    assert service.running_under({"XPC_SERVICE_NAME": "0"}) is None


@pytest.mark.parametrize(
    ("manager", "status"), [("launchd", 0), ("systemd", 78), ("other", 78), (None, 1)]
)
def test_final_failure_is_told_so_that_nobody_tries_again(manager, status):
    assert service.exit_status_for_final_failure(manager) == status


@pytest.mark.parametrize(("said", "limit_s"), [("1min 30s", 90.0), ("infinity", None), ("", None)])
def test_stop_limit_is_what_systemd_says(units, said, limit_s):
    kept = units(active=["llmd.service"])
    kept._run.stop_limit = said
    assert service.stop_limit_s("systemd", service=kept) == limit_s


def test_stop_limit_is_what_launchd_says(tmp_path):
    agent = LaunchAgent(tmp_path, domain="gui/501", runner=FakeLaunchctl(loaded=["gui/501"]))
    assert service.stop_limit_s("launchd", service=agent) == 60.0


def test_stop_limit_is_unknown_when_nobody_answers(units):
    broken = units()
    broken._run.answers["show"] = [Ran(None, "")]
    assert service.stop_limit_s("systemd", service=broken) is None
    assert service.stop_limit_s("other") is None
    assert service.stop_limit_s(None) is None


@pytest.mark.parametrize(
    ("jobs", "restarts", "replaces_sockets"),
    [
        ("7 llmd.service restart running\n", True, False),
        ("7 llmd.service restart running\n8 llmd.socket start waiting\n", True, True),
        ("7 llmd.service stop running\n", False, False),
        ("", None, False),
    ],
)
def test_restart_is_told_from_a_stop(units, jobs, restarts, replaces_sockets):
    kept = units()
    kept._run.jobs = jobs
    intent = service.intent("systemd", service=kept)
    assert (intent.restarts, intent.replaces_sockets) == (restarts, replaces_sockets)


def test_restart_is_unknown_when_the_manager_does_not_tell(units):
    broken = units()
    broken._run.answers["list-jobs"] = [fails(1)]
    assert service.intent("systemd", service=broken) == service.Intent()
    assert service.intent("launchd") == service.Intent()
    assert service.intent(None) == service.Intent()


def test_stop_by_the_manager_says_what_it_did(units):
    kept = units(active=["llmd.service", "llmd.socket"])
    assert service.stop("systemd", service=kept) == ["stopped llmd.socket and llmd.service"]


def test_unknown_manager_is_not_asked_to_stop():
    with pytest.raises(ServiceError, match="does not know"):
        service.stop("other")


def test_service_of_linux_is_the_users_units():
    kept = service.this_service({"XDG_CONFIG_HOME": "/x"}, runner=FakeSystemctl())
    assert kept.kind == "systemd"
    assert str(kept.files[0]) == "/x/systemd/user/llmd.service"


def test_service_of_a_mac_is_the_agent_at_the_screen(monkeypatch):
    monkeypatch.setattr(service.sys, "platform", "darwin")
    monkeypatch.setattr(os, "getuid", lambda: 501)
    monkeypatch.setattr(os, "geteuid", lambda: 501)
    kept = service.this_service({}, runner=FakeLaunchctl())
    assert (kept.kind, kept.domain) == ("launchd", "gui/501")


def test_root_by_sudo_has_no_service(monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    with pytest.raises(ServiceError, match="this is root"):
        service.this_service({"SUDO_USER": "ada"})


# --- what both kinds of files share --------------------------------------------------------------


def test_variables_that_say_where_files_are_are_carried_over():
    environ = {"HF_HOME": "/srv/hf", "SECRET": "x", "LLMD_STATE_DIR": ""}
    assert carried(environ) == (("HF_HOME", "/srv/hf"),)
    assert carried(dict.fromkeys(CARRIED, "x")) == tuple((name, "x") for name in CARRIED)


def test_what_a_placeholder_brings_in_is_not_filled_again():
    assert fill("@A@ @B@ @C@", {"@A@": "@B@", "@B@": "b"}) == "@B@ b @C@"


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("dev.llmd.plist", "launchd/dev.llmd.plist"),
        ("llmd.service", "etc/llmd.service"),
        ("llmd.socket", "etc/llmd.socket"),
    ],
)
def test_template_is_packed_where_it_is_looked_for(name, source):
    assert template(name, source) == (ROOT / source).read_text()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    packed = project["tool"]["hatch"]["build"]["targets"]["wheel"]["force-include"]
    assert packed[source] == f"llmd/platform/{name}"


def test_missing_template_is_reported():
    with pytest.raises(ServiceError, match="missing from this installation"):
        template("no.plist", "launchd/no.plist")


def test_file_that_cannot_be_written_leaves_nothing_behind(tmp_path):
    target = tmp_path / "dev.llmd.plist"
    target.mkdir()
    (target / "full").touch()
    with pytest.raises(ServiceError, match="cannot write"):
        write_atomically(target, "text")
    assert [path.name for path in tmp_path.iterdir()] == ["dev.llmd.plist"]
