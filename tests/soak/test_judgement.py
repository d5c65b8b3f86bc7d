from tests.soak.__main__ import judge
from tests.soak.gauges import Minute


def minutes(rss, *, pids=lambda _: {7}, latency_s=lambda _: 0.1, pace=1.0):
    """Twenty minutes of a host that holds *rss(minute)* MiB."""
    made = []
    for index in range(20):
        minute = Minute(latencies_s=[latency_s(index)] * 10, paces=[pace])
        minute.holdings["raw"]["rss_mib"].append(rss(index))
        minute.pids["raw"] |= pids(index)
        made.append(minute)
    return made


def rising(seen):
    return [row["what"] for row in judge(seen) if not row["flat"]]


def test_host_that_grows_is_named():
    assert rising(minutes(lambda index: 100 + index)) == ["raw rss_mib"]


def test_host_that_was_replaced_is_not_judged_by_its_beginning():
    assert rising(minutes(lambda index: 100 + index, pids=lambda index: {index})) == []


def test_answers_that_take_longer_and_longer_are_named():
    seen = minutes(lambda _: 100, latency_s=lambda index: 0.1 + index * 0.02)
    assert rising(seen) == ["p50_ms", "p99_ms"]


def test_latency_that_others_cause_is_no_trend():
    seen = minutes(lambda _: 100, latency_s=lambda index: 0.1 + index * 0.02)
    for minute in seen:
        minute.paces = [0.1 / minute.latencies_s[0]]
    assert rising(seen) == []


def test_minute_without_answers_has_no_latency():
    assert Minute().latency_s(50) is None
    assert Minute(latencies_s=[3.0, 1.0, 2.0]).latency_s(50) == 2.0
    assert Minute(latencies_s=[3.0, 1.0, 2.0]).latency_s(99) == 3.0
