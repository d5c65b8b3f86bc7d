"""What a person at a terminal sees: the real program on a pseudo-terminal."""

import fcntl
import os
import pty
import signal
import struct
import subprocess
import termios
from collections.abc import Callable, Iterator

import pytest

from llmd.cli.terminal import Palette, harmless
from tests.cli.conftest import COMMAND


class Screen:
    """A process on a terminal of 80 columns and 24 rows."""

    def __init__(self, args: tuple[str, ...], environment: dict[str, str]) -> None:
        self._ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("4H", 24, 80, 0, 0))
        self.process = subprocess.Popen(
            [*COMMAND, *args],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env=environment | {"TERM": "xterm-256color"},
        )
        os.close(theirs)
        self.shown = ""

    def wait_for(self, text: str) -> None:
        """Read until *text* was shown."""
        while text not in self.shown:
            self.shown += os.read(self._ours, 4096).decode(errors="replace")

    def finish(self) -> int:
        """Read to the end; returns the exit status."""
        try:
            while data := os.read(self._ours, 4096):
                self.shown += data.decode(errors="replace")
        except OSError:  # Linux reports the end of a terminal so
            pass
        return self.process.wait(10)

    def close(self) -> None:
        with self.process:
            self.process.kill()
        os.close(self._ours)


@pytest.fixture
def screen(environment) -> Iterator[Callable[..., Screen]]:
    screens: list[Screen] = []

    def begin(*args: str) -> Screen:
        screens.append(Screen(args, environment))
        return screens[-1]

    yield begin
    for shown in screens:
        shown.close()


@pytest.mark.usefixtures("daemon")
def test_status_is_coloured_on_a_terminal(screen):
    shown = screen("status")
    assert shown.finish() == 0
    assert "\x1b[32mready\x1b[0m" in shown.shown


def test_no_color_is_respected(screen, environment, daemon):
    environment["NO_COLOR"] = "1"
    shown = screen("status")
    assert shown.finish() == 0
    assert "\x1b[" not in shown.shown


def test_watch_draws_again_and_leaves_the_terminal_as_it_was(screen, daemon):
    shown = screen("status", "--watch", "--interval", "0.1")
    shown.wait_for("8081")
    daemon.call(lambda: daemon.operator._set("code", state="draining"))
    shown.wait_for("draining")
    shown.process.send_signal(signal.SIGINT)
    assert shown.finish() == 0
    assert shown.shown.startswith("\x1b[?25l")
    assert "\x1b[?25h" in shown.shown


def test_watch_waits_for_a_daemon_that_is_away(screen, daemon):
    shown = screen("status", "--watch", "--interval", "0.1")
    shown.wait_for("8081")
    daemon.close()
    shown.wait_for("; waiting for it")
    shown.process.send_signal(signal.SIGINT)
    assert shown.finish() == 0


def test_load_draws_a_bar_and_takes_it_away(screen, daemon):
    daemon.operator.stages = [("reading weights", 0.5)]
    daemon.hold("code6")
    shown = screen("load", "code6")
    shown.wait_for("reading weights")
    assert "━━━" in shown.shown
    daemon.release("code6")
    assert shown.finish() == 0
    assert shown.shown.splitlines()[-1].endswith("after 12 s; evicted code")


def test_log_cannot_drive_the_terminal(screen, daemon):
    daemon.operator.line_log.write("title \x1b]0;mine\x07 and \x9b31m red")
    shown = screen("logs")
    assert shown.finish() == 0
    assert shown.shown == "title ]0;mine and 31m red\r\n"


def test_harmless_keeps_text_tabs_and_line_ends():
    assert harmless("a\tb\nç…\u00a0") == "a\tb\nç…\u00a0"
    assert harmless("\x00\x1b[2J\r\x7f\x85") == "[2J"


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        pytest.param("short", ["short"], id="fits"),
        pytest.param("one two three", ["one two", "three"], id="between words"),
        pytest.param("onetwothreefour", ["onetwoth", "reefour"], id="a word too long"),
        pytest.param("one two three four five", ["one two", "three f…"], id="says what is missing"),
    ],
)
def test_wrap(text, lines):
    assert Palette(enabled=False).wrap(text, 8, lines=2) == lines
