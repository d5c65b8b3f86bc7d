"""The daemon or its configuration is replaced while models are resident."""

import concurrent.futures
import json

import pytest

from tests.system.running import GOOD, alive, free_ports, lay_out, request, unruly


def engine_pid(port):
    return json.loads(request(port, "GET", "/stats")[2])["pid"]


def test_orphan_of_a_killed_daemon_never_answers_for_another_model(start):
    """Failure 4: the model behind the port changed meanwhile; the old one would still answer."""
    ports = free_ports(2)
    daemon = start(lay_out({"a": unruly(ports[0]), "b": unruly(ports[1])}))
    old = [engine_pid(port) for port in ports]
    hosts = daemon.kill()
    assert set(old) <= set(alive(hosts)), "they are orphans now"
    daemon.write_config(lay_out({"a": unruly(ports[0], "--name", "new"), "b": unruly(ports[1])}))
    daemon.start()
    assert engine_pid(ports[0]) not in hosts
    assert engine_pid(ports[1]) == old[1], "b is the same model, and is taken over"
    assert request(ports[0], body=GOOD)[1]["X-LLMD-Profile"] == "a"
    assert not alive(old[:1])
    assert [profile["loads"] for profile in daemon.status()["profiles"]] == [2, 1]


def test_ports_serve_at_once_after_a_kill(start):
    """Failure 4: orphans hold neither the ports nor memory that nobody counts."""
    ports = free_ports(2)
    daemon = start(lay_out({"a": unruly(ports[0]), "b": unruly(ports[1])}))
    for _ in range(3):
        before = [engine_pid(port) for port in ports]
        daemon.kill()
        daemon.start()
        budget = daemon.status()["budget"]
        assert budget["used_bytes"] == 200 * 2**20, "they are charged from the first moment"
        assert [engine_pid(port) for port in ports] == before
        assert [request(port, body=GOOD)[0] for port in ports] == [200, 200]


def test_changed_model_is_gone_before_its_new_copy_is_there(start):
    """Failure 5: a reload that fits only if the two copies are never held at once."""
    ports = free_ports(2)
    config = lay_out({"a": unruly(ports[0]), "b": unruly(ports[1])}, watch_config=False)
    daemon = start(config)
    kept, old = (engine_pid(port) for port in ports)
    config["profiles"]["b"]["cmd"] += ["--name", "other"]
    daemon.write_config(config)
    assert daemon.ctl("reload").returncode == 0
    assert engine_pid(ports[1]) != old
    assert not alive([old])
    assert engine_pid(ports[0]) == kept
    status = daemon.status()
    assert status["budget"]["peak_bytes"] <= status["budget"]["total_bytes"]
    assert [profile["evictions"] for profile in status["profiles"]] == [0, 0]


def test_reload_keeps_the_unchanged_and_replaces_the_changed(start):
    """Failure 5."""
    ports = free_ports(2)
    config = lay_out({"a": unruly(ports[0]), "b": unruly(ports[1])})
    daemon = start(config)
    for port in ports:
        request(port, body=GOOD)
    pid = daemon.profile("a")["host_pid"]
    config["profiles"]["b"]["cmd"] += ["--name", "other"]
    daemon.write_config(config)
    report = json.loads(daemon.ctl("--json", "reload").stdout)
    assert report["changed"] == ["b"]
    assert daemon.profile("a")["host_pid"] == pid
    assert request(ports[1], body=GOOD)[0] == 200
    assert (daemon.profile("a")["loads"], daemon.profile("b")["loads"]) == (1, 2)


def test_changed_file_is_read_without_being_told(start):
    ports = free_ports(2)
    config = lay_out({"a": unruly(ports[0])})
    daemon = start(config)
    config["profiles"]["b"] = unruly(ports[1])
    daemon.write_config(config)
    daemon.wait_for(lambda s: len(s["profiles"]) == 2)
    assert request(ports[1], body=GOOD)[0] == 200


@pytest.mark.parametrize("how", ["stop", "SIGTERM"])
def test_stop_finishes_what_is_in_flight(start, how):
    (port,) = free_ports(1)
    daemon = start(lay_out({"a": unruly(port)}))
    request(port, body=GOOD)
    body = {**GOOD, "stream": True, "unruly": {"chunks": 20, "chunk_delay": 0.05}}
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        answer = pool.submit(request, port, body=body)
        daemon.wait_for(lambda s: s["profiles"][0]["in_flight"] == 1)
        if how == "stop":
            assert daemon.ctl("stop").returncode == 0
        else:
            daemon.process.terminate()
        assert b"[DONE]" in answer.result()[2]
    assert daemon.process.wait(20) == 0
