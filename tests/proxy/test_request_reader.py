"""Bytes in, requests out; where the bytes are cut must not matter."""

from collections import deque
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmd.errors import HeaderTooLargeError, InvalidRequestError, LlmdError, TooLargeError
from llmd.proxy.chunks import ChunkedBody
from llmd.proxy.limits import Limits
from llmd.proxy.request import RequestReader


POST = b"POST /v1/x HTTP/1.1\r\nHost: a\r\n"


def read_all(pieces, limits=None):
    """Every request in *pieces*, as comparable values, and the error that ended it, if any."""
    reader = RequestReader(limits or Limits())
    found, error, within = [], None, None
    try:
        for piece in pieces:
            reader.feed(piece)
            while True:
                if within is None:
                    within = reader.read_head()
                if within is None or not reader.read_body():
                    break
                found.append(
                    (
                        within.head.method,
                        within.head.target,
                        within.head.keep_alive,
                        within.head.fields,
                        within.head.forward,
                        bytes(within.body),
                    )
                )
                within = None
    except LlmdError as exc:
        error = type(exc)
    return found, error


def read_one(data, limits=None):
    reader = RequestReader(limits or Limits())
    reader.feed(data)
    request = reader.read_head()
    assert request is not None
    assert reader.read_body()
    return request


AMBIGUOUS = {
    "length and coding": POST + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "coding and length": POST + b"Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n",
    "two equal lengths": POST + b"Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc",
    "two lengths": POST + b"Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
    "list of lengths": POST + b"Content-Length: 3, 3\r\n\r\nabc",
    "length with plus": POST + b"Content-Length: +3\r\n\r\nabc",
    "length with minus": POST + b"Content-Length: -3\r\n\r\nabc",
    "hexadecimal length": POST + b"Content-Length: 0x3\r\n\r\nabc",
    "length with underscore": POST + b"Content-Length: 1_0\r\n\r\n0123456789",
    "empty length": POST + b"Content-Length: \r\n\r\nabc",
    "endless length": POST + b"Content-Length: 99999999999999999999999\r\n\r\nabc",
    "long length": POST + b"Content-Length: 1000000000000000000\r\n\r\nabc",
    "folded header": POST + b"X: a\r\n b\r\n\r\n",
    "folded coding": POST + b"Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n",
    "line feed in the head": POST + b"X: a\nContent-Length: 3\r\n\r\nabc",
    "line feeds only": b"POST / HTTP/1.1\nHost: a\n\n",
    "line feed ends the head": POST + b"X: a\r\n\n",
    "carriage return in a value": POST + b"X: a\rb\r\n\r\n",
    "two carriage returns": POST + b"X: a\r\r\n\r\n",
    "space before colon": POST + b"Content-Length : 3\r\n\r\nabc",
    "space before a name": b"POST / HTTP/1.1\r\n Host: a\r\n\r\n",
    "tab within a name": POST + b"Content\t-Length: 3\r\n\r\nabc",
    "NUL in a name": POST + b"X\x00: a\r\n\r\n",
    "NUL in a value": POST + b"X: a\x00b\r\n\r\n",
    "control character in a value": POST + b"X: a\x01b\r\n\r\n",
    "no name": POST + b": a\r\n\r\n",
    "no colon": POST + b"X\r\n\r\n",
    "two hosts": b"POST / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
    "two origins": POST + b"Origin: http://a\r\nOrigin: http://b\r\n\r\n",
    "two keys": POST + b"Authorization: Bearer a\r\nAuthorization: Bearer b\r\n\r\n",
    "vertical tab before the coding": POST + b"Transfer-Encoding:\x0bchunked\r\n\r\n0\r\n\r\n",
    "coding that is not the last": POST + b"Transfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n",
    "coding twice": POST + b"Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
    "coding in two headers": POST
    + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n",
    "unknown coding": POST + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "further coding": POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "identity": POST + b"Transfer-Encoding: identity\r\n\r\n",
    "quoted coding": POST + b'Transfer-Encoding: "chunked"\r\n\r\n0\r\n\r\n',
    "empty coding": POST + b"Transfer-Encoding: \r\n\r\n",
    "coding in HTTP/1.0": b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "no version": b"GET /\r\n\r\n",
    "HTTP/0.9": b"GET / HTTP/0.9\r\n\r\n",
    "HTTP/2.0": b"GET / HTTP/2.0\r\n\r\n",
    "HTTP/2 preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "HTTP/1.2": b"GET / HTTP/1.2\r\n\r\n",
    "HTTP/1.10": b"GET / HTTP/1.10\r\n\r\n",
    "another protocol": b"GET / RTSP/1.0\r\n\r\n",
    "lower-case version": b"GET / http/1.1\r\n\r\n",
    "two spaces": b"GET  / HTTP/1.1\r\n\r\n",
    "space at the end": b"GET / HTTP/1.1 \r\n\r\n",
    "space in the target": b"GET /a b HTTP/1.1\r\n\r\n",
    "tab in the request line": b"GET\t/ HTTP/1.1\r\n\r\n",
    "NUL in the target": b"GET /\x00 HTTP/1.1\r\n\r\n",
    "high byte in the target": b"GET /\xff HTTP/1.1\r\n\r\n",
    "fragment": b"GET /#a HTTP/1.1\r\n\r\n",
    "target without a slash": b"GET v1 HTTP/1.1\r\n\r\n",
    "star": b"GET * HTTP/1.1\r\n\r\n",
    "foreign scheme": b"GET ftp://a/ HTTP/1.1\r\n\r\n",
    "unknown method": b"FOO / HTTP/1.1\r\n\r\n",
    "lower-case method": b"get / HTTP/1.1\r\n\r\n",
    "CONNECT": b"CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n",
    "TRACE": b"TRACE / HTTP/1.1\r\nHost: a\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    "leading line feed": b"\nGET / HTTP/1.1\r\n\r\n",
    "leading space": b" GET / HTTP/1.1\r\n\r\n",
}

CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"
BAD_CHUNKS = {
    "line feed after a size": b"3\nabc\r\n0\r\n\r\n",
    "space after a size": b"3 \r\nabc\r\n0\r\n\r\n",
    "space before a size": b" 3\r\nabc\r\n0\r\n\r\n",
    "prefix": b"0x3\r\nabc\r\n0\r\n\r\n",
    "plus": b"+3\r\nabc\r\n0\r\n\r\n",
    "minus": b"-3\r\nabc\r\n0\r\n\r\n",
    "underscore": b"1_0\r\n0123456789abcdef\r\n0\r\n\r\n",
    "no size": b"\r\nabc\r\n0\r\n\r\n",
    "not a number": b"xyz\r\nabc\r\n0\r\n\r\n",
    "more than said": b"3\r\nabcd\r\n0\r\n\r\n",
    "no line end behind a chunk": b"3\r\nabc0\r\n\r\n",
    "line feed behind a chunk": b"3\r\nabc\n0\r\n\r\n",
    "carriage return behind a chunk": b"3\r\nabc\r0\r\n\r\n",
    "endless size": b"fffffffffffffffff\r\nabc\r\n0\r\n\r\n",
    "overflowing size": b"ffffffffffffffff\r\nabc\r\n0\r\n\r\n",
    "line feed in an extension": b'3;a="\n"\r\nabc\r\n0\r\n\r\n',
    "control character in an extension": b"3;a=\x01\r\nabc\r\n0\r\n\r\n",
    "line feed behind the last chunk": b"0\n\r\n",
    "trailer without a colon": b"0\r\nabc\r\n\r\n",
    "trailer with a space before the colon": b"0\r\nA : b\r\n\r\n",
    "length as a trailer": b"0\r\nContent-Length: 3\r\n\r\n",
    "endless size line": b"3;" + b"a" * 5000 + b"\r\nabc\r\n0\r\n\r\n",
}


@pytest.mark.parametrize("data", [pytest.param(v, id=k) for k, v in AMBIGUOUS.items()])
def test_ambiguous_request_is_refused(data):
    found, error = read_all([data])

    assert found == []
    assert error is not None
    assert error.status in {400, 501}


@pytest.mark.parametrize("data", [pytest.param(v, id=k) for k, v in AMBIGUOUS.items()])
def test_ambiguous_request_is_refused_behind_good_ones_with_nearly_the_same_head(data):
    good = POST + b"Content-Length: 3\r\n\r\nabc" + POST + b"X: a\r\nContent-Length: 3\r\n\r\nabc"

    found, error = read_all([good + good + data])

    assert len(found) == 4
    assert error is not None


def test_repeated_head_is_read_alike_but_for_its_length():
    bodies = [b"abc", b"", b"x" * 1000, b"\r\n\r\n", b"abc"]

    found, error = read_all(
        [b"".join(POST + b"Content-Length: %d\r\nX: 1\r\n\r\n%b" % (len(b), b) for b in bodies)]
    )

    assert error is None
    assert [one[-1] for one in found] == bodies
    assert len({repr(one[:-1]) for one in found}) == 1


@pytest.mark.parametrize(
    "digits", [b"+3", b"3x", b"0x3", b"", b"3, 3", b"9" * 19, b"\xb2", b"3\t4"]
)
def test_repeated_head_with_an_odd_length_is_refused(digits):
    good = POST + b"Content-Length: 3\r\n\r\nabc"

    found, error = read_all([good + POST + b"Content-Length: " + digits + b"\r\n\r\nabc"])

    assert len(found) == 1
    assert error is not None


@pytest.mark.parametrize("body", [pytest.param(v, id=k) for k, v in BAD_CHUNKS.items()])
def test_broken_chunked_body_is_refused(body):
    found, error = read_all([CHUNKED + body])

    assert found == []
    assert error is not None
    assert error.status in {400, 413}


@pytest.mark.parametrize("data", [pytest.param(v, id=k) for k, v in AMBIGUOUS.items()])
def test_ambiguous_request_is_refused_however_it_is_cut(data):
    _, error = read_all([data[i : i + 1] for i in range(len(data))])

    assert error is not None


@pytest.mark.parametrize("body", [pytest.param(v, id=k) for k, v in BAD_CHUNKS.items()])
def test_broken_chunked_body_is_refused_however_it_is_cut(body):
    data = CHUNKED + body

    _, error = read_all([data[i : i + 1] for i in range(len(data))])

    assert error is not None


def test_headers_are_sorted_into_read_and_passed_on():
    request = read_one(
        POST + b"X-Custom: 1\r\nAuthorization: Bearer k\r\nCookie: c\r\nContent-Type: a/b \r\n"
        b"TE: trailers\r\nContent-Length: 2\r\n\r\n{}"
    )

    assert request.head.forward == [b"X-Custom: 1", b"Content-Type: a/b "]
    assert request.head.fields[b"authorization"] == b"Bearer k"
    assert request.head.fields[b"content-type"] == b"a/b"
    assert request.body == b"{}"


def test_headers_named_by_connection_are_not_passed_on():
    request = read_one(POST + b"X-Hop: 1\r\nX-Stay: 2\r\nConnection: keep-alive, X-Hop\r\n\r\n")

    assert request.head.forward == [b"X-Stay: 2"]
    assert request.head.keep_alive


@pytest.mark.parametrize(
    ("head", "kept"),
    [
        (b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", True),
        (b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", False),
        (b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Keep-Alive, Close\r\n\r\n", False),
        (b"GET / HTTP/1.0\r\n\r\n", False),
        (b"GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n", True),
    ],
)
def test_connection_header_and_version_decide_about_keep_alive(head, kept):
    assert read_one(head).head.keep_alive is kept


def test_absolute_target_replaces_the_host():
    request = read_one(b"GET http://evil.example/v1/models?x=1 HTTP/1.1\r\nHost: localhost\r\n\r\n")

    assert request.head.fields[b"host"] == b"evil.example"
    assert request.head.target == b"/v1/models?x=1"
    assert request.head.path == "/v1/models"
    assert request.head.query == "x=1"


def test_absolute_target_without_a_path_is_the_root():
    assert read_one(b"GET http://localhost?x=1 HTTP/1.1\r\nHost: a\r\n\r\n").head.target == b"/?x=1"


def test_empty_lines_before_a_request_are_skipped():
    assert read_one(b"\r\n\r\nGET /a HTTP/1.1\r\nHost: a\r\n\r\n").head.path == "/a"


def test_many_empty_lines_are_skipped_in_one_step():
    reader = RequestReader(Limits())
    reader.feed(b"\r\n" * 500_000)

    assert reader.read_head() is None
    assert reader.pending == 0


@pytest.mark.parametrize(
    ("target", "path"),
    [
        (b"/v1/chat/%63ompletions", "/v1/chat/completions"),
        (b"/v1/models/a%2Fb", "/v1/models/a/b"),
        (b"/v1/models/%C3%A4?x=%41", "/v1/models/ä"),
        (b"/%", None),
        (b"/%25", "/%"),
        (b"/%252e%252e/", "/%2e%2e/"),
    ],
)
def test_path_is_judged_as_an_engine_decodes_it_and_passed_on_as_it_came(target, path):
    data = b"GET " + target + b" HTTP/1.1\r\nHost: a\r\n\r\n"

    if path is None:
        assert read_all([data]) == ([], InvalidRequestError)
    else:
        request = read_one(data)
        assert (request.head.path, request.head.target) == (path, target)


def test_header_that_is_another_one_to_some_servers_is_not_passed_on():
    request = read_one(POST + b"X_Api_Key: 1\r\nContent_Length: 9\r\nA_B: c\r\n\r\n")

    assert request.head.forward == [b"A_B: c"]


def test_upgrade_offer_is_ignored_and_its_body_read():
    upgrade = POST + b"Connection: Upgrade\r\nUpgrade: h2c\r\nContent-Length: 3\r\n\r\nabc"

    found, error = read_all([upgrade + POST + b"Content-Length: 2\r\n\r\nde"])

    assert error is None
    assert [one[-1] for one in found] == [b"abc", b"de"]
    assert found[0][4] == []


def test_upgrade_header_without_connection_does_not_confuse_the_next_request():
    first = POST + b"Upgrade: h2c\r\nContent-Length: 3\r\n\r\nabc"

    found, error = read_all([first + POST + b"Content-Length: 2\r\n\r\nde"])

    assert error is None
    assert [one[-1] for one in found] == [b"abc", b"de"]


def test_trailers_are_dropped():
    request = read_one(
        CHUNKED + b"3\r\nabc\r\n0\r\nX-Trailer: 1\r\nAuthorization: Bearer k\r\n\r\n"
    )

    assert request.body == b"abc"
    assert request.head.forward == []
    assert b"authorization" not in request.head.fields


def test_head_beyond_the_limit_is_refused_before_it_is_complete():
    found, error = read_all([b"GET / HTTP/1.1\r\nX: " + b"a" * 2000], Limits(max_head_bytes=1000))

    assert (found, error) == ([], HeaderTooLargeError)


def test_complete_head_beyond_the_limit_is_refused():
    data = b"GET / HTTP/1.1\r\nX: " + b"a" * 2000 + b"\r\n\r\n"

    assert read_all([data], Limits(max_head_bytes=1000)) == ([], HeaderTooLargeError)


def test_too_many_headers_are_refused():
    data = b"GET / HTTP/1.1\r\nHost: a\r\n" + b"X: 1\r\n" * 10 + b"\r\n"

    assert read_all([data], Limits(max_headers=11))[1] is None
    assert read_all([data], Limits(max_headers=10)) == ([], HeaderTooLargeError)


def test_content_length_beyond_the_limit_is_refused_before_the_body():
    reader = RequestReader(Limits(max_body_bytes=10))
    reader.feed(POST + b"Content-Length: 11\r\n\r\n")

    assert reader.read_head() is not None
    with pytest.raises(TooLargeError):
        reader.read_body()


def test_chunked_body_beyond_the_limit_is_refused():
    data = CHUNKED + b"8\r\n01234567\r\n8\r\n01234567\r\n0\r\n\r\n"

    assert read_all([data], Limits(max_body_bytes=15)) == ([], TooLargeError)
    assert read_all([data], Limits(max_body_bytes=16))[1] is None


@pytest.mark.parametrize(
    "body", [b"", b"{}", b"x" * 5000, b"\r\n\r\nGET / HTTP/1.1\r\n\r\n"], ids=len
)
def test_body_is_taken_byte_for_byte_and_what_follows_is_left(body):
    follows = b"GET /next HTTP/1.1\r\nHost: a\r\n\r\n"

    found, error = read_all([POST + b"Content-Length: %d\r\n\r\n%b%b" % (len(body), body, follows)])

    assert error is None
    assert found[0][-1] == body
    assert found[1][1] == b"/next"


# --- cuts -----------------------------------------------------------------------------------------


def cut(data, places):
    """*data* in pieces, cut at *places* (fractions of its length)."""
    marks = sorted({round(place * len(data)) for place in places} | {0, len(data)})
    return [data[a:b] for a, b in pairwise(marks)]


def chunked(pieces):
    coded = b"".join(b"%x;ext=1\r\n%b\r\n" % (len(piece), piece) for piece in pieces if piece)
    return coded + b"0\r\nX-T: 1\r\n\r\n"


requests = st.lists(
    st.one_of(
        st.just(b"GET /a?b HTTP/1.1\r\nHost: a\r\nX: y\r\n\r\n"),
        st.just(b"\r\nGET /b HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"),
        st.binary(max_size=40).map(
            lambda body: POST + b"Content-Length: %d\r\n\r\n%b" % (len(body), body)
        ),
        st.lists(st.binary(max_size=20), max_size=4).map(lambda pieces: CHUNKED + chunked(pieces)),
        st.just(POST + b"Connection: upgrade\r\nUpgrade: h2c\r\nContent-Length: 1\r\n\r\nx"),
    ),
    min_size=1,
    max_size=4,
).map(b"".join)

broken = st.sampled_from([*AMBIGUOUS.values(), *(CHUNKED + body for body in BAD_CHUNKS.values())])

places = st.lists(st.floats(0, 1), max_size=8)


@given(requests, places)
def test_requests_are_the_same_however_they_are_cut(data, where):
    assert read_all(cut(data, where)) == read_all([data])


@given(requests, broken, places)
def test_what_comes_before_a_broken_request_is_served_however_it_is_cut(good, bad, where):
    found, error = read_all(cut(good + bad, where))

    assert found == read_all([good])[0]
    assert error is not None


@given(requests)
def test_requests_are_the_same_byte_by_byte(data):
    assert read_all([data[i : i + 1] for i in range(len(data))]) == read_all([data])


@given(st.binary(max_size=200))
def test_any_bytes_are_refused_or_wait_but_never_raise_anything_else(data):
    read_all([data])
    read_all([POST + data])
    read_all([CHUNKED + data])


@given(st.lists(st.binary(min_size=1, max_size=30), max_size=5), st.binary(max_size=20), places)
def test_chunked_body_ends_exactly_behind_its_last_line(pieces, follows, where):
    body, rest = ChunkedBody(10**6), b""

    for piece in cut(chunked(pieces) + follows, where):
        rest = rest + piece if body.complete else body.feed(piece)

    assert body.complete
    assert body.body == b"".join(pieces)
    assert rest == follows


def test_chunked_body_with_endless_trailers_is_refused():
    body = ChunkedBody(100)
    body.feed(b"0\r\n")

    with pytest.raises(InvalidRequestError):
        deque(map(body.feed, [b"X: " + b"a" * 1000 + b"\r\n"] * 100))


@pytest.mark.parametrize("digits", [b"9" * 19, b"9" * 5000, b"-1", b"1_0", b"", b" 5", b"5 "])
def test_odd_length_is_judged_alike_behind_a_head_that_was_the_same(digits):
    head = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %b\r\n\r\n"
    _, error = read_all([head % digits])
    before = head % b"1" + b"x"
    found, error_behind = read_all([before, head % digits])

    assert error_behind is error
    assert len(found) == 1
