"""The table of moves, walked."""

import pytest

from llmd.core.slot import (
    TRANSITIONS,
    IllegalTransitionError,
    Slot,
    SlotState,
    Trigger,
)


S, T = SlotState, Trigger


@pytest.mark.parametrize(
    ("triggers", "end"),
    [
        pytest.param([T.PROMISE, T.START, T.PROBE], S.READY, id="a load"),
        pytest.param([T.PROMISE, T.WITHDRAW], S.UNLOADED, id="a promise taken back"),
        pytest.param([T.PROMISE, T.START, T.EXIT], S.UNLOADED, id="a load that fails"),
        pytest.param([T.PROMISE, T.START, T.STOP, T.EXIT], S.UNLOADED, id="a load given up"),
        pytest.param([T.PROMISE, T.START, T.PROBE, T.DRAIN, T.RESUME], S.READY, id="a drain off"),
        pytest.param(
            [T.PROMISE, T.START, T.PROBE, T.DRAIN, T.STOP, T.EXIT, T.PROMISE],
            S.WAITING,
            id="switch",
        ),
        pytest.param(
            [T.PROMISE, T.START, T.PROBE, T.DRAIN, T.EXIT], S.UNLOADED, id="dies draining"
        ),
    ],
)
def test_path_ends_where_the_table_says(triggers, end):
    slot = Slot(8081)
    for trigger in triggers:
        slot.fire(trigger)
    assert slot.state is end


@pytest.mark.parametrize("state", S)
@pytest.mark.parametrize("trigger", T)
def test_move_without_a_row_raises_and_changes_nothing(state, trigger):
    slot = Slot(8081)
    slot._state = state
    if (state, trigger) in TRANSITIONS:
        slot.fire(trigger)
        assert slot.state is TRANSITIONS[state, trigger]
    else:
        with pytest.raises(IllegalTransitionError, match="8081"):
            slot.fire(trigger)
        assert slot.state is state


def test_every_state_can_be_left():
    assert {state for state, _ in TRANSITIONS} == set(S)
