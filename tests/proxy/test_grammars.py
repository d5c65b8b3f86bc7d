"""Which grammars pass; tests/system/test_grammars.py holds the same ones against the engine."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmd.proxy.grammars import MOST_LETTERS, fault
from tests.grammars_of_clients import BROKEN, HARMFUL, USABLE


@pytest.mark.parametrize("grammar", USABLE)
def test_grammar_that_llama_cpp_takes_passes(grammar):
    assert fault(grammar) == ""


@pytest.mark.parametrize(("grammar", "said"), BROKEN + HARMFUL)
def test_other_grammar_is_refused_with_what_is_wrong(grammar, said):
    assert said in fault(grammar)


def test_fault_names_the_line():
    assert fault('root ::= "a"\n\n\nb = "c"') == "`::=` is missing after `b` (line 4)"


def test_long_grammar_is_not_even_read():
    assert fault('root ::= "a"' + " " * MOST_LETTERS) == "it is too long"


@given(st.text(alphabet='ab:=()[]{}|*+?."\\^-<>! 12,\n#xu', max_size=40))
def test_any_text_has_a_verdict(text):
    fault(text)
    fault("root ::= " + text)
