"""Reading `model` and `stream` of a body, exactly as a JSON parser would."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmd.errors import InvalidRequestError
from llmd.proxy.head import Head
from llmd.proxy.peek import Peek, look, peek
from llmd.proxy.request import Request


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        pytest.param(b"{}", Peek(None, None), id="nothing there"),
        pytest.param(b'{"model":"a","stream":true}', Peek("a", stream=True), id="both"),
        pytest.param(
            b' {\n\t"stream" : false ,\r "model" : "a" } ', Peek("a", stream=False), id="spaces"
        ),
        pytest.param(b'{"model":"a","model":"b"}', Peek("b", None), id="the last of two counts"),
        pytest.param(b'{"model":"a","model":1}', Peek(None, None), id="even if it is no string"),
        pytest.param(b'{"mod\\u0065l":"a"}', Peek("a", None), id="escape in a key"),
        pytest.param(b'{"model":"\\u0061\\n\\""}', Peek('a\n"', None), id="escapes in a value"),
        pytest.param('{"model":"modèle"}'.encode(), Peek("modèle", None), id="UTF-8"),
        pytest.param(b'{"model":"\\ud83d\\ude00"}', Peek("😀", None), id="surrogate pair"),
        pytest.param(b'{"x":{"model":"a","stream":true}}', Peek(None, None), id="nested"),
        pytest.param(b'{"x":["model","a",{"model":"b"}]}', Peek(None, None), id="in a list"),
        pytest.param(b'{"x":"\\"model\\":\\"a\\""}', Peek(None, None), id="within a string"),
        pytest.param(b'{"Model":"a"}', Peek(None, None), id="another case"),
        pytest.param(b'{"model":null,"stream":null}', Peek(None, None), id="null"),
        pytest.param(b'{"model":["a"],"stream":"true"}', Peek(None, None), id="other types"),
        pytest.param(b'{"model":1e999,"stream":1}', Peek(None, None), id="a huge number"),
        pytest.param(b'{"model":"a","x":"cut \\ud83d"}', Peek("a", None), id="lone surrogate"),
        pytest.param(b'{"model":"\\ud83d"}', Peek(None, None), id="lone surrogate as model"),
        pytest.param(b'{"model":"a","x":NaN}', Peek("a", None), id="NaN"),
        pytest.param(b'{"model":""}', Peek("", None), id="empty"),
    ],
)
def test_model_and_stream_are_read(body, expected):
    assert peek(body) == expected
    assert peek(bytearray(body)) == expected


@pytest.mark.parametrize(
    ("body", "says"),
    [
        pytest.param(b"", "empty", id="nothing"),
        pytest.param(b" \n", "empty", id="only spaces"),
        pytest.param(b"[]", "object", id="list"),
        pytest.param(b'"model"', "object", id="string"),
        pytest.param(b"null", "object", id="null"),
        pytest.param(b"[NaN]", "object", id="list of NaN"),
        pytest.param(b'{"model":"a"', "line 1, column 13", id="unfinished"),
        pytest.param(b'{"model":"a"} x', "line 1, column 15", id="more behind it"),
        pytest.param(b'{"model":"a"}{}', "column 14", id="two documents"),
        pytest.param(b'{\n"x":nul}', "line 2, column 5", id="bad literal"),
        pytest.param(b'{"x":1,}', "column 8", id="comma at the end"),
        pytest.param(b"{'x':1}", "column 2", id="single quotes"),
        pytest.param(b'{"x":01}', "column 7", id="leading zero"),
        pytest.param(b'{"x":"\x01"}', "column 7", id="control character"),
        pytest.param(b'{"x":"\\q"}', "column 7", id="bad escape"),
        pytest.param(b'{"x":"\xff"}', "byte 6", id="not UTF-8"),
        pytest.param(b'{"x":"\xed\xa0\x80"}', "byte 6", id="encoded surrogate"),
        pytest.param(b"\xef\xbb\xbf{}", "valid JSON", id="byte order mark"),
        pytest.param('{"model":"a"}'.encode("utf-16"), "byte 0", id="UTF-16"),
        pytest.param(b'{"x":' + b"[" * 100_000 + b"]" * 100_000 + b"}", "deeply", id="too deep"),
        pytest.param(b'{"x":NaN,' + b'"y":' + b"[" * 100_000, "deeply", id="too deep, slow way"),
        pytest.param(b'{"x":NaN,"y":' + b"1" * 5000 + b"}", "valid JSON", id="endless integer"),
    ],
)
def test_body_that_is_no_json_object_is_refused_with_the_place(body, says):
    with pytest.raises(InvalidRequestError, match=says):
        peek(body)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["model", "stream", "x"]), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(
    st.dictionaries(
        st.sampled_from(["model", "stream", "messages", 'mo"del', "\\"]), json_values, max_size=4
    ),
    st.booleans(),
)
def test_what_is_read_is_what_a_json_parser_reads(document, ascii_only):
    found = peek(json.dumps(document, ensure_ascii=ascii_only).encode("utf-8", "replace"))

    model, stream = document.get("model"), document.get("stream")
    if isinstance(model, str):
        model = model.encode("utf-8", "replace").decode() if not ascii_only else model
    assert found.model == (model if isinstance(model, str) else None)
    assert found.stream == (stream if isinstance(stream, bool) else None)


@given(st.binary(max_size=60))
def test_any_bytes_are_read_or_refused_as_the_json_parser_does(body):
    try:
        document = json.loads(body.decode())
    except (ValueError, RecursionError):
        document = None

    if isinstance(document, dict):
        peek(body)
    else:
        with pytest.raises(InvalidRequestError):
            peek(body)


@pytest.mark.parametrize("at", [0, 1, 2**20 - 2, 2**20 - 1, 2**20, 3 * 2**20 + 5])
def test_place_of_bad_utf8_is_right_in_large_bodies(at):
    body = "é".encode() * (at // 2) + b"x" * (at % 2) + b"\xe9\xe9" + "é".encode() * 10

    with pytest.raises(InvalidRequestError, match=rf"byte {at}\)"):
        peek(body)


def test_large_body_of_other_letters_is_read():
    body = json.dumps({"x": "日本" * 400_000, "model": "m"}, ensure_ascii=False).encode()

    assert len(body) > 2 * 2**20
    assert peek(body).model == "m"


def post(body, **fields):
    head = Head(b"POST")
    head.fields = {name.replace("_", "-").encode(): value for name, value in fields.items()}
    return Request(head, len(body), body)


def test_known_path_is_read_whatever_its_content_type():
    request = post(b'{"model":"a"}', content_type=b"text/plain")

    assert look(request, "/v1/completions").model == "a"


def test_known_path_refuses_a_broken_body():
    with pytest.raises(InvalidRequestError):
        look(post(b"{"), "/v1/embeddings")


def test_known_path_refuses_a_compressed_body():
    with pytest.raises(InvalidRequestError, match="compressed"):
        look(post(b"\x1f\x8b", content_encoding=b"gzip"), "/v1/embeddings")


def test_unknown_path_is_read_if_it_can_be():
    json_type = {"content_type": b"application/json; charset=utf-8"}

    assert look(post(b'{"model":"a"}', **json_type), "/v1/tokenize").model == "a"
    assert look(post(b"{", **json_type), "/v1/tokenize").model is None
    assert look(post(b'{"model":"a"}'), "/v1/tokenize").model is None


def test_request_without_a_body_says_nothing():
    assert look(Request(Head(b"GET"), 0), "/v1/embeddings").model is None
