"""Bodies of OpenAI clients, as mlx_lm.server may see them."""

import pytest

from llmd.hosts.openai_body import RequestError, edit_body, param_of


HELLO = [{"role": "user", "content": "hello"}]
PIXEL = "data:image/png;base64,AAAA"


def image(url):
    return [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": url}}]}]


def edited(**fields):
    return edit_body({"messages": HELLO, **fields}, chat=True, profile="code")


def test_request_cannot_name_what_is_loaded():
    body = edited(model="evil/repo", draft_model="/etc", adapters="/tmp/adapter")
    assert body["model"] == "code"
    assert not {"draft_model", "adapters"} & set(body)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        pytest.param({"temperature": None, "stop": None}, {"stop": []}, id="null means absent"),
        pytest.param({"stop": "END"}, {"stop": ["END"]}, id="one stop word"),
        pytest.param({"stop": ["", "A"]}, {"stop": ["A"]}, id="empty stop word"),
        pytest.param({"max_tokens": -1}, {"stop": []}, id="no limit, as llama.cpp has it"),
        pytest.param({"seed": -1}, {"stop": []}, id="any seed, as llama.cpp has it"),
        pytest.param({"seed": -2}, {"stop": [], "seed": 2**64 - 2}, id="negative seed"),
        pytest.param({"n": 1}, {"stop": []}, id="one choice"),
        pytest.param(
            {"xtc_probability": 0}, {"stop": [], "xtc_probability": 0.0}, id="whole number"
        ),
        pytest.param(
            {"stream_options": {"include_usage": True, "x": 1}},
            {"stop": [], "stream_options": {"include_usage": True}},
            id="usage wanted",
        ),
        pytest.param(
            {"stream_options": {}},
            {"stop": [], "stream_options": {"include_usage": False}},
            id="usage not mentioned",
        ),
        pytest.param({"tools": [], "top_k": 5}, {"stop": [], "tools": [], "top_k": 5}, id="others"),
    ],
)
def test_fields_are_put_as_mlx_lm_reads_them(given, expected):
    assert edited(**given) == {"messages": HELLO, "model": "code", **expected}


def test_developer_is_the_system_to_templates():
    body = edited(messages=[{"role": "developer", "content": "be brief"}, *HELLO])
    assert [message["role"] for message in body["messages"]] == ["system", "user"]


def test_image_inside_the_request_passes():
    assert edited(messages=image(PIXEL))["messages"] == image(PIXEL)


def test_given_body_is_left_alone():
    given = {"messages": [{"role": "developer", "content": "x"}], "model": "any", "n": 1}
    edit_body(given, chat=True, profile="code")
    assert given == {
        "messages": [{"role": "developer", "content": "x"}],
        "model": "any",
        "n": 1,
    }


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        pytest.param({"messages": []}, "messages", id="no messages"),
        pytest.param({"messages": "hi"}, "messages", id="messages that are none"),
        pytest.param({"messages": ["hi"]}, "messages[0]", id="message that is none"),
        pytest.param({"messages": [{"content": "x"}]}, "messages[0]", id="no role"),
        pytest.param(
            {"messages": [{"role": "user", "content": 5}]}, "messages[0].content", id="number"
        ),
        pytest.param(
            {"messages": [{"role": "user", "content": ["x"]}]},
            "messages[0].content[0]",
            id="part that is none",
        ),
        pytest.param(
            {"messages": [{"role": "user", "content": [{"type": "text"}]}]},
            "messages[0].content[0]",
            id="text part without text",
        ),
        pytest.param(
            {"messages": [{"role": "user", "content": [{"type": "video", "url": PIXEL}]}]},
            "messages[0].content[0]",
            id="video",
        ),
        pytest.param(
            {"messages": image("http://169.254.169.254/")}, "messages[0].content[0]", id="http"
        ),
        pytest.param(
            {"messages": image("https://example.com/a.png")}, "messages[0].content[0]", id="https"
        ),
        pytest.param(
            {"messages": image("file:///etc/passwd")}, "messages[0].content[0]", id="file"
        ),
        pytest.param({"n": 2}, "n", id="two choices"),
        pytest.param({"stop": 5}, "stop", id="stop that is no text"),
        pytest.param({"stop": [5]}, "stop", id="stop words that are no text"),
        pytest.param({"chat_template_kwargs": []}, "chat_template_kwargs", id="odd kwargs"),
    ],
)
def test_field_that_cannot_be_served_is_named(fields, param):
    with pytest.raises(RequestError) as caught:
        edited(**fields)
    error = caught.value.to_openai()["error"]
    assert (caught.value.status, error["code"], error["param"]) == (400, "invalid_request", param)
    assert error["type"] == "invalid_request_error"


@pytest.mark.parametrize("body", [None, [], "text", 5])
def test_body_that_is_no_object_is_refused(body):
    with pytest.raises(RequestError, match="JSON object"):
        edit_body(body, chat=True, profile="code")


def test_text_completion_takes_one_prompt_and_a_number_of_logprobs():
    body = edit_body({"prompt": ["once"], "logprobs": 3}, chat=False, profile="code")
    assert (body["prompt"], body["logprobs"], body["top_logprobs"]) == ("once", True, 3)


@pytest.mark.parametrize("prompt", [None, "", [], ["a", "b"], [1, 2], 5])
def test_text_completion_without_one_text_is_refused(prompt):
    with pytest.raises(RequestError) as caught:
        edit_body({"prompt": prompt}, chat=False, profile="code")
    assert caught.value.param == "prompt"


def test_field_is_recognised_in_mlx_lms_words():
    body = {"temperature": "hot"}
    assert param_of("temperature must be of type float", body) == "temperature"
    assert param_of("something else", body) is None
    assert param_of("", body) is None


LOOK, WAIT = ({"type": "function", "function": {"name": name}} for name in ("look", "wait"))


@pytest.mark.parametrize(
    ("choice", "offered"),
    [
        ("auto", [LOOK, WAIT]),
        ("required", [LOOK, WAIT]),
        ("none", None),
        ({"type": "function", "function": {"name": "wait"}}, [WAIT]),
    ],
)
def test_choice_of_tools_is_what_is_offered(choice, offered):
    body = {"messages": [{"role": "user", "content": "x"}], "tools": [LOOK, WAIT]}
    edited = edit_body({**body, "tool_choice": choice}, chat=True, profile="p")
    assert edited.get("tools") == offered
    assert "tool_choice" not in edited


def test_choice_of_a_tool_that_is_not_there_is_refused():
    choice = {"type": "function", "function": {"name": "fly"}}
    body = {"messages": [{"role": "user", "content": "x"}], "tools": [LOOK]}
    with pytest.raises(RequestError, match="'fly'"):
        edit_body({**body, "tool_choice": choice}, chat=True, profile="p")
