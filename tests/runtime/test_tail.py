"""Following a log: every line once, whatever becomes of the file."""

import pytest

from llmd.runtime import tail
from llmd.runtime.host_log import TAIL_BYTES, keep_end
from llmd.runtime.tail import tail_file


@pytest.fixture(autouse=True)
def quickly(monkeypatch):
    monkeypatch.setattr(tail, "FOLLOW_S", 0.001)


@pytest.fixture
def log(tmp_path):
    return tmp_path / "chat.log"


def write(path, numbers, mode="a"):
    with path.open(mode) as file:
        file.writelines(f"{number:015d}\n" for number in numbers)


async def take(lines, count):
    return [int(await anext(lines)) for _ in range(count)]


async def test_last_lines_and_no_more(log):
    write(log, range(10))
    assert [int(line) async for line in tail_file(log, follow=False, lines=3)] == [7, 8, 9]


async def test_missing_log_has_no_lines(log):
    assert [line async for line in tail_file(log, follow=False, lines=3)] == []


async def test_new_lines_follow_the_last(log):
    write(log, range(10))
    lines = tail_file(log, follow=True, lines=2)
    assert await take(lines, 2) == [8, 9]
    write(log, [10, 11])
    assert await take(lines, 2) == [10, 11]
    await lines.aclose()


@pytest.mark.parametrize("read_meanwhile", [True, False], ids=["some were read", "none was yet"])
async def test_log_that_is_cut_down_to_its_end_is_followed_without_repeating_lines(
    log, read_meanwhile
):
    write(log, range(20_000))
    lines = tail_file(log, follow=True, lines=1)
    assert await take(lines, 1) == [19_999]
    if read_meanwhile:
        write(log, [20_000])
        assert await take(lines, 1) == [20_000]
    write(log, [20_001])
    keep_end(log, TAIL_BYTES)
    write(log, [20_002])
    assert await take(lines, 2) == [20_001, 20_002]
    await lines.aclose()


async def test_log_that_is_emptied_is_read_from_its_start(log):
    write(log, range(500))
    lines = tail_file(log, follow=True, lines=1)
    assert await take(lines, 1) == [499]
    write(log, [7], mode="w")
    assert await take(lines, 1) == [7]
    await lines.aclose()


async def test_log_that_is_replaced_is_read_from_its_start(log):
    write(log, range(500))
    lines = tail_file(log, follow=True, lines=1)
    assert await take(lines, 1) == [499]
    log.rename(log.with_name("chat.log.1"))
    write(log, range(600))
    assert await take(lines, 600) == list(range(600))
    await lines.aclose()
