"""What README.md says of the tests is true of them."""

import re

import pytest

from tests.conftest import ROOT


TABLE = "### What goes wrong elsewhere"
ROW = re.compile(r"^\| (\d+) \|.*\| ([^|]*) \|$", re.MULTILINE)


def rows():
    """The number of each failure, and the files that are named for it."""
    section = (ROOT / "README.md").read_text().partition(TABLE)[2].partition("\n## ")[0]
    found = ROW.findall(section)
    return [(int(number), re.findall(r"`([^`]+\.py)`", cell)) for number, cell in found]


def test_every_failure_has_its_row():
    assert [number for number, _ in rows()] == list(range(1, 21))


@pytest.mark.parametrize(("number", "files"), rows(), ids=str)
def test_tests_that_are_named_for_a_failure_exist(number, files):
    assert files
    for name in files:
        text = (ROOT / "tests" / name).read_text()
        assert re.search(r"^(?:async )?def test_", text, re.MULTILINE), f"no tests in {name}"
        if name.startswith("faults/"):
            assert re.search(rf"Failures?\b[^\n]*\b{number}\b", text), f"{number} not in {name}"
