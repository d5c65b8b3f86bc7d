"""The units: as they were agreed on, right by systemd's own reading, and readable again.

No systemd is asked to do anything but to read them (`systemd-analyze verify`).
"""

import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from llmd.platform.definition import ServiceError
from llmd.platform.systemd import (
    parse_timespan,
    read_back,
    render_service,
    render_socket,
    unit_dir,
)
from llmd.platform.systemd_units import UserUnits
from tests.conftest import ROOT
from tests.platform.definitions import GOLDEN, LINUX, in_directory
from tests.platform.fake_managers import FakeSystemctl, fails


ODD_NAMES = [
    pytest.param("a b", id="blank"),
    pytest.param('we"ird', id="quote"),
    pytest.param("it's", id="apostrophe"),
    pytest.param("back\\slash", id="backslash"),
    pytest.param("100%h", id="specifier"),
    pytest.param("$HOME", id="variable"),
    pytest.param("Ünï;#@SOCKET@", id="separators and placeholders"),
]


def in_odd_directory(directory, name):
    odd = directory / name
    odd.mkdir()
    choosy = set(name) & set("\"'\\")
    python = directory / "python" if choosy else odd / "python"
    python.symlink_to(sys.executable)
    return replace(in_directory(odd), python=python, variables=(("HF_HOME", f"/srv/{name}"),))


# --- the files ---------------------------------------------------------------------------------


def test_rendered_units_are_the_golden_ones():
    assert render_service(LINUX) == (GOLDEN / "llmd.service").read_text()
    assert render_socket(LINUX) == (GOLDEN / "llmd.socket").read_text()


@pytest.mark.parametrize("name", ["llmd.service", "llmd.socket"])
def test_every_setting_of_a_template_has_its_reason(name):
    """A comment stands before each setting, or before a few that belong together."""
    together = {"After", "StartLimitBurst", "Also", "SocketMode", "DirectoryMode"}
    evident = {"Description", "WantedBy"}
    before = ""
    for line in (ROOT / "etc" / name).read_text().splitlines():
        key = line.partition("=")[0]
        if "=" in line and not line.startswith("#") and key not in together | evident:
            assert before.startswith("#"), key
        before = line


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="there is no systemd-analyze here")
@pytest.mark.parametrize("name", [pytest.param("plain", id="plain"), *ODD_NAMES])
def test_systemd_reads_the_units_without_a_complaint(tmp_path, name):
    definition = in_odd_directory(tmp_path, name)
    units = tmp_path / "units"
    units.mkdir()
    (units / "llmd.service").write_text(render_service(definition))
    (units / "llmd.socket").write_text(render_socket(definition))
    runtime = tmp_path / "runtime"
    runtime.mkdir(mode=0o700)
    done = subprocess.run(
        ["systemd-analyze", "--user", "--man=no", "verify", *map(str, units.iterdir())],
        env={"PATH": os.environ["PATH"], "HOME": str(tmp_path), "XDG_RUNTIME_DIR": str(runtime)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    # It ends with 0 whatever keys it does not know; what it says counts.
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


@pytest.mark.parametrize("name", ODD_NAMES)
def test_units_are_read_back_as_what_they_were_rendered_from(tmp_path, name):
    definition = in_odd_directory(tmp_path, name)
    known = read_back(render_service(definition), render_socket(definition))
    assert known == replace(definition, log_dir=definition.state_dir)


def test_sockets_are_those_of_each_port_and_address():
    sockets = render_socket(replace(LINUX, ports=(9000,), addresses=("0.0.0.0", "fe80::1%eth0")))
    listed = [line for line in sockets.splitlines() if line.startswith("ListenStream=")]
    assert listed == [
        "ListenStream=0.0.0.0:9000",
        "ListenStream=[fe80::1%%eth0]:9000",
        "ListenStream=/run/user/1000/llmd/llmd.sock",
    ]


@pytest.mark.parametrize(
    "change",
    [
        {"config_file": Path("/home/a\nExecStart=/bin/evil")},
        {"variables": (("HF_HOME", "a\nb"),)},
        {"state_dir": Path("/home/ada ")},
        {"socket": Path("/run/x\\")},
        {"python": Path("/home/ada/it's/python")},
    ],
)
def test_what_a_unit_cannot_hold_is_refused(change):
    with pytest.raises(ServiceError, match="systemd cannot"):
        render_service(replace(LINUX, **change)) + render_socket(replace(LINUX, **change))


@pytest.mark.parametrize("text", ["", "[Service]\nExecStart=/bin/true\n", "ExecStart=:x --config"])
def test_foreign_unit_is_not_read(text):
    assert read_back(text, render_socket(LINUX)) is None
    assert read_back(render_service(LINUX), "ListenStream=8080\nListenStream=a:b\n") is None


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, "/home/ada/.config/systemd/user"),
        ({"XDG_CONFIG_HOME": "/x"}, "/x/systemd/user"),
        ({"XDG_CONFIG_HOME": "relative"}, "/home/ada/.config/systemd/user"),
    ],
)
def test_units_are_the_users_own(environ, expected):
    assert unit_dir(Path("/home/ada"), environ) == Path(expected)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1min 30s", 90.0),
        ("1min", 60.0),
        ("500ms", 0.5),
        ("2h 1s 5us", 7201.000005),
        ("1month 1w", 2629800.0 + 604800.0),
        ("infinity", None),
        ("", None),
        ("90", None),
        ("soon", None),
    ],
)
def test_times_are_read_as_systemd_prints_them(text, seconds):
    assert parse_timespan(text) == seconds


# --- in force ----------------------------------------------------------------------------------


class Desk:
    def __init__(self, home, systemctl):
        self.systemctl = systemctl
        self.definition = in_directory(home)
        self.units = UserUnits(home / "units", runner=systemctl)

    def install(self, **changes):
        self.systemctl.calls.clear()
        return self.units.install(replace(self.definition, **changes))


BOTH = "llmd.socket llmd.service"


@pytest.fixture
def desk(tmp_path):
    return lambda **options: Desk(tmp_path, FakeSystemctl(**options))


def test_first_install_writes_enables_and_starts_both_units(desk):
    at = desk()
    assert at.install() == [
        f"wrote {at.units.service}",
        f"wrote {at.units.socket}",
        "started llmd.socket and llmd.service",
    ]
    assert at.systemctl.changes() == [
        "daemon-reload",
        f"enable {BOTH}",
        f"reset-failed {BOTH}",
        f"start {BOTH}",
    ]
    assert (at.definition.socket.parent.stat().st_mode & 0o777) == 0o700


def test_install_again_changes_nothing(desk):
    at = desk()
    at.install()
    assert at.install() == ["llmd.service is active (pid 4711)"]
    assert at.systemctl.changes() == [f"enable {BOTH}"]


def test_changed_service_is_restarted_while_the_ports_stay_open(desk):
    at = desk()
    at.install()
    did = at.install(variables=(("HF_HOME", "/srv"),))
    assert did[0] == f"wrote {at.units.service}"
    assert at.systemctl.changes() == ["daemon-reload", f"enable {BOTH}", "restart llmd.service"]


def test_changed_ports_restart_both_the_service_first(desk):
    """The other way round systemd fails: the socket cannot start while the service runs."""
    at = desk()
    at.install()
    at.install(ports=(8081, 8085))
    assert at.systemctl.changes() == [
        "daemon-reload",
        f"enable {BOTH}",
        "restart llmd.service llmd.socket",
    ]


def test_what_failed_too_often_is_started_again(desk):
    at = desk(failed=["llmd.service", "llmd.socket"])
    assert at.units.start() == ["started llmd.socket and llmd.service"]
    assert at.systemctl.changes() == [f"reset-failed {BOTH}", f"start {BOTH}"]


def test_service_that_lost_its_ports_is_restarted_with_them(desk):
    at = desk(active=["llmd.service"], failed=["llmd.socket"])
    at.units.start()
    assert at.systemctl.changes() == [f"reset-failed {BOTH}", "restart llmd.service llmd.socket"]


def test_stop_takes_both_so_that_no_connection_starts_it_again(desk):
    at = desk(active=["llmd.service", "llmd.socket"])
    assert at.units.stop() == ["stopped llmd.socket and llmd.service"]
    assert at.systemctl.changes() == [f"stop {BOTH}"]
    assert at.units.stop() == []


def test_uninstall_stops_disables_and_removes(desk):
    at = desk()
    at.install()
    at.systemctl.calls.clear()
    assert at.units.uninstall() == [
        "stopped llmd.socket and llmd.service",
        f"removed {at.units.service}",
        f"removed {at.units.socket}",
    ]
    assert at.systemctl.changes() == [
        f"stop {BOTH}",
        f"disable {BOTH}",
        "daemon-reload",
        f"reset-failed {BOTH}",
    ]
    at.systemctl.calls.clear()
    assert at.units.uninstall() == []
    assert at.systemctl.changes() == []


def test_start_that_fails_tells_the_last_words_and_where_to_look(desk):
    at = desk(journal="llmd: the state is unreadable\n  mend it\n")
    at.systemctl.answers["start"] = [fails(1, "Job for llmd.service failed.\n")]
    with pytest.raises(ServiceError, match=r"llmd.service failed.*unreadable / mend it") as caught:
        at.install()
    assert "journalctl --user -u llmd" in caught.value.remedy


def test_port_that_is_taken_is_named(desk):
    taken = "llmd.socket: Failed to create listening socket (127.0.0.1:8081): Address in use\n"
    at = desk(failed=["llmd.socket"], journal=f"{taken}llmd.socket: Failed with result.\n")
    at.systemctl.answers["start"] = [fails(1, "Job for llmd.socket failed.\n")]
    with pytest.raises(ServiceError, match=r"llmd.socket failed.*127\.0\.0\.1:8081"):
        at.units.start()


def test_user_without_systemd_is_told_how_to_get_at_it(desk):
    at = desk()
    at.systemctl.answers["show"] = [fails(1, "Failed to connect to bus: No medium found\n")]
    with pytest.raises(ServiceError, match="no systemd for this user") as caught:
        at.install()
    assert "XDG_RUNTIME_DIR" in caught.value.remedy
    assert not at.units.service.exists()


def test_system_without_systemctl_is_told_what_else_to_do(desk):
    at = desk()
    at.systemctl.answers["show"] = [fails(127, "systemctl: no such program")]
    with pytest.raises(ServiceError, match="no systemctl") as caught:
        at.units.state()
    assert caught.value.remedy == "run `llmd serve` instead"


def test_every_call_has_a_time_limit(desk):
    at = desk()
    at.install()
    at.units.uninstall()
    assert all(0 < limit_s <= 180 for limit_s in at.systemctl.timeouts_s)


def test_state_tells_what_is_active_and_why_not(desk):
    state = desk(active=["llmd.socket"], failed=["llmd.service"]).units.state()
    assert (state.places, state.pid) == (("llmd.socket",), None)
    assert state.failure == "llmd.service failed: exit-code, its last status is 78"
    assert state.stop_limit_s == 60.0
    running = desk(active=["llmd.socket", "llmd.service"]).units.state()
    assert (running.pid, running.failure) == (4711, "")


@pytest.mark.parametrize(
    ("jobs", "expected"),
    [
        ("", {}),
        ("No jobs running.\n", {}),
        ("1204 llmd.service restart running\n", {"llmd.service": "restart"}),
        (
            "1203 llmd.socket start waiting\n1204 llmd.service restart running\n1 a.service stop\n",
            {"llmd.socket": "start", "llmd.service": "restart"},
        ),
    ],
)
def test_pending_jobs_are_read(desk, jobs, expected):
    at = desk()
    at.systemctl.jobs = jobs
    assert at.units.pending_jobs() == expected


@pytest.mark.parametrize(("linger", "count"), [("no", 1), ("yes", 0)])
def test_user_who_does_not_linger_is_advised(desk, linger, count):
    advice = desk(linger=linger).units.advice()
    assert [command for _, command in advice] == ["loginctl enable-linger"] * count


def test_installed_is_what_the_units_say(desk):
    at = desk()
    assert at.units.installed() is None
    at.install()
    assert at.units.installed().ports == (8081,)
    assert at.units.is_current(at.definition)
    assert not at.units.is_current(replace(at.definition, ports=(1,)))
