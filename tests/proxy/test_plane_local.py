"""What a port answers itself, and whom it turns away."""

import pytest

from llmd.proxy.gate import ModelCard
from llmd.proxy.guard import Guard


async def test_health_tells_the_state(start):
    plane = await start()
    client = await plane.client()

    response = await client.get("/health")

    assert (response.status, response.json) == (200, {"state": "ready", "ready": True})


@pytest.mark.parametrize(("status", "expected"), [("failed", 503), ("degraded", 200), ("ok", 200)])
async def test_health_is_503_when_nothing_can_be_served(start, status, expected):
    plane = await start()
    plane.gate.healthy = {"status": status, "state": "unloaded", "ready": False}
    client = await plane.client()

    response = await client.get("/health")

    assert (response.status, response.json) == (expected, plane.gate.healthy)


@pytest.mark.parametrize(
    ("ready", "path", "status"),
    [
        (False, "/health", 200),
        (False, "/health?ready=1", 503),
        (False, "/health?ready=0", 200),
        (True, "/health?ready=1", 200),
    ],
)
async def test_health_is_503_only_when_asked_for_readiness(start, ready, path, status):
    plane = await start()
    plane.gate.healthy = {"state": "unloaded", "ready": ready}
    client = await plane.client()

    assert (await client.get(path)).status == status


async def test_models_are_listed_without_a_load(start):
    plane = await start()
    client = await plane.client()

    for path in ("/v1/models", "/models", "/v1/models/"):
        listed = (await client.get(path)).json
        assert listed["object"] == "list"
        assert [card["id"] for card in listed["data"]] == ["code", "chat"]
        assert listed["data"][0]["context_length"] == 4096
        assert listed["data"][0]["max_model_len"] == 4096
        assert listed["data"][0]["capabilities"] == ["chat", "tools"]
        assert listed["data"][0]["aliases"] == ["coder"]
        assert listed["data"][1]["state"] == "unloaded"
        assert listed["data"][0]["object"] == "model"
    assert plane.gate.arrived == []


async def test_one_model_is_found_by_name_or_alias(start):
    plane = await start()
    plane.gate.cards.append(ModelCard("org/some model", "unloaded"))
    client = await plane.client()

    assert (await client.get("/v1/models/code")).json["id"] == "code"
    assert (await client.get("/v1/models/coder")).json["id"] == "code"
    assert (await client.get("/v1/models/org%2Fsome%20model")).json["id"] == "org/some model"
    missing = await client.get("/v1/models/nobody")
    assert (missing.status, missing.error["code"]) == (404, "model_not_found")
    assert "code, chat" in missing.error["remedy"]


async def test_head_of_a_local_answer_has_no_body(start):
    plane = await start()
    client = await plane.client()

    head, get = await client.get("/health", method="HEAD"), await client.get("/health")

    assert head.headers["content-length"] == get.headers["content-length"]


async def test_root_says_what_is_here(start):
    plane = await start()
    client = await plane.client()

    response = await client.get("/")

    assert response.headers["content-type"].startswith("text/plain")
    assert f":{plane.listener.port}/v1" in response.body.decode()
    assert "code, chat" in response.body.decode()


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/health"),
        ("DELETE", "/v1/models"),
        ("POST", "/"),
        ("GET", "/v1/chat/completions"),
        ("PUT", "/v1/embeddings"),
        ("GET", "/chat/completions"),
        ("HEAD", "/v1/completions"),
    ],
)
async def test_wrong_method_is_a_405_and_no_load(start, method, path):
    plane = await start()
    client = await plane.client()

    response = await client.get(path, method=method)

    assert response.status == 405
    assert "allow" in response.headers
    assert plane.gate.arrived == []


async def test_what_browsers_ask_for_on_their_own_is_a_404_and_no_load(start):
    plane = await start()
    client = await plane.client()

    assert (await client.get("/favicon.ico")).error["code"] == "not_found"
    assert plane.gate.arrived == []


async def test_preflight_of_a_known_page_is_answered(start):
    plane = await start(guard=Guard(cors_origins=["https://chat.example"], api_keys=["k"]))
    client = await plane.client()

    response = await client.get(
        "/v1/chat/completions",
        b"Origin: https://chat.example\r\nAccess-Control-Request-Method: POST\r\n"
        b"Access-Control-Request-Headers: authorization\r\n",
        method="OPTIONS",
    )

    assert response.status == 204
    assert response.headers["access-control-allow-origin"] == "https://chat.example"
    assert response.headers["access-control-allow-headers"] == "authorization"
    assert "POST" in response.headers["access-control-allow-methods"]
    assert response.headers["vary"] == "Origin"


async def test_preflight_of_an_unknown_page_is_refused(start):
    plane = await start()
    client = await plane.client()

    response = await client.get(
        "/v1/chat/completions",
        b"Origin: https://evil.example\r\nAccess-Control-Request-Method: POST\r\n",
        method="OPTIONS",
    )

    assert response.status == 403
    assert not [name for name in response.headers if name.startswith("access-control")]


async def test_known_page_reads_answers_and_errors(start):
    plane = await start(guard=Guard(cors_origins=["https://chat.example"]))
    client = await plane.client()
    origin = b"Origin: https://chat.example\r\n"

    good = await client.post(headers=origin)
    bad = await client.post(b"{", headers=origin)

    assert (good.status, bad.status) == (200, 400)
    for response in (good, bad):
        assert response.headers["access-control-allow-origin"] == "https://chat.example"
    assert "origin" not in plane.engine.requests[0].headers


@pytest.mark.parametrize(
    "headers",
    [
        b"Origin: https://evil.example\r\n",
        b"Origin: null\r\n",
        b"Sec-Fetch-Site: cross-site\r\n",
    ],
)
async def test_request_of_a_web_page_is_refused_before_its_body(start, headers):
    plane = await start()
    client = await plane.client()

    await client.send(
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\n"
        + headers
        + b"Content-Length: 1000000\r\n\r\n"
    )

    response = await client.response()
    assert (response.status, response.error["code"]) == (403, "forbidden_origin")
    assert plane.gate.arrived == []


async def test_foreign_host_is_refused_even_for_health(start):
    plane = await start()
    client = await plane.client()

    await client.send(b"GET /health HTTP/1.1\r\nHost: rebound.example\r\n\r\n")

    assert (await client.response()).status == 403


async def test_missing_host_is_refused(start):
    plane = await start()
    client = await plane.client()

    await client.send(b"GET /health HTTP/1.1\r\n\r\n")

    assert (await client.response()).status == 400


async def test_absolute_target_is_judged_by_its_own_host(start):
    plane = await start()
    client = await plane.client()

    await client.send(b"GET http://evil.example/health HTTP/1.1\r\nHost: localhost\r\n\r\n")

    assert (await client.response()).status == 403


async def test_missing_key_is_refused_and_the_right_one_is_not_passed_on(start):
    plane = await start(guard=Guard(api_keys=["secret"]))
    client = await plane.client()

    assert (await client.get("/health")).status == 200
    assert (await client.get("/v1/models")).status == 401
    refused = await (await plane.client()).post()
    assert (refused.status, refused.error["code"]) == (401, "unauthorized")
    assert refused.headers["www-authenticate"] == "Bearer"
    assert (await client.post(headers=b"Authorization: Bearer secret\r\n")).status == 200
    assert (await client.post(headers=b"X-API-Key: secret\r\n")).status == 200
    for request in plane.engine.requests:
        assert not request.headers.keys() & {"authorization", "x-api-key"}


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        (b"Content-Type: text/plain\r\nAuthorization: Bearer k\r\n", 415),
        (b"Content-Type: application/json\r\n", 401),
    ],
)
async def test_page_that_may_use_the_port_can_read_why_it_was_refused(start, headers, status):
    plane = await start(guard=Guard(cors_origins=["https://chat.example"], api_keys=["k"]))
    client = await plane.client()

    refused = await client.get(
        "/v1/chat/completions",
        headers + b"Origin: https://chat.example\r\nContent-Length: 0\r\n",
        method="POST",
    )

    assert refused.status == status
    assert refused.headers["access-control-allow-origin"] == "https://chat.example"
    assert plane.gate.arrived == []
