from heapq import heappop, heappush
from math import inf

from hypothesis import given
from hypothesis import strategies as st

from llmd.proxy.deadlines import Alarm, Deadlines


class FakeTimer:
    def __init__(self):
        self.cancelled = False

    def cancel(self):
        self.cancelled = True


class FakeLoop:
    """A clock that moves when it is told to, and the timers on it."""

    def __init__(self):
        self.now_s = 0.0
        self.queue = []

    def time(self):
        return self.now_s

    def call_at(self, when_s, callback):
        timer = FakeTimer()
        heappush(self.queue, (when_s, len(self.queue), timer, callback))
        return timer

    @property
    def timers(self):
        return sum(not entry[2].cancelled for entry in self.queue)

    def advance(self, to_s):
        while self.queue and self.queue[0][0] <= to_s:
            when_s, _, timer, callback = heappop(self.queue)
            if not timer.cancelled:
                self.now_s = max(self.now_s, when_s)
                callback()
        self.now_s = to_s


def made():
    loop = FakeLoop()
    return loop, Deadlines(loop)


def test_alarm_rings_once_when_it_is_due():
    loop, deadlines = made()
    rung = []
    Alarm(deadlines, lambda: rung.append(loop.now_s)).set(5)

    loop.advance(20)

    assert rung == [5]
    assert loop.timers == 0
    assert not deadlines.timer_running


def test_alarm_put_off_rings_at_the_later_time_only():
    loop, deadlines = made()
    rung = []
    alarm = Alarm(deadlines, lambda: rung.append(loop.now_s))
    alarm.set(5)
    loop.advance(4)
    alarm.set(5)

    loop.advance(20)

    assert rung == [9]


def test_alarm_brought_forward_rings_earlier():
    loop, deadlines = made()
    rung = []
    alarm = Alarm(deadlines, lambda: rung.append(loop.now_s))
    alarm.set(50)
    alarm.set(5)

    loop.advance(100)

    assert rung == [5]


def test_cleared_alarm_does_not_ring():
    loop, deadlines = made()
    rung = []
    alarm = Alarm(deadlines, lambda: rung.append(1))
    alarm.set(5)
    alarm.clear()

    loop.advance(20)

    assert rung == []
    assert loop.timers == 0


def test_last_alarm_closed_stops_the_timer():
    loop, deadlines = made()
    first, second = (Alarm(deadlines, lambda: None) for _ in range(2))
    first.set(5)
    second.set(6)

    first.close()
    assert deadlines.timer_running
    second.close()

    assert not deadlines.timer_running
    assert loop.timers == 0


def test_alarm_closed_after_it_rang_leaves_no_timer_for_its_earlier_deadline():
    loop, deadlines = made()
    alarm = Alarm(deadlines, lambda: None)
    alarm.set(30)
    alarm.set(5)
    loop.advance(6)

    alarm.close()

    assert loop.timers == 0


def test_alarm_closed_by_an_earlier_one_does_not_ring():
    loop, deadlines = made()
    rung = []
    second = Alarm(deadlines, lambda: rung.append(2))
    first = Alarm(deadlines, second.close)
    first.set(5)
    second.set(5)

    loop.advance(10)

    assert rung == []


def test_alarm_set_again_while_ringing_rings_again():
    loop, deadlines = made()
    rung = []

    def ring():
        rung.append(loop.now_s)
        if len(rung) < 3:
            alarm.set(5)

    alarm = Alarm(deadlines, ring)
    alarm.set(5)

    loop.advance(100)

    assert rung == [5, 10, 15]


def test_many_closed_alarms_leave_no_heap_behind():
    _, deadlines = made()
    keep = Alarm(deadlines, lambda: None)
    keep.set(1000)

    for _ in range(10_000):
        alarm = Alarm(deadlines, lambda: None)
        alarm.set(75)
        alarm.close()

    assert len(deadlines._heap) < 200


@given(
    st.lists(
        st.tuples(
            st.integers(0, 3), st.sampled_from(["set", "clear", "close", "wait"]), st.integers(0, 9)
        ),
        max_size=40,
    )
)
def test_each_alarm_rings_exactly_when_it_was_last_set_to(steps):
    loop, deadlines = made()
    rung, expected, due = [], [], [inf] * 4
    alarms = [Alarm(deadlines, lambda n=n: rung.append((loop.now_s, n))) for n in range(4)]
    closed = set()
    for number, action, value in steps:
        if action == "wait":
            end_s = loop.now_s + value
            for n, when in enumerate(due):
                if when <= end_s:
                    expected.append((when, n))
                    due[n] = inf
            loop.advance(end_s)
        elif number in closed:
            continue
        elif action == "set":
            alarms[number].set(value)
            due[number] = loop.now_s + value
        else:
            due[number] = inf
            if action == "close":
                closed.add(number)
                alarms[number].close()
            else:
                alarms[number].clear()

    assert sorted(rung) == sorted(expected)
