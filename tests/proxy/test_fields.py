import json

import pytest

from llmd.errors import InvalidRequestError
from llmd.proxy.fields import check


CHAT = "/v1/chat/completions"


def dumped(**fields):
    return json.dumps(fields).encode()


@pytest.mark.parametrize("path", [CHAT, "/v1/completion"])
@pytest.mark.parametrize(
    "name",
    ["id_slot", "chat_format", "chat_parser", "generation_prompt", "grammar_lazy",
     "grammar_triggers", "message_spans", "preserved_tokens"],
)  # fmt: skip
def test_what_is_the_servers_own_is_taken_out_and_all_else_keeps_its_bytes(path, name):
    body = b'{"a": 1.0, "%b": [1], "b": "\\u00e9"}' % name.encode()
    assert check(path, body) == b'{"a":1.0,"b":"\\u00e9"}'


@pytest.mark.parametrize(
    "body",
    [
        b'{"messages": [{"content": "about \\"id_slot\\""}]}',
        b'{"messages": [], "id_slots": 1}',
        b'{"x": "\\u0041", "y": {"id_slot": 1}}',
        dumped(grammar='root ::= "a"'),
        dumped(grammar=None, json_schema=None),
        dumped(grammar=5),
        dumped(json_schema={"type": "string"}),
        dumped(repeat_last_n=64),
        dumped(repeat_last_n="many"),
        b'{"grammar": "", "a": "\\ud83d"}',
    ],
)
def test_what_is_the_senders_own_stays_byte_for_byte(body):
    assert check(CHAT, body) is body


def test_name_in_disguise_is_found():
    assert check(CHAT, b'{"id\\u005fslot": 1}') == b"{}"
    with pytest.raises(InvalidRequestError, match="the grammar cannot be used"):
        check(CHAT, b'{"gr\\u0061mmar": "("}')


def test_what_only_pythons_parser_takes_is_looked_at_as_well():
    assert json.loads(check(CHAT, b'{"id_slot": 1, "a": "\\ud83d"}')) == {"a": "\ud83d"}
    assert check(CHAT, b'{"id_slot": 1, "t": NaN}') == b'{"t": NaN}'


@pytest.mark.parametrize(
    ("path", "fields", "param"),
    [
        (CHAT, {"grammar": "root ::= ("}, "grammar"),
        (CHAT, {"repeat_last_n": 2**31 - 1}, "repeat_last_n"),
        (CHAT, {"dry_penalty_last_n": 1e9}, "dry_penalty_last_n"),
        (CHAT, {"repeat_last_n": 10**30}, "repeat_last_n"),
        ("/v1/completions", {"json_schema": {}}, "json_schema"),
        ("/v1/completion", {"json_schema": {"type": "string"}}, "json_schema"),
        ("/v1/infill", {"json_schema": True}, "json_schema"),
    ],
)
def test_what_would_harm_the_engine_or_fill_its_log_is_refused(path, fields, param):
    with pytest.raises(InvalidRequestError) as refused:
        check(path, dumped(**fields))
    assert refused.value.param == param
    assert "zq" not in refused.value.message


def test_number_that_nobody_can_read_is_no_crash():
    with pytest.raises(InvalidRequestError, match="not valid JSON"):
        check(CHAT, b'{"repeat_last_n": ' + b"9" * 5000 + b"}")
