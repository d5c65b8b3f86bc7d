"""Two parsers that share no line: what they read differently in the same bytes is not passed on."""

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.http import mutations, properties


@settings(max_examples=400)
@given(mutations.requests)
def test_request_is_passed_on_only_as_a_strict_parser_reads_it(data):
    properties.engine_reads_what_the_client_meant(data)


@settings(max_examples=150)
@given(st.binary(max_size=120))
def test_arbitrary_bytes_are_passed_on_only_as_a_strict_parser_reads_them(data):
    head = b"POST /x HTTP/1.1\r\nHost: localhost\r\n"
    for before in (b"", head, head + b"Transfer-Encoding: chunked\r\n\r\n"):
        properties.engine_reads_what_the_client_meant(before + data)


@settings(max_examples=200)
@given(mutations.requests, mutations.places)
def test_request_is_read_alike_however_it_is_cut(data, places):
    properties.cuts_of_a_request_do_not_matter(data, places)


@settings(max_examples=300)
@given(mutations.answers)
def test_answer_is_passed_back_only_as_a_strict_parser_reads_it(data):
    properties.client_reads_what_the_engine_meant(data)


@settings(max_examples=150)
@given(mutations.answers, mutations.places)
def test_answer_is_read_alike_however_it_is_cut(data, places):
    properties.cuts_of_an_answer_do_not_matter(data, places)
