"""When a host is held to hang: tables of looks, two seconds apart."""

import pytest

from llmd.core.stall import FRUITLESS_TIMES, LOOK_MAX_S, Patience, Signs


TIMEOUT_S = 20.0
ROUND_S = 2.0
BUSY = 1.0  # of a processor


class Watched:
    """A host whose signs are set, and which is looked at."""

    def __init__(self):
        self.patience = Patience()
        self.now = 100.0
        self.cpu_s = 0.0
        self.tokens = 0

    def look(self, *, cpu=0.0, after_s=ROUND_S, token=False, **signs):
        self.now += after_s
        self.cpu_s += cpu * after_s
        self.tokens += token
        seen = {"working": True, "owing": False, "telling": True, **signs}
        return self.patience.look(
            Signs(progress=str(self.tokens), cpu_s=self.cpu_s, **seen),
            self.now,
            timeout_s=TIMEOUT_S,
        )

    def until_stalled(self, *, most_s=1_000.0, **signs):
        """Seconds until the verdict, and the verdict; None if there is none."""
        self.look(**signs)
        began = self.now
        while self.now - began < most_s:
            stall = self.look(**signs)
            if stall is not None:
                return self.now - began, stall
        return None


@pytest.mark.parametrize(
    ("signs", "after_s"),
    [
        pytest.param({}, TIMEOUT_S, id="work without a token, the control socket answers"),
        pytest.param({"owing": True}, TIMEOUT_S, id="stopped in the middle of its work"),
        pytest.param({"owing": True, "working": False}, TIMEOUT_S, id="stopped while idle"),
        pytest.param({"telling": False}, TIMEOUT_S, id="nothing sent, and no time used"),
        pytest.param({"cpu": 0.003}, TIMEOUT_S, id="timers are no work"),
        pytest.param({"cpu": BUSY}, FRUITLESS_TIMES * TIMEOUT_S, id="turns in circles"),
        pytest.param(
            {"cpu": BUSY, "owing": True, "working": False, "telling": True},
            FRUITLESS_TIMES * TIMEOUT_S,
            id="idle, busy and deaf",
        ),
        pytest.param({"token": True}, None, id="tokens"),
        pytest.param({"token": True, "owing": True}, None, id="tokens, though it does not answer"),
        pytest.param(
            {"cpu": BUSY, "telling": False}, None, id="a server that computes and says no"
        ),
        pytest.param({"working": False}, None, id="idle"),
        pytest.param({"working": False, "cpu": BUSY}, None, id="idle, and tidying up"),
    ],
)
def test_host_hangs_when_nothing_moves_for_long_enough(signs, after_s):
    found = Watched().until_stalled(**signs)
    assert (found and found[0]) == after_s


def test_slow_prefill_is_no_hang():
    """A piece of a prompt every 18 seconds, on a GPU: hardly any processor time."""
    host = Watched()
    for n in range(1_000):
        assert host.look(token=n % 9 == 0) is None


def test_piece_of_a_prompt_on_a_slow_processor_is_no_hang():
    host = Watched()
    for n in range(1_000):
        assert host.look(cpu=BUSY, token=n % 45 == 0) is None


def test_one_look_vouches_for_a_few_seconds_only():
    """The daemon was stopped, or the machine slept on a clock that does not show it."""
    host = Watched()
    host.look()
    assert host.look(after_s=3_600.0) is None
    assert host.look() is None
    found = host.until_stalled()
    assert TIMEOUT_S - 2 * LOOK_MAX_S <= found[0] <= TIMEOUT_S


def test_clock_that_goes_back_hurts_nobody():
    host = Watched()
    host.look()
    assert host.look(after_s=-50.0) is None
    assert host.until_stalled()[0] == TIMEOUT_S - ROUND_S


def test_clients_that_give_up_and_ask_again_do_not_save_a_host_that_hangs():
    host = Watched()
    host.look(token=True)
    looks = 0
    while host.look(working=looks % 4 != 3) is None:
        looks += 1
        assert looks < 20
    assert looks >= TIMEOUT_S / ROUND_S


def test_long_rest_forgives():
    host = Watched()
    for _ in range(9):
        assert host.look() is None
    for _ in range(11):
        assert host.look(working=False) is None
    assert host.until_stalled()[0] == TIMEOUT_S - ROUND_S


def test_two_short_rests_are_no_long_one():
    host = Watched()
    host.look()
    looks = [host.look(working=n % 7 < 2) for n in range(40)]
    assert any(looks), "it was silent for more than 20 seconds of work"


def test_late_answer_of_an_idle_host_forgives():
    host = Watched()
    for _ in range(9):
        assert host.look(owing=True, working=False) is None
    assert host.look(working=False) is None
    assert host.until_stalled(owing=True, working=False)[0] == TIMEOUT_S - ROUND_S


def test_answer_without_progress_does_not_forgive_one_that_works():
    host = Watched()
    assert host.until_stalled(owing=True)[0] == TIMEOUT_S
    host = Watched()
    host.look()
    found = [host.look(owing=n % 2 == 0) for n in range(10)]
    assert found[-1] is not None


def test_doubt_begins_with_the_first_look_that_found_nothing():
    host = Watched()
    host.look()
    assert not host.patience.doubtful
    host.look()
    assert host.patience.doubtful
    host.look(token=True)
    assert not host.patience.doubtful


@pytest.mark.parametrize(
    ("signs", "words"),
    [
        ({}, "it stopped answering: no token and no work for 20 s"),
        ({"owing": True}, "for 20 s, silent on its control socket, too"),
        (
            {"owing": True, "working": False},
            "it stopped answering: silent on its control socket for 20 s",
        ),
        ({"cpu": BUSY}, "it turned in circles: busy for 100 s without a token"),
    ],
)
def test_verdict_says_what_was_missed_and_how_long(signs, words):
    _, stall = Watched().until_stalled(**signs)
    assert words in stall.words
