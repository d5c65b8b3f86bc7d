from llmd.proxy.states import TRANSITIONS, S, T


def test_every_state_but_done_has_a_way_to_done():
    reached = {S.DONE}
    while True:
        further = {source for (source, _), target in TRANSITIONS.items() if target in reached}
        if further <= reached:
            break
        reached |= further

    assert reached == set(S)


def test_every_state_is_reached_from_the_first():
    reached = {S.WAITING}
    while True:
        further = {target for (source, _), target in TRANSITIONS.items() if source in reached}
        if further <= reached:
            break
        reached |= further

    assert reached == set(S)


def test_done_is_final():
    assert not [source for source, _ in TRANSITIONS if source is S.DONE]


def test_client_may_leave_in_every_state_but_done():
    left = {source for source, trigger in TRANSITIONS if trigger is T.LEFT}

    assert left == set(S) - {S.DONE}
