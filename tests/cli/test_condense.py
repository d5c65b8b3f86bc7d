"""`condense`: where a long text is cut, that code comes back whole, and that it ends."""

import json
import re
import socket
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmd.admin import wire
from llmd.cli import condense as module
from llmd.cli.condense import TooLongError, answer_tokens, condense, room_bytes
from llmd.cli.question import Question
from llmd.cli.transcript import mark_code, put_code_back, size_bytes, split
from llmd.errors import LlmdError


PYTHON = "```python\nprint('x')\n\nUser: no message\n```"


def chat(count, words=12):
    return "".join(
        f"User: question {n} {'word ' * words}\n\nAssistant: answer {n}\n\n" for n in range(count)
    )


@given(
    st.lists(
        st.sampled_from(
            [
                "User: hi",
                "",
                "text " * 9,
                "```",
                "```python",
                "x = 'é'",
                "---",
                "\u2028",
                "word" * 40,
            ]
        ),
        max_size=30,
    ).map("\n".join),
    st.integers(8, 200),
)
def test_pieces_fit_and_joined_are_the_text(text, room):
    pieces = split(text, room)
    assert "".join(pieces) == text
    assert all(0 < size_bytes(piece) <= room for piece in pieces)


@pytest.mark.parametrize(
    ("text", "room", "begins"),
    [
        pytest.param(chat(20), 400, r"User|Assistant", id="messages"),
        pytest.param(
            "User: hi\n\nfirst.\n\nsecond.\n\nthird one.\n\n" * 20, 70, "User", id="not paragraphs"
        ),
        pytest.param("one two three.\n\n" * 40, 100, "one", id="paragraphs"),
        pytest.param("a line of text\n" * 40, 100, "a", id="lines"),
        pytest.param("word " * 100, 101, "word", id="words"),
        pytest.param("## User\nhello there\nyou\n" * 20, 150, "## User", id="headings"),
        pytest.param("**Claude:** hello\nmore\n" * 20, 150, r"\*\*Claude", id="bold names"),
    ],
)
def test_cut_is_at_the_best_place(text, room, begins):
    pieces = split(text, room)
    assert len(pieces) > 1
    assert all(re.match(begins, piece) for piece in pieces), pieces


def test_code_is_not_cut_while_there_is_another_place():
    text = "\n\n".join(f"User: number {n}\n\n{PYTHON}" for n in range(30))
    for piece in split(mark_code(text, 100).text, 400):
        assert piece.count("```") % 2 == 0
        assert re.match(r"User: number|\[code", piece)


def test_code_is_marked_once_and_long_code_is_only_shown_in_part():
    long = "```\n" + "".join(f"line {n}\n" for n in range(100)) + "```"
    marked = mark_code(f"a\n{PYTHON}\nb\n{PYTHON}\nc\n{long}\n", 200)
    assert [code.mark for code in marked.codes] == ["[code 1]", "[code 2]"]
    assert [code.text for code in marked.codes] == [PYTHON, long]
    assert marked.text.count(PYTHON) == 1
    assert marked.text.count("[code 1]") == 2
    assert "... 7" in marked.text
    assert "line 99" not in marked.text
    assert marked.text.rstrip().endswith("more lines\n```")


def test_marks_differ_from_what_the_text_says_itself():
    assert mark_code(f"see [code 1]\n{PYTHON}", 99).codes[0].mark == "[listing 1]"


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("a\n```\nb\nUser: c\n", id="never closed"),
        pytest.param("a ``` b\n", id="inside a line"),
    ],
)
def test_stray_fence_does_not_make_code_of_the_rest(text):
    assert mark_code(text, 99) == (text, ())


def test_stray_fence_before_code_leaves_the_code_whole():
    marked = mark_code(f"a\n```\nb\n{PYTHON}\nc\n", 99)
    assert [code.text for code in marked.codes] == [PYTHON]


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        pytest.param(
            "Prints:\n[code 1]\nEnd.", f"Prints:\n[code 1]\n{PYTHON}\nEnd.", id="its mark"
        ),
        pytest.param(f"Prints:\n{PYTHON}", f"Prints:\n[code 1]\n{PYTHON}", id="repeated, no mark"),
        pytest.param(f"[code 1]\n{PYTHON}\nEnd", f"[code 1]\n{PYTHON}\nEnd", id="mark and code"),
        pytest.param(
            "[code 1] [code 1]\n[code 1]", f"[code 1] [code 1]\n{PYTHON}\n[code 1]", id="2"
        ),
        pytest.param(
            "Nothing.",
            f"Nothing.\n\n## Code that is not mentioned above\n\n[code 1]\n{PYTHON}",
            id="forgotten",
        ),
    ],
)
def test_code_comes_back_once_and_whole(answer, expected):
    assert put_code_back(answer, mark_code(PYTHON, 99).codes) == expected


def shorten(piece):
    assert size_bytes(piece) <= 400
    return piece[: len(piece) // 4]


def test_long_text_goes_in_pieces_and_their_answers_again_until_one_question_holds_them():
    told, asked = [], []

    def ask(piece):
        asked.append(piece)
        return shorten(piece)

    condense(chat(60), ask, room_bytes=400, tell=told.append)
    first = split(chat(60), 400)
    assert asked[: len(first)] == first
    assert told[0] == f"round 1, piece 1 of {len(first)}"
    assert any(text.startswith("round 2") for text in told)
    assert told[-1] == "putting the pieces together"
    assert asked[-1].startswith(first[0][:20])


def test_short_text_is_one_question():
    asked = []
    assert (
        condense("hi", lambda p: asked.append(p) or "h", room_bytes=400, tell=asked.append) == "h"
    )
    assert asked == ["all of it", "hi"]


def test_model_that_does_not_shorten_ends_it_and_loses_nothing():
    told = []
    text = chat(60)
    assert condense(text, lambda p: p, room_bytes=400, tell=told.append).split() == text.split()
    assert told[-1].startswith("it does not get shorter")


def test_all_code_of_all_pieces_comes_back():
    codes = [f"```\nvalue = {n}\n```" for n in range(12)]
    text = "\n\n".join(f"{'User: word ' * 20}\n\n{code}" for code in codes)
    result = condense(text, lambda _: "short", room_bytes=400, tell=lambda _: None)
    assert all(result.count(code) == 1 for code in codes)


def test_piece_that_is_too_long_after_all_goes_in_halves():
    taken = []

    def ask(piece):
        if size_bytes(piece) > 1100:
            raise TooLongError("too long")
        taken.append(piece)
        return "x"

    text = "word " * 800
    condense(text, ask, room_bytes=4000, tell=lambda _: None)
    assert "".join(taken) == text


def test_piece_that_never_fits_is_an_error():
    def ask(_):
        raise TooLongError("too long")

    with pytest.raises(TooLongError):
        condense("word " * 2000, ask, room_bytes=4000, tell=lambda _: None)


def profile(context):
    return wire.Profile(name="p", engine="mlx", port=1, state="ready", context=context)


def test_room_is_what_the_context_leaves_by_the_engines_count(monkeypatch):
    counts = iter([100, 1000])
    monkeypatch.setattr(module, "count_tokens", lambda *_: next(counts))
    question = Question("prompt", max_tokens=900)
    assert room_bytes("abcd" * 1000, question, profile(4000), ("h", 1)) == 3000 * 4 * 0.9


def test_room_without_a_count_takes_two_bytes_for_a_token(monkeypatch):
    monkeypatch.setattr(module, "count_tokens", lambda *_: None)
    question = Question("x" * 200, max_tokens=1000)
    assert room_bytes("abcd", question, profile(4096), ("h", 1)) == (4096 - 1000 - 164) * 2


def test_context_without_room_says_what_to_change(monkeypatch):
    monkeypatch.setattr(module, "count_tokens", lambda *_: None)
    with pytest.raises(LlmdError, match="leaves no room") as caught:
        room_bytes("x", Question("x" * 800), profile(256), ("h", 1))
    assert "context" in caught.value.remedy


def test_answer_of_a_piece_is_short_enough_that_each_round_gets_shorter():
    assert answer_tokens(None, profile(2048)) == 512
    assert answer_tokens(9000, profile(65536)) == 9000
    assert answer_tokens(9000, profile(8192)) == 2048
    assert answer_tokens(None, profile(None)) == 1024


class ScriptedEngine:
    """Counts a token for each word, refuses what is too long, answers with the first words."""

    def __init__(self, *, counts=True, context=200):
        self.counts, self.context = counts, context
        self.asked = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._closing = False
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def close(self):
        self._closing = True
        socket.create_connection(("127.0.0.1", self.port)).close()
        self._thread.join(10)
        self._listener.close()

    def _serve(self):
        while True:
            peer, _ = self._listener.accept()
            with peer, peer.makefile("rb") as stream:
                if self._closing:
                    return
                line = stream.readline().split()
                length = 0
                while field := stream.readline().strip():
                    name, _, value = field.partition(b":")
                    length = int(value) if name.lower() == b"content-length" else length
                peer.sendall(self._answer(line[1].decode(), json.loads(stream.read(length))))

    def _answer(self, path, body):
        text = body["messages"][-1]["content"]
        tokens = len(text.split())
        if path == module.COUNT_PATH:
            if self.counts:
                return self._document(200, {"input_tokens": tokens})
            return self._document(501, {"error": {"message": "no", "code": "unsupported"}})
        if tokens + body["max_tokens"] > self.context:
            code = "context_length_exceeded"
            return self._document(400, {"error": {"message": "too long", "code": code}})
        self.asked.append(text)
        answer = {"choices": [{"index": 0, "delta": {"content": f"short {len(self.asked)}"}}]}
        usage = {"choices": [], "usage": {"prompt_tokens": tokens, "completion_tokens": 2}}
        parts = [f"data: {json.dumps(part)}\n\n" for part in (answer, usage)]
        head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"
        return (head + "".join(parts) + "data: [DONE]\n\n").encode()

    def _document(self, status, document):
        text = json.dumps(document)
        return f"HTTP/1.1 {status} X\r\nContent-Length: {len(text)}\r\n\r\n{text}".encode()


@pytest.fixture
def engine(daemon):
    """Starts scripted engines on the port of `code`, whose context is theirs."""
    started = []

    def begin(**options):
        engine = ScriptedEngine(**options)
        started.append(engine)
        daemon.operator._set("code", port=engine.port, context=engine.context)
        daemon.operator.ports[engine.port] = {}
        return engine

    yield begin
    for one in started:
        one.close()


TEXT = "\n\n".join(f"User: {n} {'word ' * 30}\n\n```\ncode {n}\n```" for n in range(40))


@pytest.mark.parametrize(
    ("counts", "context"),
    [pytest.param(True, 800, id="counting engine"), pytest.param(False, 2000, id="no count")],
)
def test_condense_runs_through_and_ends(ctl, engine, tmp_path, counts, context):
    running = engine(counts=counts, context=context)
    (tmp_path / "chat.md").write_text(TEXT)
    done = ctl("query", "-p", "code", "-t", "condense", "-v", "-f", str(tmp_path / "chat.md"))
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("short ")
    assert all(done.stdout.count(f"```\ncode {n}\n```") == 1 for n in range(40))
    assert len(running.asked) > 2
    assert "code: round 1, piece 1 of " in done.stderr
    assert done.stderr.splitlines()[-1].startswith("code: ")
    assert f"in {len(running.asked)} questions" in done.stderr


def test_condensed_text_as_json_is_one_completion(ctl, engine):
    engine(context=4000)
    done = ctl("--json", "query", "-p", "code", "-t", "condense", stdin=TEXT[:400])
    document = json.loads(done.stdout)
    assert document["choices"][0]["message"]["content"].startswith("short 1")
    assert document["usage"]["completion_tokens"] == 2 * document["pieces"]
