"""Tokens per second, as the events of a stream show."""

import pytest

from llmd.proxy.rate import Rate


@pytest.mark.parametrize(
    ("pieces_s", "events", "told"),
    [
        pytest.param((10.0, 11.0, 12.0), 23, [("p", 10.0)], id="less the three that carry none"),
        pytest.param((10.0, 12.0), 15, [], id="too few to tell"),
        pytest.param((10.0,), 100, [], id="all at once"),
        pytest.param((), 100, [], id="none"),
    ],
)
def test_rate_is_told_of_streams_that_were_long_enough(pieces_s, events, told):
    rate, heard = Rate(), []
    for now in pieces_s:
        rate.piece(now)
    rate.tell("p", events, lambda *what: heard.append(what))
    assert heard == told
