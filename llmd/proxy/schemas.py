"""Which JSON Schemas llama.cpp turns into a grammar, and how the others are widened until it does.

llama.cpp constrains a model by the schemas of the tools it is offered. What its reader does not
know, it answers with a 400 or 500, and the whole conversation ends there: `"type": "any"`, a
`maxLength` of null, a reference to another document. Some schemas are worse: `minItems` above
`maxItems` makes a grammar that grows until the memory is used up.

Here the offending keyword is dropped. A schema with one keyword less allows more and never
something else, and the client that wrote it checks the arguments anyway. The rules were found by
trying each of them on the engine (tests/system/test_tools.py still does), and are asked in the
order in which its reader looks at a schema.
"""

import math
from collections import deque
from collections.abc import Callable
from typing import Any, Final

from llmd.proxy.patterns import MOST_REPEATS, usable


Schema = dict[str, Any]

MOST_SCHEMAS: Final = 10_000
"""Looked at in one document; what is beyond is left to the engine."""

_MOST_HOPS: Final = 100
"""From one reference to the next."""

_TYPES: Final = frozenset({"string", "number", "integer", "boolean", "null", "array", "object", ""})
_LISTS: Final = ("oneOf", "anyOf", "allOf", "items", "prefixItems")
_INT32: Final = range(2**31)
_BOUNDS: Final[tuple[dict[str, tuple[Callable[[float], int], int]], ...]] = (
    {"minimum": (math.ceil, 0), "exclusiveMinimum": (math.floor, 1)},
    {"maximum": (math.floor, 0), "exclusiveMaximum": (math.ceil, -1)},
)
"""Of an integer, lower and upper: how a fraction is rounded, and what is added then."""
_MOST_ITEMS: Final = 1900
"""As an upper bound: the grammar gets too large, and from 2002 on llama.cpp drops it itself."""


def widen(root: Schema) -> list[str]:
    """Change *root* in place into what llama.cpp takes.

    Returns where something was dropped, as JSON pointers: `#/properties/day/type`. Empty, and
    *root* untouched, when all of it is taken as it is.
    """
    dropped: list[str] = []
    waiting = deque([(root, "#")])
    seen: set[int] = set()
    while waiting and len(seen) < MOST_SCHEMAS:
        schema, where = waiting.popleft()
        if id(schema) in seen:
            continue
        seen.add(id(schema))
        while (keyword := _refused(schema, root)) is not None:
            del schema[keyword]
            dropped.append(f"{where}/{keyword}")
        for holder, key, name in _children(schema):
            if not isinstance(holder[key], dict):
                holder[key] = {}
                dropped.append(f"{where}/{name}")
            waiting.append((holder[key], f"{where}/{name}"))
        target = _resolve(schema.get("$ref"), root)
        if target is not None:
            waiting.append((target, str(schema["$ref"])))
    return dropped


def _children(schema: Schema) -> list[tuple[Any, Any, str]]:
    """Where schemas are inside of *schema*: the container, the key in it, and a name for both."""
    found: list[tuple[Any, Any, str]] = []
    properties = schema.get("properties")
    if isinstance(properties, dict):
        found += [(properties, name, f"properties/{name}") for name in properties]
    for keyword in _LISTS:
        inside = schema.get(keyword)
        if isinstance(inside, list):
            found += [(inside, at, f"{keyword}/{at}") for at in range(len(inside))]
    for keyword in ("items", "prefixItems", "additionalProperties"):
        if isinstance(schema.get(keyword), dict):
            found.append((schema, keyword, keyword))
    return found


def _refused(schema: Schema, root: Schema) -> str | None:
    """The first keyword of *schema* itself that llama.cpp would not take."""
    if "$ref" in schema:
        return "$ref" if _leads_nowhere(schema, root) else None
    for keyword in ("oneOf", "anyOf"):
        if keyword in schema:
            return None if _is_filled(schema[keyword]) else keyword
    kind = schema.get("type")
    if not isinstance(kind, list):
        return _refused_as(schema, "" if kind is None else kind)
    if not kind or not all(isinstance(one, str) for one in kind):
        return "type"
    found = (_refused_as(schema, one) for one in kind)
    return next((keyword for keyword in found if keyword is not None), None)


def _refused_as(schema: Schema, kind: Any) -> str | None:
    """As `_refused`, for one type; the empty one leaves it to the other keywords."""
    if "const" in schema:
        return None
    if "enum" in schema:
        return None if _is_filled(schema["enum"]) else "enum"
    if not isinstance(kind, str) or kind not in _TYPES:
        return "type"
    as_object = "properties" in schema or schema.get("additionalProperties", True) is not True
    if kind == "object" or (not kind and as_object):
        if not as_object and "allOf" in schema:
            return None if _is_filled(schema["allOf"]) else "allOf"
        return _refused_object(schema)
    if kind in ("string", "") and "allOf" in schema:
        return None if _is_filled(schema["allOf"]) else "allOf"
    if kind == "array" or (not kind and ("items" in schema or "prefixItems" in schema)):
        return _refused_array(schema)
    if kind == "string" or (not kind and ("pattern" in schema or "format" in schema)):
        return _refused_string(schema)
    return _refused_bound(schema) if kind == "integer" else None


def _refused_object(schema: Schema) -> str | None:
    if not isinstance(schema.get("properties", {}), dict):
        return "properties"
    if not isinstance(schema.get("additionalProperties", {}), bool | dict):
        return "additionalProperties"
    return None


def _refused_array(schema: Schema) -> str | None:
    keyword = "items" if "items" in schema else "prefixItems"
    items = schema.get(keyword, {})
    if not isinstance(items, list | dict):
        return keyword
    if isinstance(items, list):
        return None  # of a tuple it counts nothing
    refused = _refused_count(schema, "minItems", "maxItems")
    if refused is None and schema.get("maxItems", 0) >= _MOST_ITEMS:
        return "maxItems"
    return refused


def _refused_string(schema: Schema) -> str | None:
    pattern = schema.get("pattern", "^$")
    if not isinstance(pattern, str) or not usable(pattern):
        return "pattern"
    if not isinstance(schema.get("format", ""), str):
        return "format"
    return _refused_count(schema, "minLength", "maxLength")


def _refused_count(schema: Schema, least: str, most: str) -> str | None:
    for keyword in (least, most):
        count = schema.get(keyword, 0)
        # A larger one wraps around, and then means something else.
        if type(count) is not int or count not in _INT32:
            return keyword
    if schema.get(least, 0) > MOST_REPEATS:
        return least
    return most if schema.get(least, 0) > schema.get(most, math.inf) else None


def _refused_bound(schema: Schema) -> str | None:
    """Bounds of an integer; `minimum` hides `exclusiveMinimum`, and `maximum` the other."""
    bounds: list[int] = []
    for side, keywords in enumerate(_BOUNDS):
        keyword = next((one for one in keywords if one in schema), None)
        if keyword is None:
            continue
        value = schema[keyword]
        if type(value) not in (int, float) or not math.isfinite(value):
            return keyword
        rounded, step = keywords[keyword]
        bound = rounded(value)
        if not -(2**63) + side <= bound < 2**63:  # the least of them means that there is no bound
            return keyword
        bounds.append(bound + step)
        if len(bounds) == 2 and bounds[0] > bounds[1]:
            return keyword
    return None


def _is_filled(value: Any) -> bool:
    return isinstance(value, list) and bool(value)


def _resolve(ref: Any, root: Schema) -> Schema | None:
    """What *ref* points at, as llama.cpp looks for it: no escapes, and no other document."""
    if not isinstance(ref, str) or not ref.startswith("#/"):
        return None
    target: Any = root
    for step in ref.split("/")[1:]:
        if isinstance(target, dict) and step in target:
            target = target[step]
        elif isinstance(target, list) and step.isdecimal() and int(step) < len(target):
            target = target[int(step)]
        else:
            return None
    return target if isinstance(target, dict) else None


def _leads_nowhere(schema: Schema, root: Schema) -> bool:
    """Whether the reference cannot be resolved, or leads back to itself with nothing in between."""
    waiting, seen = [schema], set[int]()
    while waiting and len(seen) < _MOST_HOPS:
        here = waiting.pop()
        if id(here) in seen:
            continue
        seen.add(id(here))
        if "$ref" in here:
            target = _resolve(here["$ref"], root)
            if target is None:
                if here is schema:
                    return True
                continue
            following = [target]
        else:
            inside = here.get("oneOf", here.get("anyOf"))
            following = inside if isinstance(inside, list) else []
            following = [one for one in following if isinstance(one, dict)]
        if any(one is schema for one in following):
            return True
        waiting += following
    return False
