import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmd.errors import QueueFullError, UnauthorizedError
from llmd.proxy.dialect import error_event, error_lines, normalise, render


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        pytest.param(
            404,
            b'{"error": "model not here"}',
            {"message": "model not here", "type": "invalid_request_error", "code": "not_found"},
            id="mlx_lm: a text",
        ),
        pytest.param(
            400,
            b'{"error":{"code":400,"message":"bad","type":"invalid_request_error"}}',
            {"message": "bad", "type": "invalid_request_error", "code": "invalid_request"},
            id="llama.cpp: a number as code",
        ),
        pytest.param(
            400,
            b'{"error":{"code":400,"message":"long","type":"exceed_context_size_error","n_ctx":512}}',
            {
                "message": "long",
                "type": "exceed_context_size_error",
                "code": "context_length_exceeded",
                "n_ctx": 512,
            },
            id="llama.cpp: the context is too small",
        ),
        pytest.param(
            400,
            b'{"error":{"message":"m","type":"t","param":"messages","code":"c"}}',
            {"message": "m", "type": "t", "param": "messages", "code": "c"},
            id="OpenAI's own",
        ),
        pytest.param(
            422,
            b'{"detail":[{"loc":["body","messages"],"msg":"field required"},{"msg":"x"}]}',
            {"message": "body.messages: field required; x", "code": "invalid_request"},
            id="FastAPI: a list",
        ),
        pytest.param(404, b'{"detail":"Not Found"}', {"message": "Not Found"}, id="FastAPI: text"),
        pytest.param(
            400, b'{"object":"error","message":"m","type":"t"}', {"message": "m"}, id="vLLM of old"
        ),
        pytest.param(
            500, b"Internal error\n", {"message": "Internal error"}, id="text"
        ),
        pytest.param(
            502, b"", {"message": "the engine answered with status 502", "code": "engine_error"},
            id="nothing",
        ),
        pytest.param(500, b"\xff\xfe", {"message": "\ufffd\ufffd"}, id="not text"),
        pytest.param(503, b"[1]", {"code": "unavailable"}, id="a list of numbers"),
        pytest.param(401, b"{}", {"type": "authentication_error"}, id="empty object"),
        pytest.param(429, b'{"error":null}', {"type": "rate_limit_error"}, id="null"),
    ],
)  # fmt: skip
def test_engine_error_becomes_openais(status, body, expected):
    error = normalise(status, body)["error"]

    assert {key: error[key] for key in expected} == expected
    assert {"message", "type", "code", "param"} <= set(error)


@given(
    st.integers(400, 599),
    st.binary(max_size=50)
    | st.recursive(
        st.none() | st.text(max_size=5) | st.integers(),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(
                    ["error", "detail", "message", "type", "code", "msg", "loc", "param"]
                ),
                inner,
                max_size=4,
            )
        ),
    ).map(lambda document: json.dumps(document).encode()),
)
def test_any_error_body_becomes_an_error_object(status, body):
    error = json.loads(render(normalise(status, body), "/v1/x"))["error"]

    assert isinstance(error["message"], str)
    assert error["message"]
    assert isinstance(error["type"], str)
    assert isinstance(error["code"], str)


def test_error_event_of_chat_is_plain_data():
    event = error_event({"error": {"message": "m", "code": "c"}}, "/v1/chat/completions")

    assert event == b'data: {"error":{"message":"m","code":"c"}}\n\n'


def test_error_events_of_named_streams_are_named():
    document = {"error": {"message": "m", "code": "c"}}

    messages = error_event(document, "/v1/messages")
    responses = error_event(document, "/v1/responses")

    assert messages.startswith(b'event: error\ndata: {"type":"error","error":')
    assert responses.startswith(b'event: error\ndata: {"type":"error","code":"c","message":"m"')


def test_error_headers_say_when_to_come_back_and_how_to_log_in():
    assert b"Retry-After: 5\r\n" in error_lines(QueueFullError("p", limit=1))
    assert b"WWW-Authenticate: Bearer\r\n" in error_lines(UnauthorizedError("no"))


@pytest.mark.parametrize(
    ("kind", "theirs"),
    [
        ("server_error", "api_error"),
        ("exceed_context_size_error", "invalid_request_error"),
        ("rate_limit_error", "rate_limit_error"),
        ("authentication_error", "authentication_error"),
    ],
)
@pytest.mark.parametrize("path", ["/v1/messages", "/v1/messages/count_tokens"])
def test_kind_of_an_error_is_one_that_anthropics_clients_know(kind, theirs, path):
    document = {"error": {"message": "no", "type": kind, "code": "c", "param": None}}
    rendered = json.loads(render(document, path))
    assert rendered["type"] == "error"
    assert (rendered["error"]["type"], rendered["error"]["code"]) == (theirs, "c")


def test_error_on_ollamas_paths_is_a_text():
    document = {"error": {"message": "no", "type": "server_error", "code": "c", "param": None}}
    assert json.loads(render(document, "/api/chat")) == {"error": "no"}
