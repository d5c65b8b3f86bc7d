"""Grammars through a port, and the same ones at the engine itself, which prints what it refuses."""

import pytest

from tests.grammars_of_clients import BROKEN, HARMFUL, USABLE
from tests.system.conftest import demo_config, running
from tests.system.engine import engine_of, straight
from tests.system.running import request


@pytest.fixture(scope="module")
def llmd(demo_models):
    """A daemon with one llama.cpp profile, loaded; `llmd.said()` is all that it has printed."""
    config, ports = demo_config(demo_models)
    config["profiles"] = {"reason": config["profiles"]["reason"]}
    config["warm_spare"] = False
    with running(config) as daemon:
        daemon.port = ports[8084]
        assert daemon.ctl("load", "reason").returncode == 0
        daemon.said = (daemon.directory / "log" / "reason.log").read_bytes
        yield daemon


def asking(grammar):
    return {"prompt": "a", "n_predict": 2, "max_tokens": 2, "grammar": grammar}


@pytest.mark.parametrize("grammar", USABLE)
def test_usable_grammar_is_taken(llmd, grammar):
    assert request(llmd.port, path="/completion", body=asking(grammar))[0] == 200


@pytest.mark.parametrize(("grammar", "said"), BROKEN)
def test_broken_grammar_is_refused_before_the_engine_can_print_it(llmd, grammar, said):
    for path in ("/completion", "/v1/completions", "/v1/chat/completions", "/v1/responses"):
        body = {**asking(grammar), "messages": [{"role": "user", "content": "a"}], "input": "a"}
        status, _, answer = request(llmd.port, path=path, body=body)
        assert status == 400
        assert b"grammar cannot be used" in answer
    assert b"zqz" not in llmd.said()


def test_engine_itself_refuses_and_prints_them(llmd):
    """If it does no longer, llmd need not."""
    grammars = [row.values[0] for row in BROKEN if not row.values[0].startswith("%")]
    for grammar in grammars[:-1]:  # not the one that ends with a zero: it is cut off there
        body = asking(grammar.replace("zqz", "zqy").replace("zq_z", "zq_y"))
        assert straight(engine_of(llmd), body, "/completion")[0] == 400, grammar


@pytest.mark.parametrize(("grammar", "said"), HARMFUL[:-1])
def test_harmful_grammar_does_not_reach_the_engine(llmd, grammar, said):
    assert request(llmd.port, path="/completion", body=asking(grammar))[0] == 400
    assert llmd.profile("reason")["state"] == "ready"
