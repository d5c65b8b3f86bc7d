"""What is read out of `launchctl`: dumps with nested blocks, and exit statuses."""

import pytest

from llmd.platform.launchd_answers import JobState, explain, parse_print
from tests.platform.definitions import GOLDEN


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("running", JobState("running", 4711, 1, 60, "interactive (4)")),
        ("waiting", JobState("spawn scheduled", None, 78, 5, "background (5)")),
        ("new", JobState("not running", None, None, 60, "daemon (3)")),
    ],
)
def test_job_is_read_without_what_is_nested_in_it(name, expected):
    assert parse_print((GOLDEN / f"print-{name}.txt").read_text()) == expected


def test_what_is_repeated_counts_the_first_time():
    text = "gui/501/dev.llmd = {\n\tstate = running\n\tpid = 7\n\tstate = active\n\tpid = 8\n}\n"
    assert parse_print(text) == JobState("running", 7)


@pytest.mark.parametrize("text", ["", "}\n}\n", "gui/501/dev.llmd = {", "state = running\n"])
def test_dump_of_another_shape_tells_nothing_and_does_no_harm(text):
    assert parse_print(text) == JobState()


@pytest.mark.parametrize(
    ("code", "said"),
    [
        (113, "113: there is no such service in the domain"),
        (125, "125: the domain does not support this: it has no login at the screen"),
        (199, "199: see `launchctl error 199`"),
        (None, "launchctl did not answer in time"),
    ],
)
def test_exit_status_is_explained(code, said):
    assert explain(code) == said
