import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmd.errors import InvalidRequestError
from llmd.proxy.edits import apply, effective
from llmd.proxy.gate import BodyEdits


def test_nothing_to_change_leaves_the_very_same_bytes():
    body = b'{ "a" : 1.0 }'

    assert apply(BodyEdits(), body) is body
    assert apply(BodyEdits(defaults={"a": 2}), body) is body


def test_default_fills_only_what_is_absent():
    body = b'{"temperature":null}'

    assert apply(BodyEdits(defaults={"temperature": 0.7, "top_p": 0.9}), body) == (
        b'{"temperature":null,"top_p":0.9}'
    )


def test_force_wins_over_the_client():
    assert apply(BodyEdits(force={"model": "m"}), b'{"model":"x","n":1}') == b'{"model":"m","n":1}'


def test_values_that_are_not_edited_keep_their_bytes():
    body = b'{"n": 1.50e+2, "text": "\\u00e9\\/", "big": 123456789012345678901234567890}'

    edited = apply(BodyEdits(force={"model": "m"}), body)

    assert b"1.50e+2" in edited
    assert b"\\u00e9\\/" in edited
    assert b"123456789012345678901234567890" in edited


def test_of_duplicate_fields_the_last_remains():
    assert apply(BodyEdits(force={"m": 1}), b'{"a":1,"a":2}') == b'{"a":2,"m":1}'


def test_lone_surrogate_survives_an_edit():
    edited = apply(BodyEdits(force={"model": "m"}), b'{"text":"cut \\ud83d"}')

    assert json.loads(edited) == {"text": "cut \ud83d", "model": "m"}


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b"[NaN]", b'{"a":' + b"[" * 100_000])
def test_body_that_is_no_object_is_refused(body):
    with pytest.raises(InvalidRequestError):
        apply(BodyEdits(force={"model": "m"}), body)


@pytest.mark.parametrize(
    ("edits", "given_value", "expected"),
    [
        (BodyEdits(), None, None),
        (BodyEdits(), True, True),
        (BodyEdits(defaults={"stream": True}), None, True),
        (BodyEdits(defaults={"stream": True}), False, False),
        (BodyEdits(force={"stream": False}), True, False),
    ],
)
def test_effective_value_is_the_one_after_the_edits(edits, given_value, expected):
    assert effective(edits, "stream", given_value) is expected


@given(
    st.dictionaries(st.text(max_size=4), st.integers() | st.text(max_size=8), max_size=4),
    st.dictionaries(st.sampled_from("abc"), st.integers(), max_size=2),
    st.dictionaries(st.sampled_from("abc"), st.integers(), max_size=2),
)
def test_edited_document_is_defaults_then_body_then_force(document, defaults, force):
    edited = apply(BodyEdits(defaults, force), json.dumps(document).encode())

    assert json.loads(edited) == {**defaults, **document, **force}
