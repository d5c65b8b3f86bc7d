import copy
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmd.proxy.gate import BodyEdits, Repair
from llmd.proxy.schemas import MOST_SCHEMAS, widen
from llmd.proxy.tools import apply, concerned, cut
from tests.schemas_of_clients import GIVEN_UP, REFUSED, TAKEN, of_city


WIDEN = BodyEdits(widen_schemas=True)
BAD = of_city({"type": "any", "description": "Where"})
GOOD = of_city({"description": "Where"})


def chat(parameters, name="get_weather", **more):
    return {"type": "function", "function": {"name": name, "parameters": parameters, **more}}


@pytest.mark.parametrize(("parameters", "dropped", "hangs"), REFUSED + GIVEN_UP)
def test_what_llama_cpp_refuses_is_dropped_and_nothing_else(parameters, dropped, hangs):
    schema, expected = copy.deepcopy(parameters), copy.deepcopy(parameters)

    assert tuple(widen(schema)) == dropped
    for where in dropped:
        *steps, keyword = where.split("/")[1:]
        holder = expected
        for step in steps:
            holder = holder[int(step)] if isinstance(holder, list) else holder[step]
        if not isinstance(holder, list) and not (steps and steps[-1] == "properties"):
            del holder[keyword]
        else:
            holder[int(keyword) if isinstance(holder, list) else keyword] = {}
    assert schema == expected


@pytest.mark.parametrize("parameters", TAKEN)
def test_what_llama_cpp_takes_stays(parameters):
    schema = copy.deepcopy(parameters)

    assert widen(schema) == []
    assert schema == parameters


def test_nested_deeper_than_python_recurses_is_still_looked_at():
    schema = leaf = {"type": "object", "properties": {}}
    for _ in range(5000):
        leaf["properties"]["a"] = leaf = {"type": "object", "properties": {}}
    leaf["type"] = "any"

    assert len(widen(schema)) == 1


def test_a_schema_without_end_is_left_to_the_engine():
    schema = {"anyOf": [{"type": "any"} for _ in range(2 * MOST_SCHEMAS)]}

    assert len(widen(schema)) == MOST_SCHEMAS - 1


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
        | st.sampled_from(["string", "array", "integer", "#/a", "#", "^(a$"]),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
            st.sampled_from(
                ["type", "properties", "items", "anyOf", "allOf", "enum", "$ref", "minItems",
                 "maxItems", "minimum", "exclusiveMaximum", "pattern", "a"]
            ), inner, max_size=4),
        max_leaves=12,
    )
)  # fmt: skip
def test_what_was_widened_needs_no_more_widening(schema):
    if isinstance(schema, dict):
        widen(schema)
        assert widen(schema) == []


# --- bodies


def test_body_without_tools_is_not_even_looked_at():
    assert not concerned(BodyEdits(), b'{"tools": []}')
    assert not concerned(WIDEN, b'{"messages": [{"content": "give me \\"tools\\""}]}')
    assert not concerned(BodyEdits(tool_description_limit=20), b'{"response_format": {}}')
    assert concerned(WIDEN, b'{"tools": []}')
    assert concerned(WIDEN, b'{"response_format": {}}')


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (chat(BAD), chat(GOOD)),
        (
            {"type": "function", "name": "get_weather", "parameters": BAD, "strict": True},
            {"type": "function", "name": "get_weather", "parameters": GOOD, "strict": True},
        ),
        (
            {"name": "get_weather", "input_schema": BAD},
            {"name": "get_weather", "input_schema": GOOD},
        ),
    ],
    ids=["chat", "responses", "messages"],
)
def test_tools_of_each_dialect_are_repaired(before, after):
    body, repairs = apply(WIDEN, json.dumps({"tools": [before]}).encode())

    assert json.loads(body) == {"tools": [after]}
    assert repairs == (Repair("get_weather", ("#/properties/city/type",)),)


@pytest.mark.parametrize(
    ("field", "wrap"),
    [
        ("response_format", lambda s: {"type": "json_schema", "json_schema": {"schema": s}}),
        ("response_format", lambda s: {"type": "json_object", "schema": s}),
        ("json_schema", lambda s: s),
    ],
)
def test_the_schema_of_an_answer_is_repaired(field, wrap):
    body, repairs = apply(WIDEN, json.dumps({field: wrap(BAD)}).encode())

    assert json.loads(body) == {field: wrap(GOOD)}
    assert repairs == (Repair(field, ("#/properties/city/type",)),)


def test_everything_but_the_repaired_tool_keeps_its_bytes():
    good = b'{ "function":{"name":"b" , "parameters":{"maximum":1.50e+2}} }'
    body = b'{"n": 1.50e+2,"tools":[' + good + b"," + json.dumps(chat(BAD)).encode() + b"]}"

    edited, _ = apply(WIDEN, body)

    assert edited.startswith(b'{"n":1.50e+2,"tools":[' + good + b",")


@pytest.mark.parametrize(
    "document",
    [
        {"tools": [chat(GOOD)]},
        {"tools": None},
        {"tools": {"a": 1}},
        {"tools": [None, 5, "x", [], {"function": None}, {"type": "web_search"}]},
        {"tools": [{"function": {"name": 5, "parameters": None}}]},
        {"response_format": None},
        {"response_format": {"type": "json_schema", "json_schema": None}},
        {"text": {"format": {"type": "json_schema", "schema": BAD}}, "tools": []},
        {"json_schema": None, "tools": []},
        {"messages": [{"content": "cut \ud83d"}], "tools": [chat(GOOD)]},
    ],
)
def test_what_needs_no_repair_is_the_very_same_body(document):
    body = json.dumps(document).encode()

    assert apply(WIDEN, body) == (body, ())
    assert apply(WIDEN, body)[0] is body


@pytest.mark.parametrize("body", [b"", b"[]", b'{"tools":', b"[NaN]", b'{"tools":' + b"[" * 9999])
def test_body_that_is_no_object_is_left_to_others(body):
    assert apply(WIDEN, body) == (body, ())


def test_parameters_that_are_no_schema_become_the_empty_one():
    body, repairs = apply(WIDEN, json.dumps({"tools": [chat([])]}).encode())

    assert json.loads(body) == {"tools": [chat({})]}
    assert repairs == (Repair("get_weather", ("#",)),)


def test_half_an_emoji_beside_a_bad_tool_survives_the_repair():
    document = {"messages": [{"content": "cut \ud83d"}], "tools": [chat(BAD)]}

    body, repairs = apply(WIDEN, json.dumps(document).encode())

    assert json.loads(body) == {**document, "tools": [chat(GOOD)]}
    assert len(repairs) == 1


def test_what_is_told_of_a_repair_is_bounded():
    tool = chat({"anyOf": [None] * 500, "properties": {"x" * 9999: None}}, name="n" * 9999)

    _, (repair,) = apply(WIDEN, json.dumps({"tools": [tool]}).encode())

    assert len(repair.tool) == 200
    assert len(repair.dropped) == 20
    assert max(map(len, repair.dropped)) <= 200


# --- descriptions


def test_descriptions_of_tools_and_parameters_are_cut_everywhere():
    text = "The name of a city in any country"
    short = "The name of a city…"
    nested = {"type": "array", "description": text, "items": {"anyOf": [{"description": text}]}}
    cut_nested = {"type": "array", "description": short,
                  "items": {"anyOf": [{"description": short}]}}  # fmt: skip
    tool = chat(of_city(nested, description=text), description=text)
    flat = {"name": "x", "description": text, "input_schema": of_city({"description": text})}

    body, repairs = apply(
        BodyEdits(tool_description_limit=20), json.dumps({"tools": [tool, flat]}).encode()
    )

    assert json.loads(body)["tools"] == [
        chat(of_city(cut_nested, description=short), description=short),
        {"name": "x", "description": short, "input_schema": of_city({"description": short})},
    ]
    assert repairs == ()


def test_a_parameter_called_description_and_its_values_are_no_descriptions():
    long = "a value that is longer than the limit"
    schema = {"properties": {"description": {"type": "string", "enum": [long], "default": long}}}
    body = json.dumps({"tools": [chat(schema)]}).encode()

    assert apply(BodyEdits(tool_description_limit=16), body)[0] is body


@pytest.mark.parametrize(
    ("text", "limit", "expected"),
    [
        ("four words are here", 19, "four words are here"),
        ("four words are here", 18, "four words are…"),
        ("four words are here", 15, "four words are…"),
        ("four words are here", 14, "four words…"),
        ("one  two three", 5, "one…"),
        ("Donaudampfschifffahrt", 16, "Donaudampfschif…"),
        ("a Donaudampfschifffahrt", 16, "a Donaudampfsch…"),
        ("line one\nline two is long", 16, "line one\nline…"),
    ],
)
def test_cut_ends_between_words_where_it_can(text, limit, expected):
    assert cut(text, limit) == expected


@given(st.text(max_size=80), st.integers(16, 60))
def test_cut_is_a_beginning_and_never_longer_than_the_limit(text, limit):
    short = cut(text, limit)

    assert len(short) <= limit
    assert text.startswith(short.removesuffix("…")) or short == text


# --- on the way through


async def test_repaired_request_reaches_the_engine_and_the_repair_is_told(start):
    plane = await start()
    plane.gate.edits = WIDEN
    client = await plane.client()

    await client.post(json.dumps({"tools": [chat(BAD)]}).encode())

    assert json.loads(plane.engine.requests[0].body) == {"tools": [chat(GOOD)]}
    assert plane.gate.repairs == [("code", Repair("get_weather", ("#/properties/city/type",)))]


async def test_tools_that_a_profile_forces_are_repaired_too(start):
    plane = await start()
    plane.gate.edits = BodyEdits(force={"tools": [chat(BAD)]}, widen_schemas=True)
    client = await plane.client()

    await client.post(b"{}")

    assert json.loads(plane.engine.requests[0].body) == {"tools": [chat(GOOD)]}
