"""`llmd-ctl fit`: the numbers, the verdict, and what else is resident."""

import json

import msgspec
import pytest

from llmd.cli.main import run
from llmd.config.load import load_config
from llmd.runtime.catalogue import Catalogue
from llmd.runtime.learned import Learned
from llmd.weights.shape import read_shape
from llmd.weights.sizing import Use, largest_context
from tests.admin.fake_operator import served
from tests.cli.on_disk import GIB, write_large


pytestmark = pytest.mark.usefixtures("home")


def fit(capsys, *args):
    """Exit status and document."""
    status = run(["fit", "--json", *args])
    return status, json.loads(capsys.readouterr().out)


def test_model_that_fits_says_what_it_needs_by_cause(capsys):
    assert run(["fit", "org/Coder-4bit"]) == 0
    answer, needs, causes, budget, largest = capsys.readouterr().out.splitlines()
    assert answer == "org/Coder-4bit fits"
    assert needs.endswith("for 2 x 4096 tokens")
    assert [cause.strip().split()[0] for cause in causes.split(",")] == [
        "weights", "cache", "prompt", "compute", "runtime",
    ]  # fmt: skip
    assert budget == "  budget 8 GiB"
    assert largest == "  largest context: 4096 tokens"


def test_model_that_does_not_fit_is_exit_status_1_with_the_context_that_would(home, capsys):
    path = write_large(home / "models" / "Large")
    status, verdict = fit(capsys, "Large", "--parallel", "4")
    assert (status, verdict["fits"]) == (1, False)
    assert verdict["reason"] == "it needs more than the whole budget"
    assert 0 < verdict["largest_context"] < 32768
    largest = str(verdict["largest_context"])
    assert fit(capsys, str(path), "--parallel", "4", "--context", largest)[0] == 0
    more = str(verdict["largest_context"] + 256)
    assert fit(capsys, str(path), "--parallel", "4", "--context", more)[0] == 1


def test_largest_context_of_what_fits_in_no_way_is_none(home, capsys):
    write_large(home / "models" / "Large")
    text = (home / "llmd.yaml").read_text().replace("8GiB", "64MiB").replace("3GiB", "4MiB")
    (home / "llmd.yaml").write_text(text)
    assert run(["fit", "Large"]) == 1
    assert "largest context: none" in capsys.readouterr().out


@pytest.mark.parametrize("room", [1 * GIB, 3 * GIB, 5 * GIB])
def test_largest_context_fits_and_the_next_step_does_not(home, room):
    use = Use(read_shape(write_large(home / "Large"), "mlx"))
    most = largest_context(use, room)

    def needs(tokens):
        return Use(use.shape, tokens).footprint().total_bytes

    assert needs(most) <= room < needs(most + 256)


def test_profile_is_judged_as_the_daemon_would_charge_it(home, capsys):
    catalogue = Catalogue.build(load_config(home / "llmd.yaml"), Learned(home / "learned.json"))
    for name in ("code", "twin"):
        _, verdict = fit(capsys, name)
        assert verdict["need_bytes"] == catalogue[name].residency.footprint_bytes
    assert verdict["context"] == 4096


def test_memory_of_a_profile_is_what_it_is_charged(capsys):
    status, verdict = fit(capsys, "raw")
    assert (status, verdict["need_bytes"], verdict["footprint"]) == (0, 3 * GIB, None)
    _, verdict = fit(capsys, "raw", "--context", "512")
    assert verdict["need_bytes"] < GIB  # it was asked about another way to run it


def test_daemon_is_asked_what_it_would_do_with_a_profile(home, capsys):
    with served(home / "s"):
        status, verdict = fit(capsys, "code", "--config", str(home / "llmd.yaml"))
        assert (status, verdict["need_bytes"]) == (0, 26 * GIB)
        assert verdict["evict"] == ["code"]
        status, verdict = fit(capsys, "raw", "--config", str(home / "llmd.yaml"))
    assert (status, verdict["fits"], verdict["reason"]) == (1, False, "backing off")


def test_other_weights_are_judged_beside_what_is_resident(home, capsys):
    large = write_large(home / "Large")
    config = str(home / "llmd.yaml")
    with served(home / "s") as daemon:
        assert run(["fit", str(large), "--config", config]) == 0
        assert "  beside code and chat\n" in capsys.readouterr().out
        status, verdict = fit(capsys, str(large), "--parallel", "6", "--config", config)
        assert (status, verdict["evict"]) == (0, ["code"])
        assert verdict["largest_beside"] < verdict["largest_context"]
        pinned = daemon.operator.by_name["code"]
        daemon.operator.by_name["code"] = msgspec.structs.replace(pinned, pinned=True)
        status, verdict = fit(capsys, str(large), "--parallel", "6", "--config", config)
    assert (status, verdict["reason"]) == (1, "pinned, and so never evicted: code and chat")


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("org/Codr-4bit", "did you mean org/Coder-4bit?"),
        ("rwa", "did you mean raw?"),
        ("zzzzzz", "llmd-ctl models lists what is there"),
        ("gone", "no weights for 'org/Gone'"),
        ("./llmd.yaml", "no profile and no model on disk"),
    ],
)
def test_what_is_not_there_is_one_line_with_the_nearest_name(capsys, what, said):
    assert run(["fit", what]) == 1
    err = capsys.readouterr().err
    assert said in err
    assert err.count("\n") == 1


def test_name_of_several_models_is_refused_with_their_names(home, capsys):
    write_large(home / "models" / "other" / "Coder-4bit")
    assert run(["fit", "Coder-4bit"]) == 1
    assert "may mean org/Coder-4bit and other/Coder-4bit; write" in capsys.readouterr().err
