"""More clients than room: whoever asks is answered, and models do not change places for nothing."""

import concurrent.futures
import contextlib
import json
import random
import threading

import pytest

from tests.system.running import GOOD, free_ports, lay_out, request, unruly


IMPATIENT = {"patience": "300ms", "min_residency": "600ms"}


def statuses(ports, bodies, clients):
    """What came of *bodies*, a list of (port, body) that so many *clients* send in turn."""
    with concurrent.futures.ThreadPoolExecutor(clients) as pool:
        asked = [pool.submit(request, ports[n], body=body) for n, body in bodies]
        return [answer.result()[0] for answer in asked]


@contextlib.contextmanager
def overlapping(daemon, port):
    """Two clients who see to it that profile 0 always has a request in flight; their answers."""
    over, answers = threading.Event(), []

    def client():
        while not over.is_set():
            answers.append(request(port, body={**GOOD, "unruly": {"chunk_delay": 0.1}})[0])

    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        clients = [pool.submit(client) for _ in range(2)]
        daemon.wait_for(lambda s: s["profiles"][0]["in_flight"] == 2)
        try:
            yield answers
        finally:
            over.set()
        for done in clients:
            done.result()


def test_overlapping_clients_keep_nobody_out(start):
    """Failure 1: they go on until the other one was answered, which never came."""
    ports = free_ports(2)
    profiles = {"a": unruly(ports[0]), "b": unruly(ports[1])}
    daemon = start(lay_out(profiles, budget="100MiB", **IMPATIENT))
    with overlapping(daemon, ports[0]) as answers:
        assert request(ports[1], body=GOOD, timeout=60)[0] == 200
    assert set(answers) == {200}, "nor does it cost them an answer"


def test_overlapping_clients_keep_nobody_out_of_their_own_port(start):
    """Failure 1, with a switch instead of an eviction."""
    (port,) = free_ports(1)
    daemon = start(lay_out({"a": unruly(port), "b": unruly(port)}, **IMPATIENT))
    with overlapping(daemon, port):
        assert request(port, body={**GOOD, "model": "b"}, timeout=60)[0] == 200
    assert daemon.profile("b")["loads"] == 1


def test_requests_beyond_what_an_engine_serves_wait_and_are_answered(start):
    """Failure 10: sixty at once to an engine that serves two; the first of them loads it."""
    (port,) = free_ports(1)
    daemon = start(lay_out({"a": unruly(port)}))
    assert set(statuses([port], [(0, GOOD)] * 60, clients=60)) == {200}
    assert json.loads(request(port, "GET", "/stats")[2])["peak"] <= 2
    assert daemon.profile("a")["loads"] == 1


@pytest.mark.parametrize("seed", [1, 2])
def test_no_request_is_lost_at_the_edge_of_eviction(start, seed):
    """Failure 12: each one may hit a victim that is just leaving; somebody once waited 5.5 h."""
    ports = free_ports(4)
    profiles = {name: unruly(port) for name, port in zip("abcd", ports, strict=True)}
    daemon = start(lay_out(profiles, patience="20ms", min_residency="20ms"))
    rng = random.Random(seed)
    bodies = [
        (rng.randrange(4), {**GOOD, "stream": rng.random() < 0.5, "unruly": {"chunks": 2}})
        for _ in range(80)
    ]
    assert statuses(ports, bodies, clients=5) == [200] * 80
    status = daemon.status()
    assert status["budget"]["peak_bytes"] <= status["budget"]["total_bytes"]
    assert sum(profile["evictions"] for profile in status["profiles"]) > 10, "it was at the edge"
    assert [(port["in_flight"], port["queued"]) for port in status["ports"]] == [(0, 0)] * 4


def test_crowds_of_two_models_are_served_by_turns(start):
    """Failure 16: with room for one, who waits for the same model is served together."""
    ports = free_ports(2)
    profiles = {"a": unruly(ports[0], parallel=4), "b": unruly(ports[1], parallel=4)}
    daemon = start(lay_out(profiles, budget="100MiB", **IMPATIENT))
    body = {**GOOD, "unruly": {"chunks": 3, "chunk_delay": 0.02}}
    assert statuses(ports, [(n % 2, body) for n in range(200)], clients=8) == [200] * 200
    evictions = sum(profile["evictions"] for profile in daemon.status()["profiles"])
    assert 1 <= evictions <= 20, "a request each by turns would cost up to 199"


def test_agent_and_its_helper_model_push_out_what_neither_uses(start):
    """Failure 16: both fit if a third one goes; it goes once, and nothing is evicted after that."""
    ports = free_ports(3)
    # All were used within one visit, so the victim is what loads soonest: c, on a busy machine too.
    profiles = {
        name: unruly(port, "--ready-delay", "2") for name, port in zip("ab", ports[:2], strict=True)
    }
    daemon = start(lay_out({**profiles, "c": unruly(ports[2])}))
    for n in (2, 0, 0, 0, *(n % 2 for n in range(40))):
        assert request(ports[n], body=GOOD)[0] == 200
    assert [daemon.profile(name)["evictions"] for name in "abc"] == [0, 0, 1]
