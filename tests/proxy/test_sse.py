from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmd.proxy.sse import EventStream, comment


ENDS = (b"\n\n", b"\r\n\r\n", b"\r\r")

events = st.lists(
    st.tuples(
        st.sampled_from(
            [b"data: {}", b"data: a\ndata: b", b": c", b"event: x\r\ndata: 1", b"id: 7"]
        ),
        st.sampled_from(ENDS[:2]),
    ).map(b"".join),
    max_size=6,
)
places = st.lists(st.floats(0, 1), max_size=8)


def cut(data, where):
    marks = sorted({round(place * len(data)) for place in where} | {0, len(data)})
    return [data[a:b] for a, b in pairwise(marks)]


@given(events, st.sampled_from([b"", b"data: unfinished", b"data: [DONE]"]), places)
def test_stream_arrives_byte_for_byte_in_whole_events(whole, rest, where):
    stream, out = EventStream(1000), b""

    for piece in cut(b"".join(whole) + rest, where):
        passed = stream.feed(piece)
        assert not passed or passed.endswith(ENDS)
        assert stream.between_events
        out += passed

    assert out == b"".join(whole)
    assert stream.rest() == rest


@given(events, places)
def test_stream_with_nothing_held_back_arrives_too(whole, where):
    data = b"".join(whole)
    stream = EventStream(3)

    out = b"".join(map(stream.feed, cut(data, where))) + stream.rest()

    assert out == data


@given(
    events,
    st.sampled_from([b"", b"data: [DONE]\n\n", b"data:[DONE]\r\n\r\n", b'data: "[DONE]"\n\n']),
    places,
    st.sampled_from([0, 3, 8, 1000]),
)
def test_done_is_seen_however_it_is_cut(whole, last, where, hold_bytes):
    data = b"".join(whole) + last
    done = b": [" in last or b":[" in last
    stream = EventStream(hold_bytes)

    for piece in cut(data, where):
        stream.feed(piece)
    stream.rest()

    assert stream.done is done


@pytest.mark.parametrize(
    ("data", "done"),
    [
        (b"data: [DONE]\n\n", True),
        (b"data:[DONE]\r\n\r\n", True),
        (b"data: {}\n\ndata: [DONE]\n", True),
        (b"data: {}\n\ndata: [DONE]", True),
        (b'data: {"content":"data: [DONE]"}\n\n', False),
        (b'data: "[DONE]"\n\n', False),
        (b"data: [DONE]\n\ndata: {}\n\n", False),
        (b": data: [DONE]\n\n", False),
        (b"", False),
    ],
)
def test_only_a_last_line_of_its_own_counts_as_done(data, done):
    stream = EventStream(1000)
    stream.feed(data)
    stream.rest()

    assert stream.done is done


def test_huge_event_passes_in_pieces_and_no_comment_fits_in():
    stream = EventStream(10)

    assert stream.feed(b"data: 123456789") == b"data: 123456789"
    assert not stream.between_events
    assert stream.feed(b"0\n\n") == b"0\n\n"
    assert stream.between_events


def test_huge_event_that_looks_like_done_in_the_middle_is_not():
    stream = EventStream(10)

    stream.feed(b'data: {"content": "')
    stream.feed(b"data: [DONE]")

    assert not stream.done


def test_gap_within_an_event_ends_it_first():
    stream = EventStream(5)
    stream.feed(b"data: 12345")

    assert stream.gap() == b"\n\n"


def test_gap_drops_what_was_held_back():
    stream = EventStream(100)
    stream.feed(b"data: 12345")

    assert stream.gap() == b""
    assert stream.rest() == b""


def test_comment_is_one_line_whatever_its_text():
    assert comment("loading code,\n\ndata: 40 %") == b": loading code, data: 40 %\n\n"
    assert comment("") == b":\n\n"
