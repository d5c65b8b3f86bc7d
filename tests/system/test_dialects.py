"""The official clients of three dialects, on the real engines: the same from MLX and llama.cpp."""

import concurrent.futures
import json

import anthropic
import ollama
import openai
import pytest

from tests.lessons import FRANCE, LESSONS, TOOLS
from tests.system.running import request


ENGINES = {"mlx": "chat", "llama.cpp": "reason"}
FUNCTION = TOOLS[0]["function"]
MULTIPLY, WEATHER, RESULT = (LESSONS[n] for n in ("multiply", "weather", "weather_result"))
PIXEL = "iVBORw0KGgo="


@pytest.fixture(params=ENGINES.values(), ids=ENGINES)
def profile(request):
    return request.param


@pytest.fixture
def gateway(demo):
    return f"http://127.0.0.1:{demo.ports[8080]}"


def is_loaded(demo, name):
    return demo.profile(name)["state"] == "ready"


# --- Messages -----------------------------------------------------------------------------------


@pytest.fixture
def claude(gateway):
    with anthropic.Anthropic(base_url=gateway, api_key="none", max_retries=0) as client:
        yield client


def asked(prompt, **fields):
    """Of `messages.create`, greedily."""
    message = {"role": "user", "content": prompt}
    greedy = {"temperature": 0}
    return {"max_tokens": 300, "messages": [message], "extra_body": greedy, **fields}


CLAUDE_TOOLS = [
    {
        "name": FUNCTION["name"],
        "description": FUNCTION["description"],
        "input_schema": FUNCTION["parameters"],
    }
]


def message_of(client, profile, *, streamed, **fields):
    """The whole message, however it came."""
    if not streamed:
        return client.messages.create(model=profile, **fields)
    with client.messages.stream(model=profile, **fields) as stream:
        return stream.get_final_message()


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
def test_message_has_thinking_and_text(claude, profile, streamed):
    message = message_of(claude, profile, streamed=streamed, **asked(MULTIPLY["prompt"]))
    assert [block.type for block in message.content] == ["thinking", "text"]
    assert message.content[0].thinking.strip() == MULTIPLY["reasoning"]
    assert message.content[1].text == MULTIPLY["answer"]
    assert (message.model, message.stop_reason) == (profile, "end_turn")
    assert message.usage.output_tokens == 52


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
def test_message_calls_a_tool_and_takes_its_result(claude, profile, streamed):
    question = asked(WEATHER["prompt"], tools=CLAUDE_TOOLS)
    message = message_of(claude, profile, streamed=streamed, **question)
    (call,) = message.content
    assert message.stop_reason == "tool_use"
    assert {"name": call.name, "arguments": call.input} == WEATHER["call"]
    result = {"type": "tool_result", "tool_use_id": call.id, "content": RESULT["tool"]}
    conversation = [
        *question["messages"],
        {"role": "assistant", "content": [block.model_dump() for block in message.content]},
        {"role": "user", "content": [result]},
    ]
    question = {**question, "messages": conversation}
    answer = message_of(claude, profile, streamed=streamed, **question)
    assert answer.content[0].text == RESULT["answer"]


def test_message_stops_for_want_of_tokens(claude, profile):
    message = claude.messages.create(model=profile, **asked("Hello", max_tokens=3))
    assert (message.stop_reason, message.usage.output_tokens) == ("max_tokens", 3)


def test_tokens_are_counted_alike(claude):
    def counted(profile):
        messages = [{"role": "user", "content": WEATHER["prompt"]}]
        return claude.messages.count_tokens(
            model=profile, messages=messages, system="Be kind.", tools=CLAUDE_TOOLS
        ).input_tokens

    mlx, llama = (counted(profile) for profile in ENGINES.values())
    assert mlx == llama > 200


def test_refusal_is_an_error_of_anthropics_client(claude, profile):
    with pytest.raises(anthropic.BadRequestError) as caught:
        claude.messages.create(model=profile, **asked("x " * 40_000))
    assert caught.value.body["type"] == "error"
    assert caught.value.body["error"]["type"] == "invalid_request_error"
    with pytest.raises(anthropic.NotFoundError, match="nobody"):
        claude.messages.create(model="nobody", **asked("Hello"))


# --- Responses ----------------------------------------------------------------------------------


@pytest.fixture
def gpt(gateway):
    with openai.OpenAI(base_url=f"{gateway}/v1", api_key="none", max_retries=0) as client:
        yield client


GPT_TOOLS = [{"type": "function", **FUNCTION}]


def response_of(client, profile, *, streamed, **fields):
    """The whole response, however it came; numbers and ids of a stream of ours are checked."""
    if not streamed:
        return client.responses.create(model=profile, temperature=0, **fields)
    events = list(client.responses.create(model=profile, temperature=0, stream=True, **fields))
    if profile == ENGINES["mlx"]:  # llama.cpp does not number them
        assert [event.sequence_number for event in events] == list(range(len(events)))
    kinds = [event.type for event in events]
    assert kinds[:2] == ["response.created", "response.in_progress"]
    assert kinds[-1] == "response.completed"
    added, done = (
        {e.item.id for e in events if e.type == f"response.output_item.{kind}"}
        for kind in ("added", "done")
    )
    assert added == done
    return events[-1].response


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
def test_response_has_reasoning_and_text(gpt, profile, streamed):
    response = response_of(gpt, profile, streamed=streamed, input=MULTIPLY["prompt"])
    assert [item.type for item in response.output] == ["reasoning", "message"]
    assert response.output[0].content[0].text.strip() == MULTIPLY["reasoning"]
    assert response.output_text == MULTIPLY["answer"]
    assert (response.model, response.status) == (profile, "completed")
    assert response.usage.output_tokens == 52


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
def test_response_calls_a_function_and_takes_its_output(gpt, profile, streamed):
    first = {"role": "user", "content": WEATHER["prompt"]}
    response = response_of(gpt, profile, streamed=streamed, input=[first], tools=GPT_TOOLS)
    (call,) = response.output
    called = {"name": call.name, "arguments": json.loads(call.arguments)}
    assert called == WEATHER["call"]
    output = {
        "type": "function_call_output", "call_id": call.call_id, "output": RESULT["tool"],
    }  # fmt: skip
    conversation = [first, call.model_dump(exclude_none=True), output]
    answer = response_of(gpt, profile, streamed=streamed, input=conversation, tools=GPT_TOOLS)
    assert answer.output_text == RESULT["answer"]


def test_streams_helper_of_the_client_puts_ours_together(gpt):
    with gpt.responses.stream(model="chat", input=MULTIPLY["prompt"], temperature=0) as stream:
        for event in stream:
            assert event.type
        assert stream.get_final_response().output_text == MULTIPLY["answer"]


def test_earlier_response_is_refused(gpt, profile):
    with pytest.raises(openai.BadRequestError, match=r"previous_response_id|not stored"):
        gpt.responses.create(model=profile, input="Hello", previous_response_id="resp_1")


# --- the list of models -------------------------------------------------------------------------


def test_models_tell_context_state_and_capabilities(demo, gpt):
    models = {model.id: model for model in gpt.models.list()}
    assert set(models) == {"code", "code6", "chat", "raw", "reason"}
    for model in models.values():
        assert model.context_length == model.max_model_len == 2048 or model.context_length > 2048
        assert {"chat", "completions", "tools", "reasoning"} == set(model.capabilities)
        assert model.state == demo.profile(model.id)["state"]
    assert gpt.models.retrieve("raw").id == "raw"


def test_vectors_of_an_mlx_profile_are_a_501_that_says_where_there_are_some(gpt):
    with pytest.raises(openai.InternalServerError, match="--embeddings") as caught:
        gpt.embeddings.create(model="chat", input="Hello")
    assert caught.value.status_code == 501


# --- Ollama -------------------------------------------------------------------------------------


@pytest.fixture
def llama(gateway):
    with ollama.Client(host=gateway) as client:
        yield client


def said(prompt):
    return [{"role": "user", "content": prompt}]


GREEDY = {"temperature": 0}


def test_ollama_lists_shows_and_tells_what_is_resident_without_a_load(demo, llama):
    loads = sum(each["loads"] for each in demo.status()["profiles"])
    models = {model.model: model for model in llama.list().models}
    assert {"chat:latest", "raw:latest"} <= set(models)
    assert models["raw:latest"].size > 500_000
    assert models["raw:latest"].details.quantization_level == "Q8_0"
    shown = llama.show("raw")
    assert shown.capabilities == ["completion", "tools", "thinking"]
    assert shown.modelinfo["general.architecture"] == "qwen3"
    assert shown.modelinfo["qwen3.context_length"] >= 2048
    resident = {model.model.removesuffix(":latest") for model in llama.ps().models}
    assert resident == {p["name"] for p in demo.status()["profiles"] if p["state"] == "ready"}
    assert sum(each["loads"] for each in demo.status()["profiles"]) == loads


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
def test_ollama_chats_from_cold_with_thinking(demo, llama, profile, streamed):
    if is_loaded(demo, profile):
        assert demo.ctl("unload", profile).returncode == 0
    answer = llama.chat(
        profile, said(MULTIPLY["prompt"]), stream=streamed, options=GREEDY, keep_alive="5m"
    )
    parts = list(answer) if streamed else [answer]
    text, thoughts = (
        "".join(getattr(part.message, field) or "" for part in parts)
        for field in ("content", "thinking")
    )
    assert (text.strip(), thoughts.strip()) == (MULTIPLY["answer"], MULTIPLY["reasoning"])
    assert len(parts) > 20 or not streamed
    last = parts[-1]
    assert (last.done, last.done_reason, last.eval_count) == (True, "stop", 52)
    assert last.total_duration >= last.eval_duration > 0
    assert is_loaded(demo, profile)


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
def test_ollama_calls_a_tool_and_takes_its_result(llama, profile, streamed):
    messages = said(WEATHER["prompt"])
    answer = llama.chat(profile, messages, tools=TOOLS, stream=streamed, options=GREEDY)
    parts = list(answer) if streamed else [answer]
    (call,) = [call for part in parts for call in part.message.tool_calls or ()]
    called = {"name": call.function.name, "arguments": dict(call.function.arguments)}
    assert called == WEATHER["call"]
    messages += [
        {"role": "assistant", "content": "", "tool_calls": [call.model_dump()]},
        {"role": "tool", "tool_name": call.function.name, "content": RESULT["tool"]},
    ]
    answer = llama.chat(profile, messages, tools=TOOLS, options=GREEDY)
    assert answer.message.content == RESULT["answer"]


def test_ollama_generates(llama, profile):
    prompt, answer = FRANCE
    parts = llama.generate(f"{profile}:latest", prompt, stream=True, options=GREEDY)
    assert "".join(part.response for part in parts) == answer
    short = llama.generate(profile, prompt, options={**GREEDY, "num_predict": 3})
    assert (short.done_reason, short.eval_count) == ("length", 3)
    until = llama.generate(profile, prompt, options={**GREEDY, "stop": [" of"]})
    assert until.response == "The capital"


def test_ollama_loads_without_a_prompt_and_never_unloads(demo, llama):
    if is_loaded(demo, "chat"):
        assert demo.ctl("unload", "chat").returncode == 0
    assert llama.generate("chat").done_reason == "load"
    assert is_loaded(demo, "chat")
    assert llama.generate("chat", keep_alive=0).done_reason == "unload"
    assert is_loaded(demo, "chat")


def test_ollamas_errors_are_its_clients_errors(llama):
    with pytest.raises(ollama.ResponseError, match="not found") as caught:
        llama.chat("nobody", said("Hello"))
    assert caught.value.status_code == 404
    with pytest.raises(ollama.ResponseError, match="llmd-ctl pull"):
        llama.pull("llama3")
    picture = [{"role": "user", "content": "What is it?", "images": [PIXEL]}]
    with pytest.raises(ollama.ResponseError) as caught:  # the demo model is blind
        llama.chat("chat", picture)
    assert caught.value.status_code == 400


# --- all at once --------------------------------------------------------------------------------


def test_dialects_do_not_mix(claude, gpt, llama):
    asks = [
        lambda: claude.messages.create(model="chat", **asked(FRANCE[0])).content[0].text,
        lambda: gpt.responses.create(model="chat", input=FRANCE[0], temperature=0).output_text,
        lambda: llama.chat("chat", said(FRANCE[0]), options=GREEDY).message.content,
    ]
    with concurrent.futures.ThreadPoolExecutor(6) as pool:
        answers = [pool.submit(ask) for ask in asks * 4]
        assert {answer.result() for answer in answers} == {FRANCE[1]}


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/messages", {"max_tokens": 9, "messages": [{"role": "user", "content": [
            {"type": "image", "source": {"type": "url", "url": "http://127.0.0.1:9/"}}]}]}),
        ("/v1/responses", {"input": [{"role": "user", "content": [
            {"type": "input_image", "image_url": "file:///etc/passwd"}]}]}),
        ("/api/chat", {"messages": [{"role": "user", "images": ["http://127.0.0.1:9/"]}]}),
    ],
)  # fmt: skip
def test_address_in_a_request_is_refused_and_not_fetched(demo, path, body):
    status, _, answer = request(demo.ports[8080], path=path, body={"model": "chat", **body})
    assert status == 400
    assert b"fetched" in answer or b"base64" in answer
