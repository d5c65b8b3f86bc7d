"""Files that hold what no llmd wrote: a warning, the file set aside, and the daemon goes on."""

import json
import os

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from llmd.core.history import History
from llmd.platform.identity import boot_id
from llmd.runtime.statefile import FILE_MAX_BYTES
from tests.data.kinds import KINDS


STATE = ("ledger", "learned")
"""Of these the next write would replace what is there; a cache is read again."""

numbers = st.integers() | st.floats() | st.integers(min_value=-(10**400), max_value=10**400)
anything = st.recursive(
    st.none() | st.booleans() | numbers | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)
pasts = st.fixed_dictionaries(
    {"load_s": numbers | anything},
    optional={
        "loads": numbers, "requests": numbers, "used_s": numbers | anything, "visited_s": numbers,
        "visits": st.lists(numbers, min_size=4, max_size=4) | anything, "last_error": anything,
    },
)  # fmt: skip
hosts = st.fixed_dictionaries(
    {"pid": numbers, "started": numbers, "instance": st.text(), "log": st.text()},
    optional={"known": anything, "peak_bytes": numbers},
)
pages = st.fixed_dictionaries(
    {
        "version": st.just(1) | anything,
        "boot": st.just(boot_id()) | st.text(),
        "hosts": st.lists(hosts, max_size=2) | anything,
        "pins": st.dictionaries(st.text(), st.booleans()) | anything,
        "pasts": st.dictionaries(st.text(), pasts, max_size=2) | anything,
        "marks": st.dictionaries(st.text(), numbers) | anything,
        "shapes": st.dictionaries(st.text(), anything),
    }
)
contents = st.binary(max_size=200) | pages.map(lambda page: json.dumps(page).encode())


def past(**fields):
    page = {"version": 1, "boot": boot_id(), "hosts": [], "pins": {}, "pasts": {"a": fields}}
    return json.dumps(page).encode()


@pytest.mark.parametrize("kind", ["ledger", "learned", "shapes"])
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=100)
@given(content=contents)
@example(content=b"")
@example(content=b"\0" * 4096)  # what a power failure leaves
@example(content=b'{"version": 1, "marks": {"a')
@example(content=b"[" * 100_000)
@example(content=b'{"a":' * 100_000)
@example(content=b"\xff\xfe")
@example(content=b" " * (FILE_MAX_BYTES + 1))
@example(content=past(load_s=1.0, visits=[1e308] * 4, used_s=1e300))
@example(content=past(load_s=1e308, visits=[1.0], used_s=-1e308))
def test_whatever_is_in_a_file_is_used_or_set_aside(kind, content, tmp_path):
    path = tmp_path / "file"
    path.write_bytes(content)
    file = KINDS[kind](path)
    _, wrong = file.read()
    aside = path.with_name("file.damaged")
    assert (wrong is not None) == (not path.exists())
    if wrong:
        assert str(path) in wrong
        assert aside.read_bytes() == content
    file.write("last")
    assert file.read()[1] is None
    assert path.stat().st_mode & 0o777 == 0o600


@given(content=pages | st.just(json.loads(past(load_s=1.0, visits=[1e308] * 4, used_s=1e300))))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_is_believed_of_the_past_can_be_reckoned_with(content, tmp_path):
    from llmd.runtime.ledger import Ledger

    path = tmp_path / "file"
    path.write_text(json.dumps(content))
    for earlier in Ledger(path).read().stock.pasts.values():
        history = History.of(earlier)
        history.used(5.0)
        assert history.rate((0, 1, 2, 3), 6.0) >= 0


@pytest.mark.parametrize("kind", STATE)
def test_directory_in_the_place_of_a_file_is_set_aside(kind, tmp_path):
    (tmp_path / "file" / "inner").mkdir(parents=True)
    file = KINDS[kind](tmp_path / "file")
    assert "cannot be read (Is a directory) and is now file.damaged" in file.read()[1]
    file.write("last")
    assert file.read() == ("last", None)
    assert (tmp_path / "file.damaged" / "inner").is_dir()


@pytest.mark.parametrize("kind", STATE)
def test_pipe_in_the_place_of_a_file_holds_nobody_up(kind, tmp_path):
    os.mkfifo(tmp_path / "file")
    file = KINDS[kind](tmp_path / "file")
    assert "is now file.damaged" in file.read()[1]
    file.write("last")
    assert file.read() == ("last", None)


@pytest.mark.parametrize("kind", STATE)
def test_file_that_cannot_be_set_aside_says_so(kind, tmp_path):
    (tmp_path / "file").write_text("{")
    (tmp_path / "file.damaged").mkdir()
    assert (
        "was damaged, and cannot be set aside: Is a directory"
        in KINDS[kind](tmp_path / "file").read()[1]
    )


@pytest.mark.parametrize("kind", ["ledger", "learned", "shapes"])
def test_link_is_read_through_and_replaced_by_a_file_of_its_own(kind, tmp_path):
    KINDS[kind](tmp_path / "elsewhere").write("old")
    before = (tmp_path / "elsewhere").read_bytes()
    (tmp_path / "file").symlink_to("elsewhere")
    file = KINDS[kind](tmp_path / "file")
    assert file.read() == ("old", None)
    file.write("last")
    assert not (tmp_path / "file").is_symlink()
    assert (tmp_path / "elsewhere").read_bytes() == before
