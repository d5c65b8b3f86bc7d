"""Requests through real sockets: what the engine sees, what the client gets."""

import asyncio
import json

import pytest

from llmd.proxy.gate import BodyEdits, Upstream
from llmd.proxy.guard import Guard
from tests.proxy.doubles import STREAM, post


async def test_small_request_arrives_and_its_answer_comes_back(start):
    plane = await start()
    client = await plane.client()

    response = await client.post(b'{"model":"any","n":1}')

    assert (response.status, response.body) == (200, b'{"ok":true}')
    assert response.headers["x-llmd-profile"] == "code"
    assert response.headers["content-type"] == "application/json"
    assert plane.gate.arrived == [(plane.listener.port, "any")]
    assert plane.gate.left == [(1, True)]
    assert plane.engine.requests[0].line == "POST /v1/chat/completions HTTP/1.1"
    assert plane.engine.requests[0].body == b'{"model":"any","n":1}'


async def test_connections_are_kept_on_both_sides(start):
    plane = await start()
    client = await plane.client()

    for _ in range(5):
        assert (await client.post()).status == 200

    assert plane.engine.connections == 1
    assert plane.listener.connections == 1
    assert plane.pool.kept == 1


async def test_parallel_requests_have_connections_of_their_own(start):
    plane = await start()
    clients = [await plane.client() for _ in range(4)]

    responses = await asyncio.gather(*(client.post() for client in clients))

    assert [response.status for response in responses] == [200] * 4
    assert plane.engine.connections == 4


async def test_headers_between_neighbours_are_replaced(start):
    plane = await start()
    client = await plane.client()

    await client.post(
        headers=b"Authorization: Bearer secret\r\nCookie: a=b\r\nX-Custom: 1\r\nTE: trailers\r\n"
        b"Connection: keep-alive, X-Hop\r\nX-Hop: 1\r\nAccept-Encoding: gzip\r\nKeep-Alive: 5\r\n"
        b"Proxy-Authorization: Basic x\r\nX-Request-Id: mine-1\r\n"
    )

    headers = plane.engine.requests[0].headers
    assert headers["host"] == ["localhost"]
    assert headers["x-custom"] == ["1"]
    assert headers["accept-encoding"] == ["identity"]
    assert "x-request-id" not in headers
    assert headers["content-length"] == ["15"]
    assert not headers.keys() & {
        "authorization", "cookie", "te", "connection", "x-hop", "keep-alive", "proxy-authorization",
    }  # fmt: skip


async def test_upstream_headers_replace_the_clients(start):
    plane = await start()
    plane.gate.upstream = Upstream(
        path=plane.path, headers={"Authorization": "Bearer host", "User-Agent": "llmd"}
    )
    client = await plane.client()

    await client.post(headers=b"Authorization: Bearer client\r\nUser-Agent: curl\r\n")

    assert plane.engine.requests[0].headers["authorization"] == ["Bearer host"]
    assert plane.engine.requests[0].headers["user-agent"] == ["llmd"]


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/v1/chat/completions", "/api/v1/chat/completions"),
        ("/chat/completions", "/api/v1/chat/completions"),
        ("/v1/files?limit=2", "/api/v1/files?limit=2"),
        ("/v1x", "/api/v1/v1x"),
        ("/v1", "/api/v1"),
    ],
)
async def test_prefix_of_a_remote_takes_the_place_of_v1(start, path, expected):
    plane = await start()
    plane.gate.upstream = Upstream(path=plane.path, prefix="/api/v1")
    client = await plane.client()

    await client.post(path=path)

    assert plane.engine.requests[0].line == f"POST {expected} HTTP/1.1"


@pytest.mark.parametrize(
    "path", ["/chat/completions", "/v1/unknown/x?y=%20z", "/props", "/v1/files/"]
)
async def test_path_is_passed_on_as_it_is(start, path):
    plane = await start()
    client = await plane.client()

    await client.post(path=path)

    assert plane.engine.requests[0].line == f"POST {path} HTTP/1.1"


async def test_unknown_path_is_placed_without_a_model_unless_its_body_is_json(start):
    plane = await start()
    client = await plane.client()

    await client.get("/slots")
    await client.post(b"not json", path="/v1/audio", headers=b"")
    await client.post(b'{"model":"code"}', path="/tokenize")

    assert [model for _, model in plane.gate.arrived] == [None, None, "code"]


async def test_client_request_id_is_echoed_if_it_is_sane(start):
    plane = await start()
    client = await plane.client()

    sane = await client.post(headers=b"X-Request-Id: abc-123\r\n")
    odd = await client.post(headers=b"X-Request-Id: a b\xff\r\n")
    none = await client.post()

    assert sane.headers["x-request-id"] == "abc-123"
    assert odd.headers["x-request-id"] not in {"a b\xff", none.headers["x-request-id"]}
    assert len(none.headers["x-request-id"]) > 10


async def test_chunked_request_is_passed_on_with_its_length(start):
    plane = await start()
    client = await plane.client()

    await client.send(
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n"
        b'6\r\n{"mode\r\n8;x=y\r\nl":"any"\r\n1\r\n}\r\n0\r\nX-Trailer: 1\r\n\r\n'
    )
    response = await client.response()

    assert response.status == 200
    seen = plane.engine.requests[0]
    assert seen.body == b'{"model":"any"}'
    assert seen.headers["content-length"] == ["15"]
    assert "transfer-encoding" not in seen.headers
    assert "x-trailer" not in seen.headers


async def test_large_body_arrives_byte_for_byte(start):
    plane = await start()
    client = await plane.client()
    body = json.dumps({"model": "m", "x": "\u00e9" * 1_000_000}).encode()

    assert (await client.post(body)).status == 200

    assert plane.engine.requests[0].body == body


async def test_expect_continue_is_answered_before_the_body(start):
    plane = await start()
    client = await plane.client()

    await client.send(
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\n"
        b"Content-Length: 2\r\n\r\n"
    )
    assert await client.head() == (100, {})
    await client.send(b"{}")

    assert (await client.response()).status == 200
    assert "expect" not in plane.engine.requests[0].headers


async def test_expect_continue_is_not_answered_when_the_body_is_there(start):
    plane = await start()
    client = await plane.client()

    response = await client.post(headers=b"Expect: 100-continue\r\n")

    assert (response.status, response.interim) == (200, [])


async def test_expect_continue_is_refused_when_the_body_would_be(start):
    plane = await start(guard=Guard(api_keys=["k"]))
    client = await plane.client()

    await client.send(
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\n"
        b"Content-Length: 2\r\n\r\n"
    )

    response = await client.response()
    assert (response.status, response.interim) == (401, [])


async def test_pipelined_requests_are_answered_in_order(start):
    async def script(side):
        while (request := await side.request()) is not None:
            await side.answer(request.body)

    plane = await start(script)
    client = await plane.client()

    await client.send(b"".join(post(b'{"n":%d}' % n) for n in range(20)))
    answers = [(await client.response()).json["n"] for _ in range(20)]

    assert answers == list(range(20))
    assert plane.engine.connections == 1


async def test_pipelined_requests_of_all_kinds_are_answered_in_order(start):
    plane = await start()
    client = await plane.client()

    await client.send(
        b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"
        + post()
        + b"GET /nothing HTTP/1.1\r\nHost: evil\r\n\r\n"
        + post(b"[]")
        + b"GET /v1/models HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        + post()
    )
    statuses = [(await client.response()).status for _ in range(5)]

    assert statuses == [200, 200, 403, 400, 200]
    assert await client.rest() == (b"", True)
    assert len(plane.engine.requests) == 1


async def test_thousands_of_pipelined_refusals_are_answered_one_by_one(start):
    plane = await start()
    client = await plane.client()

    sending = asyncio.ensure_future(client.send(b"GET /x HTTP/1.1\r\nHost: evil\r\n\r\n" * 5000))
    statuses = {(await client.response()).status for _ in range(5000)}
    await sending

    assert statuses == {403}


async def test_http_1_0_client_gets_an_answer_and_a_closed_connection(start):
    plane = await start()
    client = await plane.client()

    await client.send(b"POST /v1/chat/completions HTTP/1.0\r\nContent-Length: 2\r\n\r\n{}")
    response = await client.response()

    assert response.headers["connection"] == "close"
    assert response.body == b'{"ok":true}'
    assert await client.rest() == (b"", True)


async def test_http_1_0_client_may_ask_to_keep_the_connection(start):
    plane = await start()
    client = await plane.client()

    for _ in range(2):
        await client.send(
            b"POST /v1/chat/completions HTTP/1.0\r\nConnection: keep-alive\r\n"
            b"Content-Length: 2\r\n\r\n{}"
        )
        assert (await client.response()).headers["connection"] == "keep-alive"


async def chunked_answer(side):
    await side.request()
    await side.send(
        b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\n"
        b"Connection: keep-alive\r\nSet-Cookie: a=b\r\nAccess-Control-Allow-Origin: *\r\n"
        b"X-Engine: 1\r\nKeep-Alive: timeout=5\r\n\r\n"
    )
    await side.send(b"3;x=1\r\nabc\r\n")
    await side.send(b"4\r\ndefg\r\n0\r\nX-Trailer: 1\r\n\r\n")
    await side.until_closed()


async def test_chunked_answer_is_passed_on_without_trailers_and_hop_headers(start):
    plane = await start(chunked_answer)
    client = await plane.client()

    response = await client.post()

    assert response.body == b"abcdefg"
    assert response.complete
    assert response.headers["x-engine"] == "1"
    assert not response.headers.keys() & {
        "set-cookie", "access-control-allow-origin", "keep-alive", "x-trailer", "connection",
    }  # fmt: skip
    assert plane.pool.kept == 1


async def test_chunked_answer_reaches_an_http_1_0_client_without_chunks(start):
    plane = await start(chunked_answer)
    client = await plane.client()

    await client.send(b"GET /x HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
    response = await client.response()

    assert "transfer-encoding" not in response.headers
    assert response.headers["connection"] == "close"
    assert response.body == b"abcdefg"
    assert response.complete


async def test_answer_that_ends_by_closing_is_chunked_for_the_client(start):
    async def script(side):
        await side.request()
        await side.send(b"HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\n\r\nab")
        await side.send(b"cd")

    plane = await start(script)
    client = await plane.client()

    first, second = await client.post(), await client.post()

    assert (first.body, second.body) == (b"abcd", b"abcd")
    assert first.headers["transfer-encoding"] == "chunked"
    assert plane.engine.connections == 2


async def test_interim_answers_of_the_engine_are_dropped(start):
    async def script(side):
        while await side.request() is not None:
            await side.send(b"HTTP/1.1 100 Continue\r\n\r\n")
            await side.send(b"HTTP/1.1 103 Early Hints\r\nLink: x\r\nContent-Length: 99\r\n\r\n")
            await side.answer()

    plane = await start(script)
    client = await plane.client()

    for _ in range(2):
        response = await client.post()
        assert (response.status, response.interim, response.body) == (200, [], b'{"ok":true}')
        assert "link" not in response.headers
    assert plane.engine.connections == 1


@pytest.mark.parametrize("status", ["204 No Content", "304 Not Modified"])
async def test_answer_without_a_body_ends_with_its_head(start, status):
    async def script(side):
        while await side.request() is not None:
            await side.send(f"HTTP/1.1 {status}\r\nETag: x\r\n\r\n".encode())

    plane = await start(script)
    client = await plane.client()

    for _ in range(2):
        response = await client.post()
        assert response.status == int(status[:3])
        assert response.headers["etag"] == "x"
        assert "content-length" not in response.headers
        assert "transfer-encoding" not in response.headers
    assert plane.engine.connections == 1


async def test_head_request_gets_the_length_and_no_body(start):
    async def script(side):
        assert (await side.request()).line == "HEAD /file HTTP/1.1"
        await side.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
        await side.until_closed()

    plane = await start(script)
    client = await plane.client()

    response = await client.get("/file", method="HEAD")

    assert response.headers["content-length"] == "1000"
    assert (await client.get("/health")).status == 200


async def test_head_request_for_an_error_gets_no_body(start):
    async def script(side):
        await side.request()
        await side.send(b"HTTP/1.1 404 Not Found\r\nContent-Length: 10\r\n\r\n")
        await side.until_closed()

    plane = await start(script)
    client = await plane.client()

    assert (await client.get("/file", method="HEAD")).status == 404
    assert (await client.get("/health")).status == 200


async def test_upgrade_is_ignored(start):
    plane = await start()
    client = await plane.client()

    response = await client.post(
        headers=b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n"
        b"HTTP2-Settings: AAMAAABk\r\n"
    )

    assert response.status == 200
    assert not plane.engine.requests[0].headers.keys() & {"upgrade", "http2-settings"}
    assert (await client.post()).status == 200


async def test_edits_change_the_body_and_nothing_else(start):
    plane = await start()
    plane.gate.edits = BodyEdits(defaults={"max_tokens": 99}, force={"model": "default_model"})
    client = await plane.client()

    await client.post(b'{"model":"any","temperature":0.10}')

    seen = plane.engine.requests[0]
    assert seen.body == b'{"model":"default_model","temperature":0.10,"max_tokens":99}'
    assert seen.headers["content-length"] == [str(len(seen.body))]


async def test_edits_leave_bodies_of_unknown_paths_alone(start):
    plane = await start()
    plane.gate.edits = BodyEdits(force={"model": "m"})
    client = await plane.client()

    await client.post(b"\x00\x01", path="/v1/audio/transcriptions")

    assert plane.engine.requests[0].body == b"\x00\x01"


async def test_stream_arrives_event_by_event(start):
    more = asyncio.Event()

    async def script(side):
        await side.request()
        await side.stream_head()
        await side.chunk(b"data: 1\n\n")
        await more.wait()
        await side.chunk(b"data: 2\n\ndata: [DONE]\n\n")
        await side.send(b"0\r\n\r\n")
        await side.until_closed()

    plane = await start(script)
    client = await plane.client()
    await client.send(post(STREAM))

    status, headers = await client.head()
    assert (status, headers["content-type"]) == (200, "text/event-stream")
    assert headers["x-accel-buffering"] == "no"
    assert await client.chunk() == b"data: 1\n\n"
    more.set()
    assert await client.chunk() == b"data: 2\n\ndata: [DONE]\n\n"
    assert await client.chunk() == b""
    assert plane.gate.left == [(1, True)]
    assert plane.pool.kept == 1


async def test_event_is_passed_on_when_it_is_whole(start):
    async def script(side):
        await side.request()
        await side.stream_head()
        for piece in (b"da", b"ta: 1\n", b"\nda", b"ta: [DONE]\n\n"):
            await side.chunk(piece)
            await asyncio.sleep(0)
        await side.send(b"0\r\n\r\n")
        await side.until_closed()

    plane = await start(script)
    client = await plane.client()

    response = await client.post(STREAM)

    assert response.body == b"data: 1\n\ndata: [DONE]\n\n"


async def test_engine_connection_with_surplus_data_is_not_used_again(start):
    async def script(side):
        await side.request()
        await side.send(
            b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
            b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison"
        )
        await side.until_closed()

    plane = await start(script)
    client = await plane.client()

    first, second = await client.post(), await client.post()

    assert (first.body, second.body) == (b"ok", b"ok")
    assert plane.engine.connections == 2


async def test_engine_that_talks_unasked_loses_its_connection(start):
    async def script(side):
        await side.request()
        await side.answer()
        await side.send(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison")
        await side.until_closed()

    plane = await start(script)
    client = await plane.client()

    assert (await client.post()).body == b'{"ok":true}'
    await plane.engine.until(lambda: plane.engine.closed)
    assert (await client.post()).body == b'{"ok":true}'
    assert plane.engine.connections == 2


@pytest.mark.parametrize("body", [b"{", b"[]", b"", b'"x"'])
async def test_broken_json_is_refused_before_anything_is_asked_for(start, body):
    plane = await start()
    client = await plane.client()

    response = await client.post(body)

    assert response.status == 400
    assert response.error["code"] == "invalid_request"
    assert plane.gate.arrived == []
    assert (await client.post()).status == 200


async def test_known_missing_path_is_refused_before_anything_is_asked_for(start):
    plane = await start()
    plane.gate.known_unsupported = frozenset({"/v1/embeddings"})
    client = await plane.client()

    for path in ("/v1/embeddings", "/embeddings"):
        response = await client.post(b"{}", path=path)
        assert (response.status, response.error["code"]) == (501, "unsupported")
    assert plane.gate.arrived == []


async def test_missing_path_is_refused_without_asking_the_engine(start):
    plane = await start()
    plane.gate.unsupported = frozenset({"/v1/rerank"})
    client = await plane.client()

    response = await client.post(b"{}", path="/v1/rerank")

    assert (response.status, response.error["code"]) == (501, "unsupported")
    assert plane.engine.connections == 0
    assert plane.gate.left == [(1, False)]


@pytest.mark.parametrize("path", ["/slots", "/%73lots", "//tokenize", "/tokenize/0"])
async def test_path_that_is_not_for_clients_is_refused_before_anything_is_asked_for(start, path):
    plane = await start()
    plane.gate.own_paths = frozenset({"/v1/tokenize"})
    client = await plane.client()

    response = await client.post(b"{}", path=path)

    assert (response.status, response.error["code"]) == (404, "not_found")
    assert "llmd-ctl" in response.error["remedy"]
    assert plane.gate.arrived == []


async def test_path_of_the_engines_own_is_passed_on_with_what_the_profile_forces(start):
    plane = await start()
    plane.gate.own_paths = frozenset({"/v1/tokenize"})
    plane.gate.edits = BodyEdits(force={"a": 1})
    client = await plane.client()

    assert (await client.post(b'{"a":2}', path="/tokenize")).status == 200
    assert plane.engine.requests[-1].body == b'{"a":1}'
    for body in (b"[]", b"\x1f\x8b", b"[" * 5000):
        response = await client.post(body, path="/tokenize")
        assert (response.status, response.error["code"]) == (400, "invalid_request")


async def test_engine_error_becomes_an_openai_error(start):
    async def script(side):
        while await side.request() is not None:
            await side.answer(b'{"error":"no such model"}', "404 Not Found", b"Retry-After: 3\r\n")

    plane = await start(script)
    client = await plane.client()

    for _ in range(2):
        response = await client.post()
        assert response.status == 404
        assert response.error["message"] == "no such model"
        assert response.error["type"] == "invalid_request_error"
        assert response.headers["retry-after"] == "3"
        assert response.headers["x-llmd-profile"] == "code"
    assert plane.engine.connections == 1
    assert plane.gate.left == [(1, True), (2, True)]


async def test_engine_error_that_ends_by_closing_becomes_one_too(start):
    async def script(side):
        await side.request()
        await side.send(b"HTTP/1.0 500 Oops\r\nContent-Type: text/html\r\n\r\nTraceback")

    plane = await start(script)
    client = await plane.client()

    response = await client.post()

    assert (response.status, response.error["message"]) == (500, "Traceback")


@pytest.mark.parametrize("coded", [True, False])
async def test_huge_engine_error_is_passed_on_as_it_is(start, coded):
    body = b"x" * 300_000

    async def script(side):
        await side.request()
        if coded:
            await side.send(b"HTTP/1.1 500 Oops\r\nTransfer-Encoding: chunked\r\n\r\n")
            for at in range(0, len(body), 50_000):
                await side.chunk(body[at : at + 50_000])
            await side.send(b"0\r\n\r\n")
        else:
            await side.answer(body, "500 Oops")
        await side.until_closed()

    plane = await start(script)
    client = await plane.client()

    response = await client.post()

    assert (response.status, response.body) == (500, body)
