"""llmd as a user's service of a real systemd: crash, restart, changed ports, stop, logout.

The daemon, its hosts and `llmd-ctl` run inside; requests come from outside, on the same ports.
"""

import json
import os
import tempfile
from pathlib import Path

import psutil
import pytest
import yaml

from tests.conftest import ROOT
from tests.system.real_systemd import RealSystemd, missing
from tests.system.running import BIN, GOOD, free_ports, lay_out, request, unruly


pytestmark = pytest.mark.skipif(missing() is not None, reason=str(missing()))


class Installed:
    """llmd, installed for the user inside."""

    def __init__(self, systemd):
        self.systemd = systemd
        self.config_file = systemd.home / "llmd.yaml"
        self.env = {
            "LLMD_CONFIG": str(self.config_file),
            "LLMD_STATE_DIR": str(systemd.home / "state"),
            "LLMD_LOG_DIR": str(systemd.home / "log"),
            "PYTHONPATH": str(ROOT),
        }

    def configure(self, *ports, **more):
        profiles = {f"p{number}": unruly(port) for number, port in enumerate(ports)}
        text = yaml.safe_dump(lay_out(profiles, budget="400MiB", **more))
        self.config_file.write_text(text)

    def ctl(self, *arguments, check=True):
        return self.systemd.run(BIN / "llmd-ctl", *arguments, env=self.env, check=check)

    def status(self):
        return json.loads(self.ctl("--json", "status"))

    def profile(self, name="p0"):
        return next(p for p in self.status()["profiles"] if p["name"] == name)

    def kill(self):
        """End the daemon as a crash would."""
        self.systemd.run("kill", "-KILL", self.systemd.show("llmd.service", "MainPID")["MainPID"])

    def hosts(self):
        """As seen from outside, where numbers are others: those that name our directory."""
        found = []
        for process in psutil.process_iter():
            try:
                words = process.cmdline()
            except psutil.Error:
                continue
            if "llmd.hosts" in words and process.status() != psutil.STATUS_ZOMBIE:
                environment = Path(f"/proc/{process.pid}/environ").read_bytes()
                if os.fsencode(self.systemd.home) in environment:
                    found.append(process.pid)
        return found


@pytest.fixture(scope="module")
def systemd():
    with (
        tempfile.TemporaryDirectory(prefix="llmd-", dir="/tmp") as directory,
        RealSystemd(Path(directory), limit_s=120) as systemd,
    ):
        yield systemd


@pytest.fixture
def llmd(systemd):
    """Installed with two ports, one of them in use; uninstalled with the test."""
    installed = Installed(systemd)
    installed.ports = free_ports(2)
    installed.configure(*installed.ports)
    installed.ctl("install")
    assert request(installed.ports[0], body=GOOD)[0] == 200
    yield installed
    installed.ctl("uninstall", check=False)
    assert not installed.hosts()


def test_crash_and_restart_keep_the_models_and_the_ports(llmd):
    before = llmd.profile()
    assert llmd.status()["manager"] == "systemd"
    for disturb in (
        llmd.kill,
        lambda: llmd.systemd.systemctl("restart", "llmd.service"),
        lambda: llmd.ctl("restart"),
    ):
        disturb()
        assert request(llmd.ports[0], body=GOOD)[0] == 200
        after = llmd.profile()
        kept = ("host_pid", "loads")
        assert {key: after[key] for key in kept} == {key: before[key] for key in kept}
    assert not llmd.status()["warnings"]


def test_port_that_came_later_is_kept_over_a_crash_and_then_installed(llmd):
    (later,) = free_ports(1)
    llmd.configure(*llmd.ports, later)
    llmd.ctl("reload")
    assert request(later, body=GOOD)[0] == 200
    llmd.kill()
    assert request(later, body=GOOD)[0] == 200
    llmd.ctl("install")
    assert request(later, body=GOOD)[0] == 200
    assert llmd.profile("p2")["loads"] == 1
    assert llmd.profile()["loads"] == 1
    assert all(port["managed"] for port in llmd.status()["ports"])
    assert llmd.systemd.show("llmd.socket", "ActiveState")["ActiveState"] == "active"
    llmd.kill()
    assert request(later, body=GOOD)[0] == 200


def test_stop_unloads_and_nothing_starts_it_again_but_start(llmd):
    assert llmd.hosts()
    llmd.ctl("stop")
    assert not llmd.hosts()
    with pytest.raises(ConnectionRefusedError):
        request(llmd.ports[0], "GET", "/health")
    llmd.ctl("start")
    assert request(llmd.ports[0], body=GOOD)[0] == 200


def test_stop_by_systemd_itself_unloads_too(llmd):
    llmd.systemd.systemctl("stop", "llmd.service", "llmd.socket")
    assert not llmd.hosts()


def test_bad_configuration_leaves_the_last_good_one_in_use(llmd):
    llmd.ctl("stop")
    llmd.config_file.write_text("profiles: 7")
    llmd.systemd.systemctl("start", "llmd.service")
    assert request(llmd.ports[0], body=GOOD)[0] == 200
    assert "llmd.yaml" in llmd.status()["config_error"]
    assert "llmd.yaml" in llmd.ctl("doctor", check=False)


def test_bad_configuration_without_a_good_one_is_not_started_over_and_over(llmd):
    llmd.ctl("stop")
    llmd.config_file.write_text("profiles: 7")
    (copy,) = (llmd.systemd.home / "state").glob("config-*.yaml")
    copy.unlink()
    llmd.systemd.systemctl("start", "llmd.service", check=False)
    state = llmd.systemd.show("llmd.service", "ActiveState", "ExecMainStatus", "NRestarts")
    assert state == {"ActiveState": "failed", "ExecMainStatus": "78", "NRestarts": "0"}
    findings = llmd.ctl("doctor", check=False)
    assert "llmd.yaml" in findings


def test_logout_leaves_nothing_behind(llmd):
    """The last test: the user's manager ends with it."""
    assert llmd.hosts()
    llmd.systemd.log_out()
    assert not llmd.hosts()
