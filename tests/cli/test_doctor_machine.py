"""`llmd-ctl doctor` beyond the service: the daemon, weights, engines and the machine."""

import inspect
import tomllib
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from llmd.admin import wire
from llmd.cli import daemon_checks, machine_checks, model_checks
from llmd.cli.findings import Examined
from llmd.config.load import load_config
from llmd.platform.definition import ServiceState
from llmd.platform.machine import Machine
from llmd.platform.slowness import Power
from llmd.platform.systemd_units import UserUnits
from tests.cli.fake_machine import GIB, FakeMachine
from tests.cli.on_disk import write_large
from tests.conftest import ROOT
from tests.platform.fake_managers import FakeSystemctl
from tests.weights.making import write_gguf, write_mlx


CHECKS = (*daemon_checks.CHECKS, *model_checks.CHECKS, *machine_checks.CHECKS)
CONFIG = """\
budget: 4GiB
gateway: {port: 8080}
models_dirs: [models]
profiles:
  code: {engine: mlx, model: Coder-4bit, port: 8081}
  raw: {engine: llama.cpp, model: Raw-Q8_0.gguf, port: 8083}
"""


@pytest.fixture
def seen(home):
    """A machine on which all is well."""
    write_mlx(home / "models" / "Coder-4bit")
    write_gguf(home / "models" / "Raw-Q8_0.gguf")
    return examined(home, CONFIG)


def examined(home, text):
    file = home / "llmd.yaml"
    file.write_text(text)
    status = wire.Status(
        version="0.1.0",
        pid=4711,
        uptime_s=1.0,
        budget=wire.Budget(total_bytes=4 * GIB, used_bytes=0, free_bytes=4 * GIB, peak_bytes=0),
        ports=(wire.Port(port=8081, profile=None, state="unloaded"),),
        profiles=(profile(),),
        config_path=str(file),
    )
    return Examined(
        config_file=file,
        config=load_config(file),
        config_error=("", ""),
        service=UserUnits(home, runner=FakeSystemctl()),
        installed=None,
        state=ServiceState(),
        state_error=("", ""),
        status=status,
        machine=FakeMachine(),
    )


def profile(**fields):
    return wire.Profile(
        **{"name": "code", "engine": "mlx", "port": 8081, "state": "ready"} | fields
    )


def status(seen, **changes):
    return replace(seen, status=msgspec.structs.replace(seen.status, **changes))


def machine(seen, **fields):
    return replace(seen, machine=FakeMachine(**fields))


def taken(seen, error="x"):
    port = wire.Port(port=8081, profile=None, state="unloaded", error=error)
    return status(seen, ports=(port,))


def down(seen):
    return replace(seen, status=None)


def findings(seen):
    return [finding for check in CHECKS for finding in check(seen)]


def test_healthy_machine_has_no_findings(seen):
    assert findings(seen) == []


def test_fake_machine_answers_what_the_real_one_is_asked():
    questions = {n for n, f in inspect.getmembers(Machine, inspect.isfunction) if n[0] != "_"}
    assert questions <= set(dir(FakeMachine))


@pytest.mark.parametrize(
    ("change", "what", "why", "remedy", "serious"),
    [
        pytest.param(
            down, "no llmd is running", "is refused", "llmd-ctl install, or llmd serve", True,
            id="no daemon",
        ),
        pytest.param(
            lambda s: status(s, version="0.0.9"), "the daemon is of another version",
            "it is 0.0.9, and llmd-ctl is 0.1.0", "llmd-ctl restart", False, id="old daemon",
        ),
        pytest.param(
            lambda s: status(s, config_error="f:3: bad"),
            "the daemon uses an older configuration than its file", "f:3: bad",
            "llmd-ctl config check, then llmd-ctl reload", True, id="stale configuration",
        ),
        pytest.param(
            lambda s: status(s, config_path="/other.yaml"),
            "the daemon uses another configuration", "it uses /other.yaml",
            "llmd-ctl doctor --config /other.yaml", False, id="other configuration",
        ),
        pytest.param(
            lambda s: replace(taken(s), machine=FakeMachine(who={8081: ("nginx", 99)})),
            "port 8081 is in use by another program", "x", "kill 99, or choose another port",
            True, id="port in use, says the daemon",
        ),
        pytest.param(
            lambda s: replace(taken(s), machine=FakeMachine(who={8081: ("python3.12", 99)},
                                                            brew={"mlx-lm"})),
            "port 8081 is in use by another program", "homebrew.mxcl.mlx-lm",
            "brew services stop mlx-lm", True, id="Homebrew's mlx_lm.server",
        ),
        pytest.param(
            lambda s: replace(taken(s, "in use"), machine=FakeMachine()),
            "port 8081 is in use by another program", "in use",
            "sudo lsof -nP -iTCP:8081 -sTCP:LISTEN", True, id="port in use by who knows whom",
        ),
        pytest.param(
            lambda s: status(s, profiles=(profile(queued=3, sequences=1),)),
            "code serves one request at a time", "3 requests wait for it on port 8081",
            "raise `parallel` of code in ", False, id="one sequence and a queue",
        ),
        pytest.param(
            lambda s: machine(s, translated=True), "llmd runs under Rosetta", "a Python for Intel",
            "install Python for arm64", True, id="Rosetta",
        ),
        pytest.param(
            lambda s: machine(s, short="all tasks waited"), "memory is short", "all tasks waited",
            "close other programs, or lower `budget`", False, id="memory pressure",
        ),
        pytest.param(
            lambda s: status(
                machine(s, short="macOS warns"),
                profiles=(profile(footprint_bytes=1, idle_s=9.0),
                          profile(name="old", footprint_bytes=1, idle_s=99.0),
                          profile(name="gone", idle_s=999.0)),
            ),
            "memory is short", "macOS warns", "llmd-ctl unload old", False,
            id="memory pressure with idle residents",
        ),
        pytest.param(
            lambda s: machine(s, swaps=50.0 * 2**20), "the machine swaps", "50 MiB each second",
            "if it goes on, lower `budget`", True, id="swapping",
        ),
        pytest.param(
            lambda s: machine(s, gpu_limit=2 * GIB), "the budget is more than the GPU may use",
            "4 GiB of 2 GiB", "sudo sysctl iogpu.wired_limit_mb=4096", True, id="GPU limit",
        ),
        pytest.param(
            lambda s: machine(s, total=2 * GIB), "the budget is more than the memory there is",
            "4 GiB of 2 GiB", "`budget: auto` in", True, id="more than there is",
        ),
        pytest.param(
            lambda s: machine(s, held_back=Power(saves=True)), "Low Power Mode is on", "slower",
            "sudo pmset -a lowpowermode 0", False, id="Low Power Mode",
        ),
        pytest.param(
            lambda s: machine(s, held_back=Power(speed_percent=62)), "the machine is hot",
            "it runs at 62 % of its speed", "let it cool", False, id="hot",
        ),
        pytest.param(
            lambda s: machine(s, nice=10), "llmd runs with low priority", "its niceness is 10",
            "sudo renice -n 0 -p 4711", False, id="nice",
        ),
        pytest.param(
            lambda s: machine(s, free=GIB), "a disk is nearly full", "1 GiB are free where logs",
            "make room on that disk", False, id="disk nearly full",
        ),
        pytest.param(
            lambda s: machine(s, free=2**20), "a disk is nearly full", "1 MiB are free",
            "make room on that disk", True, id="disk full",
        ),
        pytest.param(
            lambda s: machine(s, packages={"xllamacpp": "2026.10"}), "mlx-lm is not installed",
            "cannot import it", "-m pip install 'mlx-lm>=0.32,<0.33'", True, id="no engine",
        ),
        pytest.param(
            lambda s: machine(s, packages={"mlx-lm": "0.9.1"}), "mlx-lm is too old",
            "it is 0.9.1, and llmd needs 0.32", "-m pip install", True, id="old engine",
        ),
        pytest.param(
            lambda s: machine(s, packages={"mlx-lm": "0.33.0"}), "mlx-lm is newer than llmd",
            "it is 0.33.0", "-m pip install", False, id="engine newer than llmd",
        ),
        pytest.param(
            lambda s: machine(s, help=None, packages={"mlx-lm": "0.32.2"}),
            "xllamacpp is not installed", "cannot import it", "'xllamacpp>=2026.10'", True,
            id="no llama.cpp at all",
        ),
        pytest.param(
            lambda s: machine(s, help="--slots --reasoning-format"), "llama-server is too old",
            "it does not know --cache-ram", "brew upgrade llama.cpp", True, id="old llama-server",
        ),
    ],
)  # fmt: skip
def test_what_is_wrong_is_found_with_its_remedy(seen, change, what, why, remedy, serious):
    [finding] = findings(change(seen))
    assert finding.what == what
    assert why in finding.why
    assert remedy in finding.remedy
    assert finding.serious == serious


# --- ports while no daemon runs -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "found"),
    [
        pytest.param({"who": {8083: ("nginx", 99)}}, ["kill 99, or choose"], id="known"),
        pytest.param({"taken": {8080}}, ["sudo lsof -nP -iTCP:8080"], id="another user's"),
        pytest.param({"who": {8081: ("systemd", 1)}}, [], id="held for llmd"),
        pytest.param(
            {"who": {8080: ("ControlCenter", 5)}}, ["System Settings, General"], id="AirPlay"
        ),
        pytest.param({"who": {8081: ("ollama", 5)}}, ["quit Ollama (kill 5)"], id="Ollama"),
    ],
)
def test_ports_are_looked_at_also_without_a_daemon(seen, fields, found):
    remedies = [f.remedy for f in daemon_checks.ports_are_free(down(machine(seen, **fields)))]
    assert len(remedies) == len(found)
    assert all(remedy.startswith(begin) for remedy, begin in zip(remedies, found, strict=True))


# --- weights and folders ------------------------------------------------------------------------


def test_weights_that_are_not_there_are_told_with_the_nearest_name(seen, home):
    text = CONFIG.replace("Coder-4bit", "Codr-4bit").replace("Raw-Q8_0.gguf", "Raw-Q4_0.gguf")
    code, raw = model_checks.weights_are_there(examined(home, text))
    assert (code.what, code.serious) == ("code has no weights it can load", True)
    assert code.remedy.startswith("did you mean org/Coder-4bit?")
    assert raw.remedy.startswith("did you mean Raw-Q8_0.gguf")


def test_weights_that_are_cut_off_are_told(seen, home):
    file = home / "models" / "Raw-Q8_0.gguf"
    file.write_bytes(file.read_bytes()[:-100])
    [finding] = model_checks.weights_are_there(seen)
    assert "is cut off" in finding.why


def test_profile_that_exceeds_the_budget_is_told_with_the_context_that_fits(seen, home):
    write_large(home / "models" / "Large")
    seen = examined(home, CONFIG.replace("Coder-4bit", "Large"))
    for each in (seen, down(seen)):
        [finding] = model_checks.weights_are_there(each)
        assert finding.what == "code can never be loaded"
        context = int(finding.remedy.split("`context: ")[1].split("`")[0])
        assert 256 <= context < 32768
    smaller = CONFIG.replace("Coder-4bit,", f"Large, context: {context},")
    assert list(model_checks.weights_are_there(examined(home, smaller))) == []


@pytest.mark.parametrize(
    ("why", "says", "remedy", "serious"),
    [
        ("EPERM", "macOS protects it", "Full Disk Access", True),
        ("EACCES", "its mode forbids it", "chmod u+rx", True),
        ("hangs", "its server is gone, or macOS asks", "df ", True),
        ("ENOENT", "`models_dirs` names it", "mkdir -p", False),
        ("EIO", "EIO", "ls -ld", True),
    ],
)
def test_folder_that_cannot_be_read_is_told(seen, home, why, says, remedy, serious):
    folder = str(home / "models")
    [finding] = model_checks.directories_can_be_read(machine(seen, unreadable={folder: why}))
    assert folder in finding.what
    assert says in finding.why
    assert remedy in finding.remedy
    assert finding.serious == serious


def test_folders_that_nobody_named_need_not_exist(seen, home):
    seen = examined(home, CONFIG.replace("models_dirs: [models]\n", ""))
    missing = {str(home / ".lmstudio" / "models"): "ENOENT", str(home / "hub"): "ENOENT"}
    assert list(model_checks.directories_can_be_read(machine(seen, unreadable=missing))) == []


def test_runner_that_is_named_is_what_must_be_there(seen, home):
    text = CONFIG.replace("port: 8083", "port: 8083, runner: llama-cpp-python")
    named = examined(home, text)
    [finding] = model_checks.engines_are_there(machine(named, packages={"mlx-lm": "0.32"}))
    assert finding.what == "llama-cpp-python is not installed"
    named = examined(home, text.replace("llama-cpp-python", "llama-server"))
    [finding] = model_checks.engines_are_there(machine(named, help=None))
    assert finding.remedy == "brew install llama.cpp"


def test_versions_that_are_asked_for_are_those_of_the_project():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    written = [*project["dependencies"], *project["optional-dependencies"]["llama-cpp-python"]]
    for package, (least, below) in model_checks.NEEDED.items():
        [line] = [w for w in written if w.split(">")[0].split("[")[0] == package]
        assert line.endswith(f">={least}" + (f",<{below}" if below else ""))


def test_one_sequence_is_explained_by_what_causes_it(seen, home):
    text = CONFIG.replace("port: 8083", "port: 8083, runner: llama-cpp-python")
    seen = status(examined(home, text), profiles=(profile(name="raw", queued=1, sequences=1),))
    [finding] = daemon_checks.nobody_queues_for_one_sequence(seen)
    assert finding.remedy.startswith("take `runner: llama-cpp-python` out of raw")


def test_doctor_needs_no_configuration(seen):
    bad = replace(down(seen), config=None)
    assert [finding.what for finding in findings(bad)] == ["no llmd is running"]


# --- the real machine ---------------------------------------------------------------------------


def test_real_machine_answers_every_question(tmp_path):
    real = Machine()
    assert real.total_bytes() > 2**20
    assert real.swap_bytes_per_s() >= 0
    assert real.free_bytes(tmp_path / "not" / "there") > 0
    assert real.niceness(2**22 + 1) == 0
    assert real.why_unreadable(tmp_path) is None
    assert real.why_unreadable(tmp_path / "gone") == "ENOENT"
    assert real.help_of("no-such-program") is None
    assert not real.has_brew_service("mlx-lm")


def test_real_machine_knows_what_a_python_has(tmp_path):
    import sys

    found = Machine().versions(Path(sys.executable), ["mlx-lm", "no-such-package"])
    assert set(found) == {"mlx-lm"}
    assert Machine().versions(tmp_path / "python", ["mlx-lm"]) == {}
