"""JSON Schemas as clients send them: what llama.cpp refuses, and what is dropped from each."""

import pytest


def of_city(schema, **more):
    """The parameters of a tool, *schema* being that of its one parameter."""
    return {"type": "object", "properties": {"city": schema}, **more}


def _text(**keywords):
    return {"type": "string", **keywords}


def _list(**keywords):
    return {"type": "array", "items": {"type": "string"}, **keywords}


def _whole(**keywords):
    return {"type": "integer", **keywords}


def _row(schema, *dropped, name, hangs=False, **more):
    """Parameters, and what is dropped; without a pointer of its own it is of the parameter."""
    where = tuple(d if d.startswith("#") else f"#/properties/city/{d}" for d in dropped)
    return pytest.param(of_city(schema, **more), where, hangs, id=name)


_A = {"$defs": {"A": {"type": "string"}, "a/b": {"type": "string"}, "T": True}}

REFUSED = [
    _row({"type": "any"}, "type", name="unknown type"),
    _row({"type": "STRING"}, "type", name="type in capitals, as Gemini has it"),
    _row({"type": ["string", "date"]}, "type", name="one unknown of several types"),
    _row({"type": []}, "type", name="no type of none"),
    _row({"type": {"a": 1}}, "type", name="type that is no name"),
    _row([True][0], "#/properties/city", name="true for a schema"),
    _row(None, "#/properties/city", name="null for a schema"),
    _row({"enum": []}, "enum", name="empty enum"),
    _row(_text(enum=None), "enum", name="enum null"),
    _row(_text(enum="a", pattern="^(a$"), "enum", "pattern", name="one fault behind another"),
    _row(_text(maxLength=None), "maxLength", name="count null"),
    _row(_text(maxLength=10.0), "maxLength", name="count with a point"),
    _row(_text(maxLength=2**31), "maxLength", name="count beyond 31 bits"),
    _row(_text(minLength=True), "minLength", name="count that is a boolean"),
    _row(_text(minLength=5, maxLength=2), "maxLength", name="contradicting lengths", hangs=True),
    _row(_text(minLength=2001), "minLength", name="more letters than a grammar takes"),
    _row(_text(format=5), "format", name="format that is no name"),
    _row(_text(pattern=5), "pattern", name="pattern that is no text"),
    _row(_text(pattern="^(a$"), "pattern", name="open parenthesis"),
    _row(_text(pattern="^a)$"), "pattern", name="closed parenthesis"),
    _row(_text(pattern="^[a$"), "pattern", name="open class"),
    _row(_text(pattern="^a\\$"), "pattern", name="trailing backslash"),
    _row(_text(pattern="^*a$"), "pattern", name="nothing to repeat"),
    _row(_text(pattern="^(|a)+$"), "pattern", name="repeated nothing"),
    _row(_text(pattern="^a**$"), "pattern", name="doubly repeated"),
    _row(_text(pattern="^é+$"), "pattern", name="repeated letter beyond ASCII"),
    _row(_text(pattern="^a{2001}$"), "pattern", name="pattern with too many repeats"),
    _row(_text(pattern="^a{2,1}$"), "pattern", name="contradicting repeats", hangs=True),
    _row(_list(minItems=2500), "minItems", name="more items than a grammar takes"),
    _row(_list(maxItems=1999), "maxItems", name="too many possible items"),
    _row(_list(minItems=3, maxItems=1), "maxItems", name="contradicting counts", hangs=True),
    _row({"type": "array", "items": True}, "items", name="items true"),
    _row({"type": "array", "items": None}, "items", name="items null"),
    _row({"type": "array", "items": [True]}, "items/0", name="true in a tuple"),
    _row({"type": "array", "prefixItems": 5}, "prefixItems", name="prefixItems that is a number"),
    _row({"anyOf": []}, "anyOf", name="anyOf of nothing"),
    _row({"oneOf": {"type": "string"}}, "oneOf", name="oneOf that is no list"),
    _row({"anyOf": [True, _text()]}, "anyOf/0", name="true in anyOf"),
    _row({"allOf": []}, "allOf", name="allOf of nothing"),
    _row({"properties": None}, "properties", name="properties null"),
    _row({"type": "object", "additionalProperties": None}, "additionalProperties",
         name="additionalProperties null"),
    _row(_whole(minimum="1"), "minimum", name="bound that is text"),
    _row(_whole(exclusiveMinimum=True), "exclusiveMinimum", name="bound of draft 4 by itself"),
    _row(_whole(maximum=2**63), "maximum", name="bound beyond 64 bits"),
    _row(_whole(maximum=1e30), "maximum", name="bound beyond 64 bits, with exponent"),
    _row({"$ref": "https://example.com/x.json"}, "$ref", name="reference to elsewhere"),
    _row({"$ref": "#"}, "$ref", name="reference to the whole"),
    _row({"$ref": "#A"}, "$ref", name="reference to an anchor"),
    _row({"$ref": "#/$defs/B"}, "$ref", name="reference to nothing", **_A),
    _row({"$ref": "#/$defs/a~1b"}, "$ref", name="reference with an escape", **_A),
    _row({"$ref": "#/$defs/T"}, "$ref", name="reference to true", **_A),
    _row({"$ref": "#/$defs/A"}, "#/$defs/A/$ref", name="reference to itself",
         **{"$defs": {"A": {"$ref": "#/$defs/B"}, "B": {"$ref": "#/$defs/A"}}}),
    _row({"$ref": "#/$defs/A"}, "#/$defs/A/anyOf/0/$ref", name="reference to itself, or else",
         **{"$defs": {"A": {"anyOf": [{"$ref": "#/$defs/A"}, _text()]}}}),
    _row({"$ref": "#/$defs/A"}, "#/$defs/A/type", name="fault behind a reference",
         **{"$defs": {"A": {"type": "any"}}}),
]  # fmt: skip
"""(parameters, dropped, whether the engine hangs on them rather than refusing)."""

GIVEN_UP = [
    _row(_text(pattern=pattern), "pattern", name=name)
    for name, pattern in (
        ("not anchored", "zqz"),
        ("anchored at one end", "^zqz"),
        ("look-ahead", "^(?!zqz)b$"),
        ("named group", "^(?<zqz>a)b$"),
        ("digits", r"^zqz\d$"),
        ("escape that is none", r"^zqz\/$"),
        ("escape in a class", r"^zqz[\.]$"),
        ("half an escape", r"^zqz\x4$"),
        ("closed class", "^zqz]$"),
        ("closed braces", "^zqz}$"),
        ("braces of nothing", "^zqz{}$"),
        ("anchor inside", "^zqz(a$|b)$"),
        ("too many groups", "^zqz" + "(" * 900 + "a" + ")" * 900 + "$"),
    )
]
"""As `REFUSED`: patterns that the engine writes into its log, and takes for any text."""

_TREE = {"type": "object", "properties": {"kids": _list(items={"$ref": "#/$defs/T"})}}

TAKEN = [
    pytest.param(of_city(schema, **more), id=name)
    for name, schema, more in (
        ("nothing said", {}, {}),
        ("described", {"description": "x", "title": None}, {}),
        ("types", {"type": ["string", "null"]}, {}),
        ("type null", {"type": None}, {}),
        ("constant", {"const": {"a": [1, None]}}, {}),
        ("enum of all sorts", {"enum": ["a", 1, None, {"a": 1}]}, {}),
        ("unknown type, but enum", {"type": "any", "enum": ["a"]}, {}),
        ("either", {"oneOf": [{"type": "string"}, {"type": "null"}]}, {}),
        ("both", {"allOf": [{"$ref": "#/$defs/A"}]}, _A),
        ("reference", {"$ref": "#/$defs/A", "description": "x"}, _A),
        ("tree", {"$ref": "#/$defs/T"}, {"$defs": {"T": _TREE}}),
        ("formats", _text(format="uri"), {}),
        ("pattern", _text(pattern="^(?:[a-z0-9]+(?:-[a-z0-9]+)*)$"), {}),
        ("pattern with all sorts", _text(pattern=r"^(a|\(b[^]\])*c??[0-9]{2,4}[é]+\\$"), {}),
        ("long text", _text(minLength=1, maxLength=100_000), {}),
        ("many", _list(minItems=1, maxItems=1000), {}),
        ("tuple", {"type": "array", "items": [{"type": "string"}, {"type": "integer"}]}, {}),
        ("open object", {"type": "object", "additionalProperties": True}, {}),
        ("object of numbers", {"type": "object", "additionalProperties": _whole()}, {}),
        ("not", {"not": {"type": "string"}}, {}),
        ("bounds", _whole(minimum=-(2**53), maximum=2**53), {}),
        ("bounds of draft 4", _whole(minimum=0, exclusiveMinimum=True), {}),
        ("fractional bounds", _whole(exclusiveMinimum=0.5, exclusiveMaximum=1.5), {}),
        ("number", {"type": "number", "minimum": None}, {}),
        ("required", _text(required=True), {"required": ["nope"]}),
    )
]
