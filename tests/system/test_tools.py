"""Tools whose schemas llama.cpp refuses, through a port of the whole program to the real engine."""

import json

import pytest

from tests.lessons import LESSONS, TOOLS
from tests.schemas_of_clients import GIVEN_UP, REFUSED, TAKEN, of_city
from tests.system.conftest import demo_config, running
from tests.system.engine import engine_of, straight
from tests.system.running import request


WEATHER = LESSONS["weather"]
BAD = of_city({"type": "any"})


@pytest.fixture(scope="module")
def llmd(demo_models):
    """A daemon with one llama.cpp profile, loaded."""
    config, ports = demo_config(demo_models)
    config["profiles"] = {"reason": config["profiles"]["reason"]}
    config["warm_spare"] = False
    with running(config) as daemon:
        daemon.port = ports[8084]
        assert request(daemon.port, body=asking(of_city({})))[0] == 200
        daemon.upstream = engine_of(daemon)
        yield daemon


def asking(schema):
    """A chat whose answer must follow *schema*: llama.cpp reads it as it reads those of tools."""
    return {
        "messages": [{"role": "user", "content": WEATHER["prompt"]}],
        "response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}},
        "max_tokens": 4,
        "temperature": 0,
    }


@pytest.mark.parametrize(("parameters", "dropped", "hangs"), REFUSED)
def test_what_the_engine_refuses_is_served_by_the_port(llmd, parameters, dropped, hangs):
    if not hangs:
        status, answer = straight(llmd.upstream, asking(parameters))
        assert status != 200, f"llama.cpp takes this by now; no need to drop {dropped}: {answer}"

    status, _, answer = request(llmd.port, body=asking(parameters))

    assert status == 200, answer


@pytest.mark.parametrize(("parameters", "dropped", "hangs"), GIVEN_UP)
def test_what_the_engine_would_write_into_its_log_does_not_get_there(
    llmd, parameters, dropped, hangs
):
    log = llmd.directory / "log" / "reason.log"
    before = log.stat().st_size
    assert request(llmd.port, body=asking(parameters))[0] == 200
    assert b"zqz" not in log.read_bytes()[before:]

    assert straight(llmd.upstream, asking(parameters))[0] == 200
    assert b"zqz" in log.read_bytes()[before:], f"llama.cpp takes this; no need to drop {dropped}"


@pytest.mark.parametrize("parameters", TAKEN)
def test_what_is_left_alone_is_taken_by_the_engine(llmd, parameters):
    log = llmd.directory / "log" / "reason.log"
    before = log.stat().st_size
    status, answer = straight(llmd.upstream, asking(parameters))
    assert status == 200, answer
    assert log.stat().st_size == before


@pytest.mark.parametrize(
    ("path", "tool"),
    [
        ("/v1/chat/completions", lambda s: {"type": "function",
                                            "function": {**TOOLS[0]["function"], "parameters": s}}),
        ("/v1/responses", lambda s: {"type": "function", "name": "get_weather", "parameters": s}),
        ("/v1/messages", lambda s: {"name": "get_weather", "input_schema": s}),
    ],
)  # fmt: skip
def test_tool_call_with_a_schema_that_was_repaired(llmd, path, tool):
    question = [{"role": "user", "content": WEATHER["prompt"]}]
    body = {"tools": [tool(BAD)], "temperature": 0, "max_tokens": 200,
            "input" if path.endswith("responses") else "messages": question}  # fmt: skip
    assert straight(llmd.upstream, body, path)[0] != 200

    status, _, answer = request(llmd.port, path=path, body=body)

    assert status == 200, answer
    assert b"get_weather" in answer
    assert b"Paris" in answer


def test_a_repair_is_an_event_once_with_names_and_without_values(llmd):
    secret = "a pattern ( nobody's business"
    schema = {"properties": {"day": {"enum": [], "pattern": secret, "default": secret}}}
    tool = {"type": "function", "function": {"name": "plan_day", "parameters": schema}}
    body = {"messages": [{"role": "user", "content": "Hi"}], "tools": [tool], "max_tokens": 2}
    for _ in range(3):
        assert request(llmd.port, body=body)[0] == 200

    events = json.loads(llmd.ctl("--json", "events").stdout)
    told = [e for e in events["events"] if e["name"] == "tools.repaired"]

    assert [e["dropped"] for e in told if e["tool"] == "plan_day"] == [
        ["#/properties/day/enum", "#/properties/day/pattern"]
    ]
    assert {e["profile"] for e in told} == {"reason"}
    assert secret not in json.dumps(events) + llmd.log()
