import json
import stat

import pytest

from llmd.core.footprint import Footprint
from llmd.runtime.learned import MARKS_MAX, Learned, charge


ESTIMATE = Footprint(
    weights_bytes=100, cache_bytes=40, prompt_cache_bytes=20, compute_bytes=30, runtime_bytes=10
)
"""200 in all; 170 without the guess for compute buffers."""

CHARGES = [
    pytest.param(0, 200, id="never run: the estimate"),
    pytest.param(110, 200, id="short questions only: the estimate"),
    pytest.param(169, 200, id="caches nearly full: the estimate"),
    pytest.param(170, 170, id="caches full: what was seen"),
    pytest.param(185, 185, id="buffers smaller than guessed: what was seen"),
    pytest.param(260, 260, id="more than guessed: what was seen"),
    pytest.param(5000, 300, id="a leak: at most half as much again as the estimate"),
]


@pytest.mark.parametrize(("mark", "expected"), CHARGES)
def test_charge(mark, expected):
    assert charge(ESTIMATE, mark) == expected


@pytest.fixture
def file(tmp_path):
    return tmp_path / "state" / "learned.json"


def test_marks_survive_a_restart(file):
    learned = Learned.load(file)
    assert learned.record("a", 180)
    learned.save()
    again = Learned.load(file)
    assert (again.warning, again.mark("a"), again.footprint("a", ESTIMATE)) == (None, 180, 180)


def test_the_file_is_private(file):
    Learned.load(file).save()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    assert [entry.name for entry in file.parent.iterdir()] == [file.name]


def test_the_highest_mark_stays(file):
    learned = Learned.load(file)
    assert learned.record("a", 180)
    assert not learned.record("a", 120)
    assert learned.mark("a") == 180


def test_an_unknown_name_has_no_mark(file):
    assert Learned.load(file).footprint("b", ESTIMATE) == 200


def test_the_longest_unused_are_forgotten(file):
    learned = Learned.load(file)
    for number in range(MARKS_MAX):
        learned.record(f"m{number}", 1)
    learned.record("m0", 1)
    learned.record("new", 1)
    assert learned.mark("m0") == 1
    assert learned.mark("m1") == 0
    learned.save()
    assert Learned.load(file).mark("m0") == 1


DAMAGE = [
    pytest.param("", id="empty"),
    pytest.param('{"version": 1, "marks": {"a"', id="cut off"),
    pytest.param("[" * 100_000, id="brackets"),
    pytest.param("[]", id="a list"),
    pytest.param('{"version": 2, "marks": {}}', id="another version"),
    pytest.param('{"version": 1, "marks": {"a": -1}}', id="a negative mark"),
    pytest.param('{"version": 1, "marks": {"a": "1"}}', id="a mark as text"),
    pytest.param('{"version": 1, "marks": {"a": 1e400}}', id="an infinite mark"),
    pytest.param(" " * 2**21, id="too large"),
]


@pytest.mark.parametrize("content", DAMAGE)
def test_a_damaged_file_is_set_aside_and_nothing_stops(file, content):
    file.parent.mkdir()
    file.write_text(content)
    learned = Learned.load(file)
    assert learned.warning == (
        f"{file} was damaged and is now learned.json.damaged; footprints are learned anew"
    )
    assert not file.exists()
    assert file.with_name("learned.json.damaged").read_text() == content
    learned.record("a", 180)
    learned.save()
    assert json.loads(file.read_text())["marks"] == {"a": 180}


def test_what_cannot_be_read_is_a_warning(tmp_path):
    (tmp_path / "marks").mkdir()
    learned = Learned.load(tmp_path / "marks")
    assert "cannot be read (Is a directory) and is now marks.damaged" in learned.warning


def test_what_cannot_be_written_leaves_the_old_file(file, monkeypatch):
    learned = Learned.load(file)
    learned.record("a", 180)
    learned.save()
    monkeypatch.setattr("pathlib.Path.replace", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        learned.save()
    assert [entry.name for entry in file.parent.iterdir()] == [file.name]
    assert Learned.load(file).mark("a") == 180
