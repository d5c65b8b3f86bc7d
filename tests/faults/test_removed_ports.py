"""A reload takes ports away whose clients are in the middle of something."""

import concurrent.futures
import http.client
import json
import socket

import pytest

from tests.system.running import GOOD, free_ports, lay_out, request, unruly


SLOW = {**GOOD, "unruly": {"chunks": 20, "chunk_delay": 0.05}}
HEAD = b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n"


def connect(port, data=b""):
    sock = socket.create_connection(("127.0.0.1", port), timeout=60)
    sock.sendall(data)
    return sock


def answer(sock):
    response = http.client.HTTPResponse(sock)
    response.begin()
    return response.status, json.loads(response.read())


@pytest.fixture
def remove(start):
    """Starts a daemon; `remove(flags)` gives it and a port, `daemon.reload()` takes that away."""

    def begin(*flags):
        kept, port = free_ports(2)
        daemon = start(lay_out({"kept": unruly(kept), "gone": unruly(port, *flags)}))

        def take_away():
            daemon.write_config(lay_out({"kept": unruly(kept)}))
            assert daemon.ctl("reload").returncode == 0
            with pytest.raises(ConnectionRefusedError):
                connect(port)

        daemon.take_away = take_away
        return daemon, port

    return begin


def test_answers_under_way_come_whole_and_their_port_can_come_back_meanwhile(remove):
    daemon, port = remove()
    request(port, body=GOOD)
    before = daemon.config_file.read_text()
    with concurrent.futures.ThreadPoolExecutor(2) as pool, connect(port) as idle:
        streamed = pool.submit(request, port, body={**SLOW, "stream": True})
        plain = pool.submit(request, port, body=SLOW)
        daemon.wait_for(lambda s: s["profiles"][1]["in_flight"] == 2)
        daemon.take_away()
        assert idle.recv(1) == b"", "nothing was under way"
        daemon.write_config(before)
        assert daemon.ctl("reload").returncode == 0
        again = pool.submit(request, port, body=GOOD)
        assert b"[DONE]" in streamed.result()[2]
        assert len(json.loads(plain.result()[2])["choices"][0]["message"]["content"].split()) == 20
        assert again.result()[0] == 200


def test_request_that_waits_is_told_why_it_ends(remove):
    daemon, port = remove("--never-ready")
    body = json.dumps(GOOD).encode()
    with connect(port, HEAD % len(body) + body) as client:
        daemon.wait_for(lambda s: s["profiles"][1]["state"] == "loading")
        daemon.take_away()
        status, document = answer(client)
    assert (status, document["error"]["code"]) == (503, "unloaded")
    assert "no longer in the configuration" in document["error"]["message"]
    assert document["error"]["remedy"]


def test_request_that_is_still_sent_is_told_why_it_ends(remove):
    daemon, port = remove()
    body = json.dumps(GOOD).encode()
    with connect(port, HEAD[:30]) as early, connect(port, HEAD % len(body) + body[:5]) as late:
        daemon.take_away()
        early.sendall((HEAD % len(body))[30:] + body)
        late.sendall(body[5:])
        for client in (early, late):
            status, document = answer(client)
            assert (status, document["error"]["code"]) == (503, "unloaded")
            assert client.recv(1) == b""
