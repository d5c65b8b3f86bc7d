import httptools
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmd.proxy.reply import Framing, Reply


class Parsed:
    """What a strict parser makes of a response."""

    def __init__(self):
        self.headers, self.body, self.complete = {}, b"", False
        self.parser = httptools.HttpResponseParser(self)

    def on_header(self, name, value):
        self.headers[name.lower()] = value

    def on_body(self, piece):
        self.body += piece

    def on_message_complete(self):
        self.complete = True

    def feed(self, data):
        self.parser.feed_data(data)
        return self


def reply(*, minor=1, head_only=False, keep_alive=True, lines=b"X-Request-Id: 1\r\n"):
    return Reply(minor=minor, head_only=head_only, keep_alive=keep_alive, lines=lines)


@given(st.lists(st.binary(min_size=1, max_size=50), max_size=6), st.booleans())
def test_body_of_unknown_length_arrives_whole(pieces, modern):
    made = reply(minor=int(modern))

    data = made.head(200, b"", None) + b"".join(map(made.encode, pieces)) + made.tail()

    parsed = Parsed().feed(data)
    assert parsed.body == b"".join(pieces)
    assert parsed.complete is modern
    assert made.keep_alive is modern


@given(st.lists(st.binary(min_size=1, max_size=50), max_size=6))
def test_body_of_known_length_arrives_whole(pieces):
    made, body = reply(), b"".join(pieces)

    data = made.head(200, b"", len(body)) + b"".join(map(made.encode, pieces)) + made.tail()

    parsed = Parsed().feed(data)
    assert (parsed.body, parsed.complete) == (body, True)


@pytest.mark.parametrize("status", [204, 304])
def test_status_without_a_body_gets_none(status):
    made = reply()

    data = made.head(status, b"", None) + made.encode(b"x") + made.tail()

    assert data.endswith(b"\r\n\r\n")
    assert made.framing is Framing.NONE
    assert Parsed().feed(data).complete


def test_head_answer_has_the_length_but_no_body():
    data = reply(head_only=True).whole(200, b"", b"12345")

    assert b"Content-Length: 5\r\n" in data
    assert data.endswith(b"\r\n\r\n")


def test_no_content_has_no_length():
    assert b"Content-Length" not in reply().head(204, b"", 0)


@pytest.mark.parametrize(
    ("minor", "keep_alive", "says"),
    [(1, True, None), (1, False, b"close"), (0, True, b"keep-alive"), (0, False, b"close")],
)
def test_connection_header_follows_version_and_keep_alive(minor, keep_alive, says):
    data = reply(minor=minor, keep_alive=keep_alive).whole(200, b"", b"x")

    assert Parsed().feed(data).headers.get(b"connection") == says


def test_unknown_status_is_passed_on():
    assert reply().head(299, b"", 0).startswith(b"HTTP/1.1 299 \r\n")


def test_common_lines_are_on_every_answer():
    assert b"\r\nX-Request-Id: 1\r\n" in reply().whole(500, b"A: b\r\n", b"")
