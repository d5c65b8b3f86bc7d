"""How long a client waits, and what it hears meanwhile."""

import concurrent.futures
import http.client
import json
import statistics

import pytest

from tests.system.conftest import running
from tests.system.running import GOOD, free_ports, lay_out, request, unruly


STREAM = {**GOOD, "stream": True}
LONG_S = 6.0  # longer than the 5 s of silence after which there is a comment


def listen(daemon, name, port):
    """The first line of a stream, the state of its profile by then, and all other lines."""
    body = json.dumps({**STREAM, "unruly": {"first_delay": LONG_S if name == "prefill" else 0}})
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("POST", "/v1/chat/completions", body)
    response = connection.getresponse()
    first = response.readline()
    state = daemon.profile(name)["state"]
    rest = response.read().splitlines()
    connection.close()
    return first, state, rest


@pytest.fixture(scope="module")
def heard():
    """What clients hear of a load, a prefill and a failure that all take long; by profile."""
    names = ("load", "prefill", "failure")
    ports = dict(zip(names, free_ports(3), strict=True))
    profiles = {
        "load": unruly(ports["load"], "--ready-delay", str(LONG_S)),
        "prefill": unruly(ports["prefill"]),
        "failure": unruly(ports["failure"], "--never-ready", load_timeout=f"{LONG_S}s"),
    }
    with running(lay_out(profiles, budget="300MiB")) as daemon:
        with concurrent.futures.ThreadPoolExecutor(3) as pool:
            asked = {name: pool.submit(listen, daemon, name, ports[name]) for name in names}
        yield {name: answer.result() for name, answer in asked.items()}


@pytest.mark.parametrize(("name", "state"), [("load", "loading"), ("prefill", "ready")])
def test_client_hears_that_somebody_is_there_before_there_is_a_token(heard, name, state):
    """Failure 17: clients with a limit on silence would give up and send the same again."""
    first, then, rest = heard[name]
    assert first.startswith(b":"), "a comment, which every client skips"
    assert then == state
    assert rest[-2:] == [b"data: [DONE]", b""]
    assert b'"content": "w0 "' in b"\n".join(rest).replace(b'":"', b'": "')


def test_load_that_fails_after_its_stream_began_ends_with_an_event(heard):
    """Failure 7: no line of it is anything but a comment, data or the end of an event."""
    first, _, rest = heard["failure"]
    assert first.startswith(b":"), "it has begun"
    odd = [line for line in rest if line and not line.startswith((b":", b"data: ", b"event: "))]
    assert odd == []
    (event,) = [line for line in rest if line.startswith(b"data: ")]
    error = json.loads(event.removeprefix(b"data: "))["error"]
    assert error["code"] == "load_failed"
    assert "load_timeout" in error["message"]


def test_request_goes_to_an_engine_as_soon_as_it_is_ready(start):
    """Failure 11: the engines tell how long they were ready and had nothing to do."""
    ports = free_ports(3)
    delays = zip(ports, ("0.8", "1.1", "1.4"), strict=True)
    start(
        lay_out({f"p{p}": unruly(p, "--ready-delay", delay) for p, delay in delays}, budget="1GiB")
    )
    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        assert [a[0] for a in pool.map(lambda port: request(port, body=GOOD), ports)] == [200] * 3
    unused_s = [json.loads(request(port, "GET", "/stats")[2])["unused_s"] for port in ports]
    assert statistics.median(unused_s) < 0.3, unused_s


def test_client_that_leaves_stops_the_work_streamed_or_not(start):
    """Failure 8: at any time, not only during a load."""
    (port,) = free_ports(1)
    daemon = start(lay_out({"a": unruly(port)}))

    def engine(count):
        return json.loads(request(port, "GET", "/stats")[2])[count]

    for left, stream in enumerate((True, False)):
        body = {**GOOD, "stream": stream, "unruly": {"chunks": 1000, "chunk_delay": 0.05}}
        connection = http.client.HTTPConnection("127.0.0.1", port)
        connection.request("POST", "/v1/chat/completions", json.dumps(body))
        daemon.wait_for(lambda s: s["profiles"][0]["in_flight"] == 1)
        daemon.wait_for(lambda _: engine("in_flight") == 2)  # with this question; it has begun
        connection.close()
        daemon.wait_for(lambda s: s["profiles"][0]["in_flight"] == 0)
        daemon.wait_for(lambda _, left=left: engine("cancelled") == left + 1)
