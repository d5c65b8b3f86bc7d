"""What `status` draws, from a status made up."""

import re

import msgspec
import pytest

from llmd.admin import wire
from llmd.cli.status import render
from llmd.cli.terminal import Palette, describe_seconds
from tests.admin.fake_operator import GIB, FakeOperator


PLAIN = Palette(enabled=False)


@pytest.fixture
def status(tmp_path):
    return FakeOperator(tmp_path / "s", pid=42).status()


def change(status: wire.Status, which: str, /, **changes) -> wire.Status:
    profiles = tuple(
        msgspec.structs.replace(p, **changes) if p.name == which else p for p in status.profiles
    )
    return msgspec.structs.replace(status, profiles=profiles)


def test_whole_picture(status):
    assert (
        "\n".join(render(status, palette=PLAIN, width=80))
        == """\
llmd 0.1.0, pid 42, up 3 h 12 min
████████████████░░░░░░░░░░░░░░ 25.2 GiB of 48 GiB, peak 30 GiB
warm spare: mlx, prepared, 310 MiB

PORT  PROFILE        STATE     FOOTPRINT  BUSY  QUEUE       IDLE  TOK/S
8080  (gateway)                              -
8081  code           ready      17.2 GiB   1/2      -          -   54.1
      code6          unloaded   (26 GiB)     -      -          -      -
8082  chat (pinned)  ready         8 GiB     -      -  1 min 5 s      -
8083  raw            failed      (5 GiB)     -      -          -      -
      raw exited with status 1 while loading: no such file
      tried again in 42 s at the earliest"""
    )


def test_whole_picture_fits_80_columns_with_the_longest_of_everything(status):
    status = change(
        status,
        "chat",
        name="a" * 64,
        state="unloading",
        footprint_bytes=1023 * GIB,
        in_flight=256,
        sequences=256,
        queued=64,
        idle_s=86_399.0,
        tokens_per_s=1234.5,
    )
    status = change(status, "raw", last_error="no " * 200)
    lines = render(status, palette=PLAIN, width=80)
    assert max(map(len, lines)) <= 80
    assert any("…" in line for line in lines)


def test_waiting_and_loading_say_for_what_and_how_far(status):
    status = change(status, "code6", state="waiting", waiting_for="for code to finish 2 requests")
    status = change(status, "raw", state="loading", progress=0.4)
    lines = render(status, palette=PLAIN, width=80)
    assert "      for code to finish 2 requests" in lines
    assert "      ████████░░░░░░░░░░░░  40%" in lines


def test_port_that_is_not_open_says_why(status):
    ports = tuple(
        msgspec.structs.replace(port, error="in use by ollama (pid 99)") for port in status.ports
    )
    lines = render(msgspec.structs.replace(status, ports=ports), palette=PLAIN, width=80)
    assert lines.count("      not open: in use by ollama (pid 99)") == 4


def test_warnings_and_a_stale_configuration_are_shown(status):
    status = msgspec.structs.replace(
        status,
        config_error="llmd.yaml:3: no\nsuch key",
        warnings=("swap is in use",),
        stopping=True,
    )
    lines = render(status, palette=PLAIN, width=80)
    assert lines[0].endswith(", stopping")
    assert "! llmd.yaml:3: no such key" in lines
    assert "! swap is in use" in lines


def test_colours_only_when_wanted_and_never_in_the_way_of_columns(status):
    painted = render(status, palette=Palette(enabled=True), width=80)
    plain = render(status, palette=PLAIN, width=80)
    assert "\x1b[32mready\x1b[0m" in "\n".join(painted)
    assert [re.sub(r"\x1b\[\d+m", "", line) for line in painted] == plain


def test_terminal_without_unicode_gets_ascii(status):
    lines = render(status, palette=Palette(enabled=False, unicode=False), width=80)
    assert lines[1].startswith("################..............")
    assert all(line.isascii() for line in lines)


@pytest.mark.parametrize(
    ("fraction", "bar"),
    [
        pytest.param(0.0, "....", id="empty"),
        pytest.param(0.001, "#...", id="a little is not nothing"),
        pytest.param(0.999, "###.", id="almost is not all"),
        pytest.param(1.0, "####", id="full"),
        pytest.param(7.0, "####", id="over"),
    ],
)
def test_bar(fraction, bar):
    assert Palette(enabled=False, unicode=False).bar(fraction, 4, "green") == bar


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0.0 s"),
        (0.44, "0.4 s"),
        (9.96, "10 s"),
        (59.6, "1 min"),
        (125, "2 min 5 s"),
        (3600, "1 h"),
        (7_830, "2 h 10 min"),
        (273_600, "3 d 4 h"),
        (float("inf"), "for ever"),
    ],
)
def test_durations_read_well(seconds, text):
    assert describe_seconds(seconds) == text
