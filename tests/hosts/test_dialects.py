"""Messages and Responses by translation: what requests become, and what answers do.

The answers are held against the types of the official clients.
"""

import contextlib
import json

import pytest
from anthropic.types import Message, RawMessageStreamEvent
from hypothesis import given
from hypothesis import strategies as st
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import TypeAdapter

from llmd.hosts.dialects import TRANSLATED
from llmd.hosts.dialects.blocks import Blocks, Ended
from llmd.hosts.dialects.messages import Messages
from llmd.hosts.dialects.responses import Responses
from llmd.hosts.openai_body import RequestError, edit_body


MESSAGE_EVENTS = TypeAdapter(RawMessageStreamEvent)
RESPONSE_EVENTS = TypeAdapter(ResponseStreamEvent)
USAGE = {
    "prompt_tokens": 30,
    "completion_tokens": 7,
    "total_tokens": 37,
    "prompt_tokens_details": {"cached_tokens": 20},
}
DELTAS = [
    {"role": "assistant", "reasoning_content": "\n"},
    {"reasoning_content": "Let me "},
    {"reasoning_content": "see.\n"},
    {"content": "\n\n"},
    {"content": "It is"},
    {"content": " so."},
    {"content": "\n"},
    {"tool_calls": [{"index": 0, "function": {"name": "look", "arguments": '{"at": 1}'}}]},
    {"tool_calls": [{"index": 1, "function": {"name": "wait", "arguments": "{}"}}]},
]
MESSAGE = {
    "reasoning_content": "\nLet me see.\n",
    "content": "\n\nIt is so.\n",
    "tool_calls": [
        {"function": {"name": "look", "arguments": '{"at": 1}'}},
        {"function": {"name": "wait", "arguments": "{}"}},
    ],
}


def messages(content="Hello", **fields):
    """The body of a request to `/v1/messages`."""
    return {"max_tokens": 9, "messages": [{"role": "user", "content": content}], **fields}


def responses(given="Hello", **fields):
    """The body of a request to `/v1/responses`."""
    return {"input": given, **fields}


def chat_of(body):
    kind = Messages if "messages" in body else Responses
    return kind(body, profile="code").chat


def streamed(translation, deltas=DELTAS, finish="tool_calls"):
    """The events of a stream of *deltas*: names and data."""
    translation.begun(30, 20)
    out = b"".join(translation.chunk({"choices": [{"delta": delta}]}) for delta in deltas)
    out += translation.chunk({"choices": [{"delta": {}, "finish_reason": finish}]})
    out += translation.chunk({"choices": [], "usage": USAGE})
    out += translation.end()
    events = []
    for event in out.decode().removesuffix("\n\n").split("\n\n"):
        name, data = event.split("\n")
        events.append((name.removeprefix("event: "), json.loads(data.removeprefix("data: "))))
    assert all(name == data["type"] for name, data in events)
    return [data for _, data in events]


def completion(message=MESSAGE, finish="tool_calls"):
    """A whole chat completion."""
    return {"choices": [{"message": message, "finish_reason": finish}], "usage": USAGE}


# --- blocks -------------------------------------------------------------------------------------


def blocks_of(*deltas):
    blocks = Blocks()
    steps = [step for delta in deltas for step in blocks.feed(delta)]
    steps += blocks.end()
    assert [step.block for step in steps if isinstance(step, Ended)] == blocks.whole
    return [(block.kind, block.text) for block in blocks.whole]


@pytest.mark.parametrize("deltas", [DELTAS, [MESSAGE]], ids=["streamed", "whole"])
def test_reasoning_text_and_calls_are_blocks_in_their_order(deltas):
    found = blocks_of(*deltas)
    assert [kind for kind, _ in found] == ["reasoning", "text", "call", "call"]
    assert found[0][1] == "Let me see.\n"
    assert found[1][1] == "It is so.\n"


def test_white_space_alone_is_no_block():
    assert blocks_of({"content": "\n\n"}, {"content": " "}) == []


def test_white_space_that_text_begins_with_is_kept_where_nothing_came_before():
    assert blocks_of({"content": "\n"}, {"content": "    return"}) == [("text", "\n    return")]


def test_arguments_may_come_in_pieces():
    first = {"index": 0, "function": {"name": "look", "arguments": '{"a'}}
    rest = {"index": 0, "function": {"arguments": '": 1}'}}
    assert blocks_of({"tool_calls": [first]}, {"tool_calls": [rest]}) == [("call", '{"a": 1}')]


# --- Messages: requests -------------------------------------------------------------------------


def test_conversation_with_tools_is_the_same_in_other_words():
    body = messages(
        system=[{"type": "text", "text": "Be "}, {"type": "text", "text": "kind."}],
        messages=[
            {"role": "user", "content": "Weather?"},
            {
                "role": "assistant",
                "content": [
                    {"type": "thinking", "thinking": "Look.", "signature": "x"},
                    {"type": "text", "text": "One moment."},
                    {"type": "tool_use", "id": "t1", "name": "look", "input": {"at": 1}},
                ],
            },
            {
                "role": "user",
                "content": [
                    {"type": "tool_result", "tool_use_id": "t1", "content": "sunny"},
                    {"type": "text", "text": "Well?"},
                ],
            },
        ],
        tools=[{"name": "look", "description": "Looks.", "input_schema": {"type": "object"}}],
        stop_sequences=["END"],
        temperature=0.5,
        top_k=3,
        stream=True,
        metadata={"user_id": "u"},
    )
    assert chat_of(body) == {
        "max_tokens": 9,
        "temperature": 0.5,
        "top_k": 3,
        "stream": True,
        "stop": ["END"],
        "messages": [
            {"role": "system", "content": "Be kind."},
            {"role": "user", "content": "Weather?"},
            {
                "role": "assistant",
                "content": "One moment.",
                "reasoning_content": "Look.",
                "tool_calls": [
                    {
                        "id": "t1",
                        "type": "function",
                        "function": {"name": "look", "arguments": {"at": 1}},
                    }
                ],
            },
            {"role": "tool", "tool_call_id": "t1", "content": "sunny"},
            {"role": "user", "content": "Well?"},
        ],
        "tools": [
            {
                "type": "function",
                "function": {
                    "name": "look",
                    "description": "Looks.",
                    "parameters": {"type": "object"},
                },
            }
        ],
    }


def test_line_that_differs_each_time_is_taken_out_of_the_system_prompt():
    system = [
        {"type": "text", "text": "x-anthropic-billing-header: cch=123;"},
        {"type": "text", "text": "Be kind."},
    ]
    assert chat_of(messages(system=system))["messages"][0]["content"] == "Be kind."


@pytest.mark.parametrize(("kind", "thinks"), [("enabled", True), ("disabled", False)])
def test_thinking_is_the_templates_business(kind, thinks):
    chat = chat_of(messages(thinking={"type": kind, "budget_tokens": 1024}))
    assert chat["chat_template_kwargs"] == {"enable_thinking": thinks}


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        ({"type": "auto"}, "auto"),
        ({"type": "any"}, "required"),
        ({"type": "none"}, "none"),
        ({"type": "tool", "name": "look"}, {"type": "function", "function": {"name": "look"}}),
    ],
)
def test_choice_of_tools_is_passed_on(choice, expected):
    assert chat_of(messages(tools=[{"name": "look"}], tool_choice=choice))["tool_choice"] == (
        expected
    )


def test_tools_that_run_elsewhere_are_not_offered():
    tools = [{"type": "web_search_20250305", "name": "web_search"}, {"name": "look"}]
    assert [tool["function"]["name"] for tool in chat_of(messages(tools=tools))["tools"]] == [
        "look"
    ]
    tools = [{"type": "web_search"}, {"type": "custom", "name": "x"}]
    assert "tools" not in chat_of(responses(tools=tools))


PICTURE = {"type": "base64", "media_type": "image/png", "data": "AAAA"}


def test_image_in_the_request_is_a_data_url():
    chat = chat_of(messages([{"type": "image", "source": PICTURE}]))
    (part,) = edit_body(chat, chat=True, profile="code")["messages"][0]["content"]
    assert part["image_url"]["url"] == "data:image/png;base64,AAAA"


ADDRESSES = ["http://127.0.0.1:8081/", "https://x.example/a.png", "file:///etc/passwd", "/etc/x"]


@pytest.mark.parametrize("address", ADDRESSES)
@pytest.mark.parametrize(
    "make",
    [
        pytest.param(
            lambda url: messages([{"type": "image", "source": {"type": "url", "url": url}}]),
            id="messages",
        ),
        pytest.param(
            lambda url: messages(
                [
                    {
                        "type": "tool_result",
                        "tool_use_id": "t",
                        "content": [{"type": "image", "source": {"type": "url", "url": url}}],
                    }
                ]
            ),
            id="a tool's result",
        ),
        pytest.param(
            lambda url: responses(
                [{"role": "user", "content": [{"type": "input_image", "image_url": url}]}]
            ),
            id="responses",
        ),
        pytest.param(
            lambda url: responses(
                [
                    {
                        "type": "function_call_output",
                        "call_id": "c",
                        "output": [{"type": "input_image", "image_url": url}],
                    }
                ]
            ),
            id="a function's output",
        ),
    ],
)
def test_address_of_an_image_is_never_fetched(make, address):
    with pytest.raises(RequestError, match="not fetched"):
        edit_body(chat_of(make(address)), chat=True, profile="code")


# --- Responses: requests ------------------------------------------------------------------------


def test_items_of_one_turn_become_one_message():
    body = responses(
        [
            {"role": "user", "content": [{"type": "input_text", "text": "Weather?"}]},
            {"type": "reasoning", "id": "rs_1", "summary": [], "content": [
                {"type": "reasoning_text", "text": "Look."}]},
            {"type": "message", "role": "assistant", "content": [
                {"type": "output_text", "text": "One moment.", "annotations": []}]},
            {"type": "function_call", "call_id": "c1", "name": "look", "arguments": "{}"},
            {"type": "function_call_output", "call_id": "c1", "output": "sunny"},
        ],
        instructions="Be kind.",
        max_output_tokens=9,
        tools=[{"type": "function", "name": "look", "parameters": {"type": "object"}}],
        tool_choice={"type": "function", "name": "look"},
        reasoning={"effort": "high"},
        store=True,
    )  # fmt: skip
    chat = chat_of(body)
    assert chat["messages"] == [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": "Weather?"},
        {
            "role": "assistant",
            "content": "One moment.",
            "reasoning_content": "Look.",
            "tool_calls": [
                {
                    "id": "c1",
                    "type": "function",
                    "function": {"name": "look", "arguments": "{}"},
                }
            ],
        },
        {"role": "tool", "tool_call_id": "c1", "content": "sunny"},
    ]
    assert chat["max_tokens"] == 9
    assert chat["tool_choice"] == {"type": "function", "function": {"name": "look"}}
    assert chat["chat_template_kwargs"] == {"enable_thinking": True, "reasoning_effort": "high"}


@pytest.mark.parametrize("field", ["previous_response_id", "conversation", "background", "prompt"])
def test_what_needs_a_store_is_refused_with_the_way_out(field):
    with pytest.raises(RequestError, match="send") as caught:
        chat_of(responses(**{field: "x"}))
    assert caught.value.param == field


@pytest.mark.parametrize(
    ("body", "param"),
    [
        (messages(messages=[]), "messages"),
        (messages(messages="x"), "messages"),
        (messages(messages=["x"]), "messages[0]"),
        (messages(messages=[{"role": "robot", "content": ""}]), "messages[0].role"),
        (messages(content=7), "messages[0].content"),
        (messages([7]), "messages[0].content[0]"),
        (messages([{"type": "nope"}]), "messages[0].content[0]"),
        (messages([{"type": "text", "text": 7}]), "messages[0].content[0].text"),
        (messages([{"type": "tool_result"}]), "messages[0].content[0].tool_use_id"),
        (messages([{"type": "image"}]), "messages[0].content[0].source"),
        (
            messages([{"type": "image", "source": {"type": "file", "file_id": "f"}}]),
            "messages[0].content[0]",
        ),
        (messages(system=7), "system"),
        (messages(system=[{"type": "image", "source": PICTURE}]), "system[0]"),
        (messages(stop_sequences="x"), "stop_sequences"),
        (messages(stop_sequences=[7]), "stop_sequences[0]"),
        (messages(stream="yes"), "stream"),
        (messages(tools={}), "tools"),
        (messages(tools=[{"input_schema": {}}]), "tools[0].name"),
        (messages(tools=[{"name": "x", "input_schema": 7}]), "tools[0].parameters"),
        (messages(tools=[{"name": "x"}], tool_choice="any"), "tool_choice"),
        (messages(thinking=True), "thinking"),
        (responses([]), "input"),
        (responses(None), "input"),
        (responses(7), "input"),
        (responses(["x"]), "input[0]"),
        (responses([{"type": "item_reference", "id": "x"}]), "input[0]"),
        (responses([{"role": "robot", "content": "x"}]), "input[0].role"),
        (responses([{"role": "user"}]), "input[0].content"),
        (
            responses([{"role": "user", "content": [{"type": "input_file"}]}]),
            "input[0].content[0]",
        ),
        (responses([{"type": "function_call", "name": "x"}]), "input[0].arguments"),
        (responses(instructions=7), "instructions"),
        (responses(stream=1), "stream"),
        (responses(tools=[{"type": "function"}]), "tools[0].name"),
        (responses(reasoning="high"), "reasoning"),
    ],
)
def test_what_is_wrong_is_refused_by_the_name_of_its_field(body, param):
    with pytest.raises(RequestError) as caught:
        chat_of(body)
    assert (caught.value.status, caught.value.param) == (400, param)


@pytest.mark.parametrize("path", TRANSLATED)
@pytest.mark.parametrize("body", [None, [], 7, "x"])
def test_body_that_is_no_object_is_refused(path, body):
    with pytest.raises(RequestError, match="JSON object"):
        TRANSLATED[path](body, profile="code")


# --- Messages: answers --------------------------------------------------------------------------


def test_whole_message_is_what_the_client_knows():
    message = Message.model_validate(Messages(messages(), profile="code").whole(completion()))
    assert [block.type for block in message.content] == [
        "thinking", "text", "tool_use", "tool_use",
    ]  # fmt: skip
    assert message.content[0].thinking == "Let me see.\n"
    assert message.content[2].input == {"at": 1}
    assert message.content[2].id != message.content[3].id
    assert (message.model, message.stop_reason) == ("code", "tool_use")
    assert message.usage.input_tokens == 10
    assert message.usage.cache_read_input_tokens == 20
    assert message.usage.output_tokens == 7


def test_stream_of_a_message_is_in_order_and_each_block_ends_before_the_next():
    events = streamed(Messages(messages(), profile="code"))
    for event in events:
        MESSAGE_EVENTS.validate_python(event)
    kinds = [event["type"].removeprefix("content_block_") for event in events]
    assert kinds[0] == "message_start"
    assert kinds[-2:] == ["message_delta", "message_stop"]
    assert [k for k in kinds[1:-2] if k != "delta"] == ["start", "stop"] * 4
    assert [e["index"] for e in events if e["type"] == "content_block_start"] == [0, 1, 2, 3]
    assert events[0]["message"]["usage"]["input_tokens"] == 10
    assert events[-2]["usage"]["output_tokens"] == 7
    assert events[-2]["delta"]["stop_reason"] == "tool_use"
    texts = [e["delta"].get("text") for e in events if e["type"] == "content_block_delta"]
    assert "".join(filter(None, texts)) == "It is so.\n"


@pytest.mark.parametrize(
    ("finish", "reason"),
    [("stop", "end_turn"), ("length", "max_tokens"), ("tool_calls", "end_turn")],
)
def test_reason_to_stop_has_its_other_name(finish, reason):
    said = {"content": "x"}  # for tool_calls: a call that could not be read
    whole = Messages(messages(), profile="code").whole(completion(said, finish))
    assert whole["stop_reason"] == reason
    events = streamed(Messages(messages(), profile="code"), [said], finish)
    assert events[-2]["delta"]["stop_reason"] == reason


def test_stop_sequence_is_named():
    translation = Messages(messages(stop_sequences=["END"]), profile="code")
    translation.stopped_at("END")
    whole = translation.whole(completion({"content": "x"}, "stop"))
    assert (whole["stop_reason"], whole["stop_sequence"]) == ("stop_sequence", "END")


# --- Responses: answers -------------------------------------------------------------------------


def test_whole_response_is_what_the_client_knows():
    body = responses(instructions="Be kind.", temperature=0.5)
    response = Response.model_validate(Responses(body, profile="code").whole(completion()))
    assert [item.type for item in response.output] == [
        "reasoning", "message", "function_call", "function_call",
    ]  # fmt: skip
    assert response.output_text == "It is so.\n"
    assert response.output[2].arguments == '{"at": 1}'
    assert (response.status, response.model, response.instructions) == (
        "completed", "code", "Be kind.",
    )  # fmt: skip
    assert response.usage.total_tokens == 37
    assert response.usage.input_tokens_details.cached_tokens == 20
    assert response.model_dump()["store"] is False


def test_response_that_ran_out_of_tokens_is_incomplete():
    said = {"content": "x"}
    whole = Responses(responses(), profile="code").whole(completion(said, "length"))
    assert whole["status"] == whole["output"][0]["status"] == "incomplete"
    assert whole["incomplete_details"] == {"reason": "max_output_tokens"}
    events = streamed(Responses(responses(), profile="code"), [said], "length")
    assert events[-1]["type"] == "response.incomplete"


def test_stream_of_a_response_is_numbered_and_each_item_ends_before_the_next():
    events = streamed(Responses(responses(), profile="code"))
    for event in events:
        RESPONSE_EVENTS.validate_python(event)
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    kinds = [event["type"].removeprefix("response.") for event in events]
    assert kinds[:2] == ["created", "in_progress"]
    assert kinds[-1] == "completed"
    text = [
        "output_item.added", "content_part.added", "delta", "text.done", "content_part.done",
        "output_item.done",
    ]  # fmt: skip
    call = ["output_item.added", "delta", "function_call_arguments.done", "output_item.done"]
    short = [k.replace("reasoning_text", "text").replace("output_text", "text") for k in kinds]
    short = ["delta" if k.endswith(".delta") else k for k in short]
    runs = [k for n, k in enumerate(short) if k != "delta" or short[n - 1] != "delta"]
    assert runs[2:-1] == [*text, *text, *call, *call]
    done = [e["item"] for e in events if e["type"] == "response.output_item.done"]
    assert events[-1]["response"]["output"] == done
    assert [e["output_index"] for e in events if "item" in e] == [0, 0, 1, 1, 2, 2, 3, 3]


@pytest.mark.parametrize(
    ("kind", "body"), [(Messages, messages()), (Responses, responses())], ids=["M", "R"]
)
def test_engine_that_fails_ends_the_stream_with_an_error_event(kind, body):
    event = kind(body, profile="code").broken(RequestError("it broke", status=500))
    name, data = event.decode().strip().split("\n")
    assert name == "event: error"
    data = json.loads(data.removeprefix("data: "))
    assert data["type"] == "error"
    assert data["error"]["message"] == "it broke"


# --- anything -----------------------------------------------------------------------------------

WORDS = sorted(
    {
        "type", "role", "content", "text", "user", "assistant", "message", "messages", "input",
        "tool_use", "tool_result", "thinking", "image", "source", "base64", "url", "tools", "name",
        "function_call", "reasoning", "input_text", "tool_choice", "system", "instructions",
        "summary", "stop_sequences", "chat_template_kwargs", "stop", "document", "data", "id",
    }
)  # fmt: skip
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.sampled_from(WORDS) | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(WORDS), inner, max_size=4)
    ),
    max_leaves=20,
)


@given(JSON, JSON, st.sampled_from(sorted(TRANSLATED)))
def test_whatever_comes_is_a_chat_or_a_refusal(body, item, path):
    if isinstance(body, dict):
        body["input" if path == "/v1/responses" else "messages"] = [item]
    with contextlib.suppress(RequestError):
        chat = TRANSLATED[path](body, profile="code").chat
        edit_body(chat, chat=True, profile="code")
