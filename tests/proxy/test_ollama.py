"""Ollama's API on the gateway, in front of a scripted engine."""

import json

import pytest
from msgspec.structs import replace

from llmd.errors import BudgetExceededError
from llmd.proxy.guard import Guard
from llmd.proxy.limits import Limits


CHAT = {"model": "code", "messages": [{"role": "user", "content": "Hello"}]}
EVENTS = [
    b'data: {"choices":[{"delta":{"content":"Hello"}}]}\n\n',
    b'data: {"choices":[{"delta":{"content":" you"},"finish_reason":"stop"}]}\n\n',
    b'data: {"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":2}}\n\ndata: [DONE]\n\n',
]


def body(**fields):
    return json.dumps({**CHAT, **fields}).encode()


def lines(response):
    return [json.loads(line) for line in response.body.splitlines()]


async def streams(side):
    """An engine that streams `EVENTS`, again and again."""
    while await side.request() is not None:
        await side.stream_head()
        for event in EVENTS:
            await side.chunk(event)
        await side.send(b"0\r\n\r\n")


@pytest.fixture
def gateway(start):
    """Starts a plane whose port is the gateway."""

    async def begin(script=streams, **options):
        plane = await start(script, **options)
        plane.gate.gateway = True
        return plane

    return begin


# --- what needs no engine -----------------------------------------------------------------------


async def test_models_are_told_without_a_load(gateway):
    plane = await gateway()
    client = await plane.client()

    tags = (await client.get("/api/tags")).json["models"]
    resident = (await client.get("/api/ps")).json["models"]
    shown = await client.post(b'{"model":"coder:latest"}', "/api/show")
    version = (await client.get("/api/version")).json["version"]

    assert [tag["name"] for tag in tags] == ["code:latest", "chat:latest"]
    assert len({tag["digest"] for tag in tags}) == 2
    assert [(model["name"], model["size_vram"]) for model in resident] == [("code:latest", 7)]
    assert shown.json["capabilities"] == ["completion", "tools"]
    assert shown.json["model_info"]["unknown.context_length"] == 4096
    assert tuple(map(int, version.split("."))) >= (0, 6, 4)
    assert plane.gate.arrived == []


@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_probe_of_the_root_finds_ollama_running(gateway, method):
    plane = await gateway()
    client = await plane.client()

    response = await client.get("/", method=method)

    assert response.status == 200
    assert method == "HEAD" or b"Ollama is running" in response.body


@pytest.mark.parametrize(
    ("method", "path", "status", "says"),
    [
        ("POST", "/api/pull", 501, "llmd-ctl pull"),
        ("POST", "/api/push", 501, "uploads nothing"),
        ("POST", "/api/create", 501, "llmd-ctl pull"),
        ("POST", "/api/copy", 501, "aliases"),
        ("DELETE", "/api/delete", 501, "deletes no weights"),
        ("POST", "/api/embed", 501, "/v1/embeddings"),
        ("POST", "/api/blobs/sha256:0", 404, "no /api/blobs"),
        ("GET", "/api/chat", 405, "POST"),
        ("POST", "/api/tags", 405, "GET"),
        ("GET", "/api/delete", 405, "DELETE"),
    ],
)
async def test_what_is_not_done_is_refused_with_what_to_do(gateway, method, path, status, says):
    plane = await gateway()
    client = await plane.client()

    response = await client.get(path, method=method)

    assert response.status == status
    assert says in response.error
    assert plane.gate.arrived == []


@pytest.mark.parametrize("path", ["/api/chat", "/api/generate", "/api/show"])
@pytest.mark.parametrize("sent", [b"", b"{", b"[]", b'"x"', b"\xff", b'{"model":7}', b"{}"])
async def test_bad_body_is_a_400_in_ollamas_shape_and_no_load(gateway, path, sent):
    plane = await gateway()
    client = await plane.client()

    response = await client.post(sent, path)

    assert response.status == 400
    assert isinstance(response.error, str)
    assert plane.gate.arrived == []
    assert (await client.get("/api/version")).status == 200


@pytest.mark.parametrize("path", ["/api/chat", "/api/show"])
async def test_unknown_model_is_a_404_and_no_load(gateway, path):
    plane = await gateway()
    client = await plane.client()

    response = await client.post(body(model="nobody"), path)

    assert response.status == 404
    assert "not found" in response.error
    assert "code" in response.error
    assert plane.gate.arrived == []


async def test_unload_is_understood_and_nobody_is_unloaded(gateway):
    plane = await gateway()
    client = await plane.client()

    response = await client.post(body(messages=[], keep_alive=0), "/api/chat")

    assert (response.json["done"], response.json["done_reason"]) == (True, "unload")
    assert plane.gate.arrived == []


async def test_other_ports_do_not_speak_it(start):
    plane = await start()
    client = await plane.client()

    await client.post(body(), "/api/chat")
    await client.get("/api/tags")

    assert [request.line.split()[1] for request in plane.engine.requests] == [
        "/api/chat", "/api/tags",
    ]  # fmt: skip
    assert b"Ollama" not in (await client.get("/")).body


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        (b"Origin: https://evil.example\r\n", 403),
        (b"Sec-Fetch-Site: cross-site\r\n", 403),
        (b"", 401),
        (b"Authorization: Bearer wrong\r\n", 401),
        (b"Authorization: Bearer k\r\n", 200),
    ],
)
@pytest.mark.parametrize("path", ["/api/tags", "/api/chat", "/api/version"])
async def test_rules_of_the_port_are_the_same(gateway, path, headers, status):
    plane = await gateway(guard=Guard(api_keys=["k"]))
    client = await plane.client()

    if path == "/api/chat":
        response = await client.post(body(), path, headers)
    else:
        response = await client.get(path, headers)

    assert response.status == status
    assert status == 200 or isinstance(response.error, str)
    assert (plane.gate.arrived != []) == (status == 200 and path == "/api/chat")


# --- chats --------------------------------------------------------------------------------------


async def test_chat_is_streamed_as_lines_and_the_connection_lives_on(gateway):
    plane = await gateway()
    client = await plane.client()

    for _ in range(2):
        response = await client.post(body(), "/api/chat")
        assert response.headers["content-type"] == "application/x-ndjson"
        assert response.headers["x-llmd-profile"] == "code"
        *said, last = lines(response)
        assert [line["message"]["content"] for line in said] == ["Hello", " you"]
        assert (last["done"], last["eval_count"]) == (True, 2)

    assert plane.engine.connections == 1
    (first, _) = plane.engine.requests
    assert first.line == "POST /v1/chat/completions HTTP/1.1"
    assert json.loads(first.body)["stream"] is True


async def test_one_document_comes_with_its_length(gateway):
    plane = await gateway()
    client = await plane.client()

    response = await client.post(body(stream=False), "/api/chat")

    assert response.headers["content-type"] == "application/json"
    assert int(response.headers["content-length"]) == len(response.body)
    assert response.json["message"]["content"] == "Hello you"


async def test_lines_come_as_the_engine_speaks(gateway):
    async def script(side):
        await side.request()
        await side.stream_head()
        await side.chunk(EVENTS[0])
        await side.until_closed()

    plane = await gateway(script)
    client = await plane.client()

    await client.send(post_chat())
    await client.head()
    assert json.loads(await client.chunk())["message"]["content"] == "Hello"
    client.hang_up()
    await plane.engine.until(lambda: plane.engine.closed)
    assert plane.gate.left == [(1, False)]


def post_chat(**fields):
    sent = body(**fields)
    return b"POST /api/chat HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n%b" % (
        len(sent),
        sent,
    )


@pytest.mark.parametrize("streamed", [True, False])
async def test_client_that_hangs_up_while_it_waits_leaves_the_queue(gateway, streamed):
    plane = await gateway(hold=True)
    client = await plane.client()

    await client.send(post_chat(stream=streamed))
    await plane.gate.until(lambda: plane.gate.waiting_tickets)
    client.hang_up()
    await plane.gate.until(lambda: plane.gate.left)


async def test_waiting_client_gets_empty_lines_and_then_the_answer(gateway):
    plane = await gateway(hold=True, limits=Limits(comment_s=0.01))
    client = await plane.client()

    await client.send(post_chat())
    await client.head()
    line = json.loads(await client.chunk())
    assert (line["message"]["content"], line["done"]) == ("", False)
    await plane.gate.grant()
    said = ""
    while not line["done"]:
        line = json.loads((await client.chunk()).splitlines()[-1])
        said += line["message"]["content"]
    assert said.endswith("you")


async def test_client_of_one_document_waits_in_silence(gateway):
    plane = await gateway(hold=True, limits=Limits(comment_s=0.01))
    client = await plane.client()

    await client.send(post_chat(stream=False))
    await plane.gate.until(lambda: plane.gate.waiting_tickets)
    await plane.gate.grant()

    assert (await client.response()).json["message"]["content"] == "Hello you"


NO_ROOM = BudgetExceededError("code", need_bytes=8, budget_bytes=4)


@pytest.mark.parametrize("streamed", [True, False])
async def test_refusal_has_ollamas_shape_and_the_remedy(gateway, streamed):
    plane = await gateway(hold=True)
    client = await plane.client()

    await client.send(post_chat(stream=streamed))
    await plane.gate.refuse(NO_ROOM)

    response = await client.response()
    assert response.status == 503
    assert "raise `budget`" in response.error


async def test_refusal_after_the_first_line_is_a_line(gateway):
    plane = await gateway(hold=True, limits=Limits(comment_s=0.01))
    client = await plane.client()

    await client.send(post_chat())
    await client.head()
    await client.chunk()
    await plane.gate.refuse(NO_ROOM)

    last = b""
    while piece := await client.chunk():
        last = piece
    assert "needs" in json.loads(last)["error"]


@pytest.mark.parametrize("streamed", [True, False])
async def test_engines_error_keeps_its_status(gateway, streamed):
    async def script(side):
        await side.request()
        await side.answer(b'{"error":{"message":"too long"}}', "400 Bad Request")

    plane = await gateway(script)
    client = await plane.client()

    response = await client.post(body(stream=streamed), "/api/chat")

    assert (response.status, response.json) == (400, {"error": "too long"})


@pytest.mark.parametrize("streamed", [True, False])
async def test_engine_that_dies_is_never_taken_for_one_that_is_through(gateway, streamed):
    async def script(side):
        await side.request()
        await side.stream_head()
        await side.chunk(EVENTS[0])
        side.die()

    plane = await gateway(script)
    client = await plane.client()

    response = await client.post(body(stream=streamed), "/api/chat")

    if streamed:
        *_, last = lines(response)
        assert "SIGKILL" in last["error"]
    else:
        assert (response.status, "SIGKILL" in response.error) == (502, True)


@pytest.mark.parametrize("streamed", [True, False])
async def test_engine_that_fails_within_its_stream_is_told(gateway, streamed):
    async def script(side):
        await side.request()
        await side.stream_head()
        await side.chunk(EVENTS[0] + b'data: {"error":{"message":"it broke"}}\n\n')
        await side.send(b"0\r\n\r\n")

    plane = await gateway(script)
    client = await plane.client()

    response = await client.post(body(stream=streamed), "/api/chat")

    if streamed:
        assert lines(response)[-1] == {"error": "it broke"}
    else:
        assert (response.status, response.error) == (502, "it broke")


async def test_engine_that_does_not_stream_is_told(gateway):
    async def script(side):
        await side.request()
        await side.answer(b'{"choices":[]}')

    plane = await gateway(script)
    client = await plane.client()

    response = await client.post(body(), "/api/chat")

    assert response.status == 501
    assert "without streaming" in response.error


async def test_profiles_defaults_are_set_in_what_the_engine_gets(gateway):
    plane = await gateway()
    plane.gate.edits = replace(plane.gate.edits, defaults={"temperature": 0.25})
    client = await plane.client()

    await client.post(body(), "/api/chat")

    assert json.loads(plane.engine.requests[0].body)["temperature"] == 0.25
