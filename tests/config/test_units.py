import contextlib
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmd.config.units import (
    format_duration,
    format_size,
    parse_duration,
    parse_size,
)


@pytest.mark.parametrize(
    ("written", "count"),
    [
        pytest.param("48GiB", 48 * 2**30, id="binary gigabytes"),
        pytest.param("48G", 48 * 2**30, id="one letter is binary"),
        pytest.param("1.5 GB", 1_500_000_000, id="decimal gigabytes with a space"),
        pytest.param("512m", 512 * 2**20, id="lower case"),
        pytest.param("1024", 1024, id="digits as text"),
        pytest.param(1024, 1024, id="a number of bytes"),
        pytest.param("0.1KB", 100, id="a fraction comes out exact"),
        pytest.param(0, 0, id="nothing"),
    ],
)
def test_size_is_read(written, count):
    assert parse_size(written) == count


@pytest.mark.parametrize(
    ("written", "complaint"),
    [
        pytest.param(
            "48 gigs", "'48 gigs' is no size; write it like 48GiB or 800MB", id="unknown unit"
        ),
        pytest.param("", "'' is no size", id="empty"),
        pytest.param(True, "True is no size", id="a boolean is no number"),
        pytest.param(1.5, "1.5 is no size", id="a bare fraction has no unit"),
        pytest.param(math.nan, "nan is no size", id="not a number"),
        pytest.param(math.inf, "inf is no size", id="infinity"),
        pytest.param("nan", "'nan' is no size", id="not a number as text"),
        pytest.param(-1, "cannot be negative", id="negative"),
        pytest.param("-1GiB", "'-1GiB' is no size", id="negative as text"),
        pytest.param("2048TiB", "more than any machine has", id="more than a pebibyte"),
        pytest.param("9" * 30 + "GiB", "is no size", id="more digits than a number has"),
        pytest.param("x" * 500, "…", id="a long text is shortened"),
        pytest.param(["48GiB"], "is no size", id="a list"),
    ],
)
def test_nonsense_is_no_size(written, complaint):
    with pytest.raises(ValueError, match=complaint.replace("(", r"\(")) as caught:
        parse_size(written)
    assert len(str(caught.value)) < 160


@pytest.mark.parametrize(
    ("written", "seconds"),
    [
        pytest.param("30m", 1800.0, id="minutes"),
        pytest.param("1h30m", 5400.0, id="hours and minutes"),
        pytest.param("1 h 30 min", 5400.0, id="with spaces"),
        pytest.param("250ms", 0.25, id="milliseconds"),
        pytest.param("never", math.inf, id="never"),
        pytest.param("90", 90.0, id="digits as text are seconds"),
        pytest.param(2.5, 2.5, id="a number of seconds"),
        pytest.param(0, 0.0, id="at once"),
    ],
)
def test_duration_is_read(written, seconds):
    assert parse_duration(written) == seconds


@pytest.mark.parametrize(
    ("written", "complaint"),
    [
        pytest.param("soon", "'soon' is no duration; write it like 30m, 10s or 1h30m", id="a word"),
        pytest.param("10 years", "is no duration", id="unknown unit"),
        pytest.param("30m!", "is no duration", id="trailing mark"),
        pytest.param(math.nan, "nan is no duration", id="not a number"),
        pytest.param(True, "is no duration", id="a boolean"),
        pytest.param(-1, "cannot be negative", id="negative"),
        pytest.param("400d", "longer than a year", id="longer than a year"),
        pytest.param(None, "is no duration", id="nothing"),
    ],
)
def test_nonsense_is_no_duration(written, complaint):
    with pytest.raises(ValueError, match=complaint):
        parse_duration(written)


@given(st.integers(0, 2**50))
def test_a_written_size_reads_back_the_same(count):
    assert parse_size(format_size(count)) == count


@given(st.one_of(st.floats(0, 366 * 86400.0), st.integers(0, 366 * 86400), st.just(math.inf)))
def test_a_written_duration_reads_back_the_same(seconds):
    assert parse_duration(format_duration(float(seconds))) == seconds


@given(st.text(max_size=30))
def test_any_text_is_a_size_and_a_duration_or_refused(text):
    for parse in (parse_size, parse_duration):
        with contextlib.suppress(ValueError):
            assert parse(text) >= 0
