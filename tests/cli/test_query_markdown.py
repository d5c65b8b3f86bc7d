"""Markdown while it is written: where it is cut, and that nothing is lost on the screen."""

import io
import itertools
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmd.cli.blocks import split_finished
from llmd.cli.markdown import LiveArea, MarkdownStream, RenderedPage


ESCAPE = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
LINES = st.sampled_from(
    ["# Title", "text", "", "  indented", "- item", "```python", "```", "~~~", "````", "> quote",
     "| a | b |", "|---|---|", "1. one", "   more", "    code"]
)  # fmt: skip
TEXTS = st.lists(LINES, max_size=14).map("\n".join)


class Screen(io.StringIO):
    """As much of a terminal as a live area commands: up, carriage return, erase below."""

    def __init__(self):
        super().__init__()
        self.lines = [""]
        self.row = 0

    def write(self, text):
        text = text.replace("\x1b[J", "\x00")
        for up, erase, end, shown in re.findall(
            r"\x1b\[(\d+)A|(\x00)|(\n)|((?:\x1b\[[0-9;]*m|[^\x1b\x00\n])+)", text
        ):
            if up:
                self.row -= int(up)
                assert self.row >= 0
            elif erase:
                self.lines[self.row :] = [""]
            elif end:
                self.row += 1
                if self.row == len(self.lines):
                    self.lines.append("")
            else:
                self.lines[self.row] = ESCAPE.sub("", shown).lstrip("\r")
        return len(text)

    @property
    def text(self):
        return "\n".join(self.lines)


def shown(*pieces, clock=None):
    screen = Screen()
    stream = MarkdownStream(screen, **({"clock": clock} if clock else {}))
    for piece in pieces:
        stream.feed(piece)
    stream.end()
    return screen.text


@pytest.mark.parametrize(
    ("text", "blocks"),
    [
        pytest.param("one\n\ntwo\n", ["one\n\n"], id="the next paragraph ends one"),
        pytest.param("- a\n\n  still a\n", [], id="what is indented belongs to the item"),
        pytest.param("```\na\n\nb\n", [], id="an empty line in code ends nothing"),
        pytest.param("```\na\n```\n", ["```\na\n```\n"], id="a closed fence is done"),
        pytest.param("````\n```\n````\n", ["````\n```\n````\n"], id="a shorter fence is code"),
        pytest.param("text\n```\na", ["text\n"], id="a fence ends a paragraph"),
        pytest.param("# T\ntext", ["# T\n"], id="a heading is done"),
        pytest.param("one\n\ntw", [], id="only whole lines decide"),
    ],
)
def test_block_is_finished_when_no_text_can_change_it(text, blocks):
    finished, rest = split_finished(text)
    assert finished == blocks
    assert "".join(finished) + rest == text


@given(TEXTS, st.lists(st.integers(0, 80), max_size=6))
def test_blocks_do_not_depend_on_how_the_text_arrives(text, cuts):
    whole, rest = split_finished(text)
    blocks, held = [], ""
    places = sorted({0, len(text), *(cut for cut in cuts if cut < len(text))})
    for begin, end in itertools.pairwise(places):
        more, held = split_finished(held + text[begin:end])
        blocks += more
    assert (blocks, held) == (whole, rest)


@given(TEXTS, st.integers(1, 9))
def test_screen_ends_the_same_however_the_text_arrives(text, size):
    pieces = [text[at : at + size] for at in range(0, len(text), size)]
    assert shown(*pieces) == shown(text)


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("a List<int> and <b>bold</b>", id="tags"),
        pytest.param("see [here](http://x.example/a)", id="links"),
        pytest.param("![pic](http://x.example/p.png)", id="pictures"),
        pytest.param("[1]: http://x.example/ref", id="references"),
        pytest.param(r"\(x\) and \[y\]", id="formulas"),
        pytest.param("<http://x.example/>", id="bare addresses"),
        pytest.param("if a &lt; b", id="entities"),
    ],
)
def test_what_markdown_would_swallow_is_shown(text):
    wanted = re.findall(r"[^\s\[\]()!*]+", text)
    on_screen = shown(text)
    assert all(word in on_screen for word in wanted), on_screen


def test_line_ends_of_a_poem_stay():
    assert shown("one\ntwo\nthree").split("\n")[:3] == ["one", "two", "three"]


def test_block_higher_than_the_terminal_is_whole_when_it_is_finished(monkeypatch):
    monkeypatch.setattr("llmd.cli.markdown.rows", lambda _: 6)
    lines = [f"line_{number}" for number in range(40)]
    screen = Screen()
    stream = MarkdownStream(screen, clock=lambda: 0.0)
    for line in ("```", *lines):
        stream.feed(f"{line}\n")
    assert len([line for line in screen.lines if line.strip()]) < 6
    assert "line_39" in screen.text
    assert "line_3\n" not in screen.text
    stream.end()
    assert [line.strip() for line in screen.lines if line.strip()] == lines


def test_only_rows_that_changed_are_drawn_again():
    out = io.StringIO()
    area = LiveArea(out)
    area.draw(["one", "two"])
    area.draw(["one", "two", "three"])
    area.draw(["one", "two", "four"])
    assert out.getvalue() == "one\ntwo\nthree\n\x1b[1A\r\x1b[Jfour\n"


def test_slow_drawing_is_done_less_often():
    now = iter(range(1000))
    screen = Screen()
    stream = MarkdownStream(screen, clock=lambda: next(now))
    stream.feed("a")
    stream.feed("b")
    assert screen.lines[0] == "a"
    for _ in range(4):
        stream.feed("c")
    assert screen.lines[0] == "abcccc"[: len(screen.lines[0])] != "a"
    stream.end()
    assert screen.lines[0] == "abcccc"


def test_rendered_answer_cannot_command_the_terminal(capsys):
    page = RenderedPage()
    page.reasoning("\x1b]0;reasoned\x07")
    page.answer("\n\n\x1b]0;title\x07 and \x9b2J **bold**")
    page.end()
    shown = capsys.readouterr().out
    assert not {"\x1b]", "\x07", "\x9b"} & {
        shown[at : at + n] for at in range(len(shown)) for n in (1, 2)
    }
    assert "bold" in shown
    assert "**" not in shown


def test_answer_that_is_cut_off_is_shown_as_far_as_it_came(capsys):
    page = RenderedPage()
    page.answer("# Title\nand then\n\n```python\nx = 1")
    page.end()
    text = ESCAPE.sub("", capsys.readouterr().out)
    assert all(part in text for part in ("Title", "and then", "x = 1"))
