"""The small HTTP reader, on bytes made up."""

import io

import pytest

from llmd.admin.answer import Answer, BadAnswerError, request


def answer(text: bytes) -> Answer:
    return Answer(io.BufferedReader(io.BytesIO(text)))


def test_request_is_one_of_a_kind_on_its_connection():
    assert request("POST", "/v1/reload", b"{}", {"Accept": "x"}) == (
        b"POST /v1/reload HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
        b"Content-Length: 2\r\nAccept: x\r\n\r\n{}"
    )


@pytest.mark.parametrize(
    ("head", "body", "lines"),
    [
        pytest.param("Content-Length: 5\r\n", "a\nb\nc", ["a", "b", "c"], id="of a given length"),
        pytest.param("", "a\nb\n", ["a", "b"], id="until the end"),
        pytest.param("content-length:0\r\n", "", [], id="empty"),
        pytest.param(
            "Transfer-Encoding: Chunked\r\n",
            "3\r\na\nb\r\n2;x=y\r\nc\n\r\nA\r\n0123456789\r\n0\r\nTrailer: 1\r\n\r\n",
            ["a", "bc", "0123456789"],
            id="in chunks that split lines",
        ),
    ],
)
def test_body_is_read_whole_and_by_lines(head, body, lines):
    text = f"HTTP/1.1 200 OK\r\n{head}X-Version: 1 \r\n\r\n{body}".encode()
    whole = answer(text)
    assert (whole.status, whole.reason, whole.headers["x-version"]) == (200, "OK", "1")
    assert whole.read().decode().splitlines() == lines
    assert [line.decode() for line in answer(text)] == lines


def test_line_comes_before_the_next_one_does():
    class Slow(io.RawIOBase):
        def __init__(self):
            self.pieces = [b"HTTP/1.1 200 OK\r\n\r\n", b"one\ntw", b"o\n"]

        def readable(self):
            return True

        def readinto(self, buffer):
            piece = self.pieces.pop(0)
            buffer[: len(piece)] = piece
            return len(piece)

    slow = Slow()
    lines = iter(Answer(io.BufferedReader(slow)))
    assert next(lines) == b"one"
    assert slow.pieces == [b"o\n"]
    assert next(lines) == b"two"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        pytest.param(b"", "cut short", id="nothing"),
        pytest.param(b"HTTP/1.1 200", "cut short", id="half a line"),
        pytest.param(b"SSH-2.0 hello\r\n", "no status line", id="another protocol"),
        pytest.param(b"HTTP/1.1 2xx\r\n", "no status line", id="no number"),
        pytest.param(b"HTTP/1.1 200 OK\r\nA: b\r\n", "cut short", id="no end of headers"),
        pytest.param(b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 101, "too many", id="endless headers"),
        pytest.param(b"HTTP/1.1 200 OK\r\n" + b"A" * 70_000, "cut short", id="endless header"),
        pytest.param(
            b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nab", "cut short", id="short body"
        ),
        pytest.param(
            b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", "is no size", id="negative length"
        ),
        pytest.param(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", "no size", id="no chunk"
        ),
        pytest.param(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nabc\r\n",
            "longer than it says",
            id="chunk too long",
        ),
        pytest.param(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n",
            "cut short",
            id="no last chunk",
        ),
    ],
)
def test_nonsense_is_told_apart_from_an_end(text, words):
    with pytest.raises(BadAnswerError, match=words):
        answer(text).read()
