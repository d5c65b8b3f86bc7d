"""Installing, removing, starting and stopping the LaunchAgent, against recorded answers."""

import os
import stat
from dataclasses import replace

import pytest

from llmd.platform.definition import ServiceError
from llmd.platform.launchd import loads_in_background, render
from llmd.platform.launchd_job import BOOTSTRAP_TRIES, LaunchAgent, choose_domain
from llmd.platform.run import Ran
from tests.platform.definitions import in_directory
from tests.platform.fake_managers import HANGS, RUNNING, FakeLaunchctl, FakeTime, fails


GUI, USER = "gui/501", "user/501"
JOB = f"{GUI}/dev.llmd"


class Desk:
    """A user's home, their launchctl, and time."""

    def __init__(self, home, launchctl, *, domain=GUI):
        self.home, self.launchctl, self.time = home, launchctl, FakeTime()
        self.definition = in_directory(home)
        self.agent = LaunchAgent(
            home,
            domain=domain,
            runner=launchctl,
            pause=self.time.pause,
            now=self.time.now,
        )

    def install(self, **changes):
        return self.agent.install(replace(self.definition, **changes))


@pytest.fixture
def desk(tmp_path):
    def make(**options):
        domain = options.pop("domain", GUI)
        return Desk(tmp_path, FakeLaunchctl(**options), domain=domain)

    return make


# --- install -----------------------------------------------------------------------------------


def test_first_install_enables_then_loads(desk):
    at = desk()
    assert at.install() == [f"wrote {at.agent.path}", f"loaded dev.llmd in {GUI}"]
    assert at.launchctl.changes() == [f"enable {JOB}", f"bootstrap {GUI} {at.agent.path}"]
    assert at.agent.path.read_text() == render(at.definition)


def test_file_may_be_written_by_its_owner_alone_whatever_the_umask(desk):
    at = desk()
    before = os.umask(0)
    try:
        at.install()
    finally:
        os.umask(before)
    assert stat.S_IMODE(at.agent.path.stat().st_mode) == 0o644
    assert [path.name for path in at.agent.path.parent.iterdir()] == ["dev.llmd.plist"]


def test_directories_that_launchd_needs_are_made(desk):
    at = desk()
    at.install()
    for directory in (at.home / "state", at.home / "log", at.home / "run"):
        assert stat.S_IMODE(directory.stat().st_mode) == 0o700


def test_install_again_changes_nothing(desk):
    at = desk()
    at.install()
    at.launchctl.calls.clear()
    assert at.install() == [f"dev.llmd is loaded in {GUI} and runs (pid 4711)"]
    assert at.launchctl.changes() == [f"enable {JOB}"]


def test_loaded_job_without_a_process_is_started_and_not_killed_first(desk):
    at = desk(starts=False)
    assert at.install()[-1] == "started dev.llmd"
    assert at.launchctl.changes()[-1] == f"kickstart {JOB}"
    assert at.time.now_s >= 2


def test_changed_definition_waits_until_the_old_job_is_gone(desk):
    at = desk(drains=5)
    at.install()
    at.launchctl.calls.clear()
    did = at.install(ports=(8081, 8085))
    assert did[1:] == [f"unloaded the former dev.llmd of {GUI}", f"loaded dev.llmd in {GUI}"]
    calls = at.launchctl.calls
    gone_after = calls.index(f"bootstrap {GUI} {at.agent.path}") - calls.index(f"bootout {JOB}")
    assert gone_after > 5
    assert at.launchctl.changes() == [
        f"enable {JOB}",
        f"bootout {JOB}",
        f"bootstrap {GUI} {at.agent.path}",
    ]


def test_job_that_never_goes_is_reported(desk):
    at = desk(drains=10_000)
    at.install()
    with pytest.raises(ServiceError, match="has not ended 70 s after"):
        at.install(ports=(8085,))
    assert 70 <= at.time.now_s < 75


@pytest.mark.parametrize("code", [5, 17, 36, 37, 124])
def test_bootstrap_is_tried_again_while_the_old_job_drains(desk, code):
    at = desk()
    at.launchctl.answers["bootstrap"] = [fails(code)] * 5
    at.install()
    assert sum(call.startswith("bootstrap") for call in at.launchctl.calls) == 6
    assert at.time.now_s >= 5 * 0.5


def test_bootstrap_is_not_tried_for_ever(desk):
    at = desk()
    at.launchctl.answers["bootstrap"] = [fails(5, "Bootstrap failed: 5: Input/output error")] * 99
    with pytest.raises(ServiceError, match=r"bootstrap failed with 5: .*wrong owner"):
        at.install()
    assert sum(call.startswith("bootstrap") for call in at.launchctl.calls) == BOOTSTRAP_TRIES


def test_bootstrap_that_fails_although_it_worked_is_fine(desk):
    at = desk()
    at.launchctl.answers["bootstrap"] = [fails(37)]
    at.launchctl.answers["print"] = [fails(113)] * 4 + [Ran(0, RUNNING)] * 2
    assert at.install()[-1] == f"loaded dev.llmd in {GUI}"
    assert sum(call.startswith("bootstrap") for call in at.launchctl.calls) == 1


@pytest.mark.parametrize(
    ("code", "message", "remedy"),
    [
        pytest.param(119, "119: the service is disabled", "Login Items", id="disabled"),
        pytest.param(125, "125: the domain does not support", "log in at the screen", id="SSH"),
        pytest.param(112, "112: there is no such domain", "log in at the screen", id="no domain"),
        pytest.param(122, "122: .* owner or mode", "plutil -lint", id="bad mode"),
        pytest.param(None, "did not answer in time", "llmd-ctl doctor", id="hangs"),
    ],
)
def test_what_will_not_pass_is_told_at_once(desk, code, message, remedy):
    at = desk()
    at.launchctl.answers["bootstrap"] = [Ran(code, "")] * 9
    with pytest.raises(ServiceError, match=message) as caught:
        at.install()
    assert remedy in caught.value.remedy
    assert sum(call.startswith("bootstrap") for call in at.launchctl.calls) == 1


def test_enable_that_fails_stops_it(desk):
    at = desk()
    at.launchctl.answers["enable"] = [fails(125)]
    with pytest.raises(ServiceError, match="enable failed with 125"):
        at.install()


def test_launchctl_that_hangs_ends_the_command(desk):
    at = desk()
    at.launchctl.answers["print"] = [HANGS]
    with pytest.raises(ServiceError, match="print failed with launchctl did not answer"):
        at.agent.state()


def test_every_call_has_a_time_limit(desk):
    at = desk()
    at.install()
    at.install(ports=(8085,))
    at.agent.uninstall()
    assert all(0 < limit_s <= 70 for limit_s in at.launchctl.timeouts_s)


def test_job_in_the_other_domain_makes_way(desk):
    at = desk(loaded=[USER])
    at.install()
    assert f"bootout {USER}/dev.llmd" in at.launchctl.calls
    assert list(at.launchctl.loaded) == [GUI]


def test_second_job_makes_way_although_nothing_changed(desk):
    at = desk()
    at.install()
    at.launchctl.loaded[USER] = RUNNING
    assert at.install()[0] == f"unloaded the former dev.llmd of {USER}"
    assert list(at.launchctl.loaded) == [GUI]


def test_agent_for_a_user_without_a_login_may_load_there(desk):
    at = desk(domain=USER)
    at.launchctl.answers["print"] = [fails(125)]  # there is no gui domain to ask
    at.install()
    assert list(at.launchctl.loaded) == [USER]
    assert loads_in_background(at.agent.path.read_text())
    [(what, command)] = at.agent.advice()
    assert ("after a reboot" in what, command) == (True, "llmd-ctl start")


def test_linked_file_is_replaced_by_a_real_one(desk):
    at = desk()
    at.agent.path.parent.mkdir(parents=True)
    elsewhere = at.home / "elsewhere.plist"
    elsewhere.write_text(render(at.definition))
    at.agent.path.symlink_to(elsewhere)
    at.install()
    assert not at.agent.path.is_symlink()


def test_job_does_not_unload_itself(desk):
    at = desk(loaded=[GUI])
    at.launchctl.loaded[GUI] = RUNNING.replace("pid = 4711", f"pid = {os.getpid()}")
    with pytest.raises(ServiceError, match="cannot unload itself"):
        at.agent.stop()
    assert at.launchctl.changes() == []


def test_directory_that_cannot_be_made_is_explained(desk):
    at = desk()
    (at.home / "state").write_text("in the way")
    with pytest.raises(ServiceError, match=r"cannot make .*/state"):
        at.install()


# --- the other commands ------------------------------------------------------------------------


def test_uninstall_leaves_both_domains_and_removes_the_file(desk):
    at = desk(loaded=[GUI, USER])
    at.agent.path.parent.mkdir(parents=True)
    at.agent.path.write_text("")
    assert at.agent.uninstall() == [
        f"unloaded dev.llmd of {GUI}",
        f"unloaded dev.llmd of {USER}",
        f"removed {at.agent.path}",
    ]
    assert at.launchctl.loaded == {}
    assert not at.agent.path.exists()


def test_uninstall_of_nothing_does_nothing(desk):
    at = desk()
    assert at.agent.uninstall() == []
    assert at.launchctl.changes() == []


@pytest.mark.parametrize("code", [3, 113])
def test_job_that_was_gone_meanwhile_counts_as_unloaded(desk, code):
    at = desk(loaded=[GUI])
    at.launchctl.answers["print"] = [Ran(0, RUNNING), fails(113)]
    at.launchctl.answers["bootout"] = [fails(code)]
    assert at.agent.stop() == [f"unloaded dev.llmd of {GUI}"]


def test_bootout_that_fails_for_good_is_reported(desk):
    at = desk(loaded=[GUI])
    at.launchctl.answers["bootout"] = [fails(150)]
    with pytest.raises(ServiceError, match="System Integrity Protection"):
        at.agent.stop()


def test_stop_then_start_loads_it_again(desk):
    at = desk()
    at.install()
    at.agent.stop()
    assert at.launchctl.loaded == {}
    assert at.agent.path.exists()
    assert at.agent.start() == [f"loaded dev.llmd in {GUI}"]


def test_start_of_what_runs_says_so(desk):
    at = desk(loaded=[GUI])
    assert at.agent.start() == [f"dev.llmd is loaded in {GUI} and runs (pid 4711)"]


def test_start_without_a_login_needs_an_agent_that_loads_there(desk):
    at = desk(domain=USER)
    at.agent.path.parent.mkdir(parents=True)
    at.agent.path.write_text(render(at.definition))
    with pytest.raises(ServiceError, match="for a login at the screen") as caught:
        at.agent.start()
    assert caught.value.remedy == "llmd-ctl install"


def test_state_is_what_launchd_says(desk):
    state = desk(loaded=[GUI]).agent.state()
    assert (state.places, state.pid, state.failure) == ((GUI,), 4711, "")
    assert (state.stop_limit_s, state.scheduling) == (60.0, "interactive (4)")


def test_state_says_why_it_is_down(desk):
    at = desk(starts=False)
    at.launchctl(["launchctl", "bootstrap", "gui/501", "x"], 1)
    state = at.agent.state()
    assert state.pid is None
    assert "could not be started" in state.failure
    assert state.stop_limit_s == 5.0


def test_state_of_what_is_not_loaded_is_empty(desk):
    state = desk().agent.state()
    assert (state.places, state.pid, state.failure, state.stop_limit_s) == ((), None, "", None)


def test_installed_is_what_the_file_says(desk):
    at = desk()
    assert at.agent.installed() is None
    at.install()
    assert at.agent.installed() == at.definition
    assert at.agent.is_current(at.definition)
    assert not at.agent.is_current(replace(at.definition, ports=(1,)))


def test_last_words_are_those_of_the_service_log(desk):
    at = desk()
    at.install()
    assert at.agent.log_lines(2) == []
    (at.home / "log" / "service.log").write_text("a\nb\nc\n")
    assert at.agent.log_lines(2) == ["b", "c"]


@pytest.mark.parametrize(
    ("environ", "who", "domain"),
    [
        pytest.param({}, (501, 501, 501), "gui/501", id="at the screen"),
        pytest.param({}, (501, 501, None), "gui/501", id="nobody can tell who is at the screen"),
        pytest.param({"SSH_TTY": "/dev/ttys0"}, (501, 501, 501), "gui/501", id="SSH, logged in"),
        pytest.param({"SSH_TTY": "/dev/ttys0"}, (501, 501, 0), "user/501", id="SSH, nobody there"),
        pytest.param({"SSH_CONNECTION": "a b"}, (501, 501, 502), "user/501", id="SSH, another"),
        pytest.param({"SUDO_USER": "bob"}, (501, 501, 501), "user/501", id="sudo to a user"),
        pytest.param({}, (502, 501, 501), "user/501", id="effective user differs"),
    ],
)
def test_domain_is_chosen(environ, who, domain):
    uid, euid, console = who
    assert choose_domain(environ, uid=uid, euid=euid, console_uid=console) == domain


def test_root_has_no_agent():
    with pytest.raises(ServiceError, match="this is root"):
        choose_domain({}, uid=0, euid=0, console_uid=501)
