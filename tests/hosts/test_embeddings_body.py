"""Requests for vectors, and the object around them."""

import base64

import numpy as np
import pytest

from llmd.hosts.embeddings_body import INPUTS_MAX, read_wanted, response, unit
from llmd.hosts.openai_body import RequestError


@pytest.mark.parametrize(
    ("given", "inputs"),
    [
        pytest.param("a", ("a",), id="a text"),
        pytest.param(["a", "b"], ("a", "b"), id="texts"),
        pytest.param([1, 2], ([1, 2],), id="a text as tokens"),
        pytest.param([[1, 2], "a"], ([1, 2], "a"), id="mixed"),
    ],
)
def test_input_takes_every_form_that_openai_has(given, inputs):
    assert read_wanted({"input": given}).inputs == inputs


@pytest.mark.parametrize(
    ("body", "param"),
    [
        pytest.param([], None, id="no object"),
        pytest.param({}, "input", id="no input"),
        pytest.param({"input": ""}, "input", id="empty text"),
        pytest.param({"input": []}, "input", id="empty list"),
        pytest.param({"input": [[]]}, "input", id="no tokens"),
        pytest.param({"input": ["a", ""]}, "input", id="an empty text among others"),
        pytest.param({"input": [True]}, "input", id="a truth is no token"),
        pytest.param({"input": {"a": 1}}, "input", id="an object"),
        pytest.param({"input": ["a"] * (INPUTS_MAX + 1)}, "input", id="too many"),
        pytest.param({"input": "a", "encoding_format": "hex"}, "encoding_format", id="form"),
        pytest.param({"input": "a", "dimensions": 0}, "dimensions", id="no dimensions"),
        pytest.param({"input": "a", "dimensions": 1.5}, "dimensions", id="half a dimension"),
    ],
)
def test_nonsense_is_refused_by_its_field(body, param):
    with pytest.raises(RequestError) as refused:
        read_wanted(body)
    assert refused.value.param == param


def answered(vector, **fields):
    wanted = read_wanted({"input": "a", **fields})
    whole = response([unit(np.array(vector, np.float32))], wanted, profile="p", prompt_tokens=3)
    assert whole["usage"] == {"prompt_tokens": 3, "total_tokens": 3}
    return whole["data"][0]["embedding"]


def test_vector_is_of_length_one_and_so_is_what_is_cut_off_it():
    assert answered([3, 4, 12]) == pytest.approx([3 / 13, 4 / 13, 12 / 13])
    assert answered([3, 4, 12], dimensions=2) == pytest.approx([0.6, 0.8])
    assert answered([0, 0]) == [0, 0]


def test_base64_is_little_endian_floats():
    raw = base64.b64decode(answered([3, 4], encoding_format="base64"))
    assert np.frombuffer(raw, "<f4") == pytest.approx([0.6, 0.8])
