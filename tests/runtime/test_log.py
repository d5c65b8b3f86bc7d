"""The log's destinations and modes, and the rings that people follow."""

import asyncio
import errno
import io
import json
import logging
import stat
import threading

import pytest
import structlog

from llmd.runtime import log as log_module
from llmd.runtime.log import EventLog, Ring, configure


class Terminal(io.StringIO):
    def isatty(self):
        return True


class Full(io.StringIO):
    def write(self, _text):
        raise OSError(errno.ENOSPC, "No space left on device")


@pytest.fixture(autouse=True)
def restored():
    """Give logging back as it was."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    for handler in root.handlers[:]:
        if handler not in handlers:
            root.removeHandler(handler)
            handler.close()
    root.setLevel(level)
    logging.raiseExceptions = True
    structlog.reset_defaults()


def test_elsewhere_than_on_a_terminal_the_log_is_json_lines():
    stream = io.StringIO()
    configure("info", log_file=None, stream=stream)
    structlog.get_logger().info("host.exited", port=8081, profile="code")
    line = json.loads(stream.getvalue())
    assert line.items() >= {"event": "host.exited", "port": 8081, "level": "info"}.items()
    assert line["timestamp"].endswith("Z")


def test_on_a_terminal_the_log_is_for_people(monkeypatch):
    monkeypatch.delenv("NO_COLOR", raising=False)
    stream = Terminal()
    configure("info", log_file=None, stream=stream)
    structlog.get_logger().info("host.exited", port=8081)
    assert "\x1b[" in stream.getvalue()
    assert "host.exited" in stream.getvalue()


def test_no_color_is_respected(monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")
    stream = Terminal()
    configure("info", log_file=None, stream=stream)
    structlog.get_logger().info("host.exited", port=8081)
    assert "\x1b[" not in stream.getvalue()
    assert "port=8081" in stream.getvalue()


def test_level_is_respected_and_libraries_are_heard():
    stream = io.StringIO()
    configure("warning", log_file=None, stream=stream)
    structlog.get_logger().info("too.quiet")
    logging.getLogger("somebody.else").warning("loud %s", "enough")
    (line,) = stream.getvalue().splitlines()
    assert json.loads(line)["event"] == "loud enough"


def test_quiet_stream_hears_warnings_only_and_the_file_everything(tmp_path):
    stream = io.StringIO()
    configure("info", log_file=tmp_path / "log", stream=stream, quiet=True)
    structlog.get_logger().info("host.started")
    structlog.get_logger().warning("host.stuck")
    assert "host.started" not in stream.getvalue()
    assert "host.stuck" in stream.getvalue()
    assert "host.started" in (tmp_path / "log").read_text()


def test_traceback_is_data_in_json():
    stream = io.StringIO()
    configure("info", log_file=None, stream=stream)
    try:
        raise ValueError("broken")
    except ValueError:
        structlog.get_logger().exception("admin_request.failed")
    (line,) = stream.getvalue().splitlines()
    assert json.loads(line)["exception"][0]["exc_type"] == "ValueError"


SAID = "somebody said"


def test_traceback_shows_no_variables_anywhere(tmp_path):
    """In those of a request is what somebody said."""

    class Terminal(io.StringIO):
        def isatty(self):
            return True

    def break_down(secret):
        raise ValueError("broken")

    for stream in (io.StringIO(), Terminal()):
        lines = configure("info", log_file=tmp_path / "log", stream=stream)
        try:
            break_down(SAID)
        except ValueError:
            structlog.get_logger().exception("request.failed")
            logging.getLogger("asyncio").exception("of a library")
        for text in (stream.getvalue(), "\n".join(lines.recent()), (tmp_path / "log").read_text()):
            assert text.count("broken") >= 2
            assert SAID not in text


def test_bound_context_is_in_every_line():
    stream = io.StringIO()
    configure("info", log_file=None, stream=stream)
    with structlog.contextvars.bound_contextvars(profile="code"):
        structlog.get_logger().info("load.started")
    assert json.loads(stream.getvalue())["profile"] == "code"


def test_file_is_private_rotated_and_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr(log_module, "FILE_BYTES", 1000)
    monkeypatch.setattr(log_module, "FILES_KEPT", 2)
    file = tmp_path / "log" / "llmd.log"
    configure("info", log_file=file, stream=io.StringIO())
    for number in range(200):
        structlog.get_logger().info("host.started", host=number)
    files = sorted(path.name for path in file.parent.iterdir())
    assert files == ["llmd.log", "llmd.log.1", "llmd.log.2"]
    assert all(path.stat().st_size <= 1000 for path in file.parent.iterdir())
    assert {stat.S_IMODE(path.stat().st_mode) for path in file.parent.iterdir()} == {0o600}
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    assert json.loads(file.read_text().splitlines()[-1])["host"] == 199


def test_log_that_cannot_be_written_is_a_warning_and_stderr_has_everything(tmp_path):
    (tmp_path / "log").write_text("a file where the directory should be")
    stream = io.StringIO()
    configure("info", log_file=tmp_path / "log" / "llmd.log", stream=stream)
    structlog.get_logger().info("host.exited")
    warning, line = map(json.loads, stream.getvalue().splitlines())
    assert (warning["event"], warning["level"]) == ("log.unwritable", "warning")
    assert "LLMD_LOG_DIR" in warning["remedy"]
    assert line["event"] == "host.exited"


def test_full_disk_costs_lines_and_prints_no_traceback(tmp_path, capsys):
    stream = io.StringIO()
    configure("info", log_file=tmp_path / "llmd.log", stream=stream)
    handler = logging.getLogger().handlers[-1]
    handler.stream.close()
    handler.stream = Full()
    structlog.get_logger().info("host.exited")
    assert "host.exited" in stream.getvalue()
    assert "Traceback" not in capsys.readouterr().err


def test_lines_are_kept_for_whoever_asks():
    lines = configure("info", log_file=None, stream=io.StringIO())
    structlog.get_logger().info("host.exited", port=8081)
    (line,) = lines.recent()
    assert "host.exited" in line
    assert "\x1b[" not in line


def test_second_set_up_replaces_the_first():
    first, second = io.StringIO(), io.StringIO()
    configure("info", log_file=None, stream=first)
    configure("info", log_file=None, stream=second)
    structlog.get_logger().info("host.exited")
    assert first.getvalue() == ""
    assert len(second.getvalue().splitlines()) == 1


def test_event_log_keeps_the_last_and_says_when():
    events = EventLog(size=3)
    for number in range(5):
        events.record("profile.evicted", {"profile": "chat", "number": number})
    assert [record["number"] for record in events.recent()] == [2, 3, 4]
    assert [record["number"] for record in events.recent(1)] == [4]
    assert events.recent(0) == []
    assert events.recent()[0]["time"].endswith("Z")
    assert list(events.recent()[0])[:2] == ["time", "name"]


async def test_follower_gets_the_last_then_each_new_one():
    ring = Ring[int](10)
    for number in range(4):
        ring.put(number)
    following = ring.follow(2)
    assert [await anext(following), await anext(following)] == [2, 3]
    ring.put(4)
    assert await anext(following) == 4
    await following.aclose()
    assert not ring._followers


async def test_nothing_is_missed_between_the_last_and_the_new():
    ring = Ring[int](10)
    ring.put(1)
    following = ring.follow(1)
    assert await anext(following) == 1
    ring.put(2)
    ring.put(3)
    assert [await anext(following), await anext(following)] == [2, 3]
    await following.aclose()


async def test_slow_follower_loses_the_oldest_and_does_not_grow():
    ring = Ring[int](10, lag=3)
    following = ring.follow()
    waiting = asyncio.ensure_future(anext(following))
    await asyncio.sleep(0)
    for number in range(100):
        ring.put(number)
    assert await waiting == 97
    assert [await anext(following), await anext(following)] == [98, 99]
    await following.aclose()


async def test_cancelled_follower_is_forgotten():
    ring = Ring[int](10)
    waiting = asyncio.ensure_future(anext(ring.follow()))
    await asyncio.sleep(0)
    assert len(ring._followers) == 1
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert not ring._followers


async def test_another_thread_wakes_a_follower():
    ring = Ring[str](10)
    following = ring.follow()
    waiting = asyncio.ensure_future(anext(following))
    await asyncio.sleep(0)
    thread = threading.Thread(target=ring.put, args=("from afar",))
    thread.start()
    assert await waiting == "from afar"
    thread.join()
    await following.aclose()
