"""The daemon is killed, and another one follows: what still serves, and what does no harm."""

import json
import os
import signal
import threading

import pytest

from tests.lessons import FRANCE
from tests.system.conftest import demo_config
from tests.system.running import GOOD, alive, ask, free_ports, lay_out, request, unruly


PROMPT, ANSWER = FRANCE


def by_name(daemon):
    return {profile["name"]: profile for profile in daemon.status()["profiles"]}


def wait_until(condition, timeout=20, pause_s=0.05):
    pause = threading.Event()
    for _ in range(int(timeout / pause_s)):
        if condition():
            return
        pause.wait(pause_s)
    raise AssertionError("it did not come to be in time")


@pytest.fixture
def two(start):
    """A daemon with two engines in use, and its ports."""
    ports = free_ports(2)
    daemon = start(lay_out({"a": unruly(ports[0]), "b": unruly(ports[1])}))
    for port in ports:
        assert request(port, body=GOOD)[0] == 200
    return daemon, ports


def test_every_resident_still_serves_after_a_kill_and_nothing_is_loaded_again(start, demo_models):
    config, ports = demo_config(demo_models)
    daemon = start(config)
    for port in (8081, 8083, 8084):
        assert ask(ports[port], PROMPT)["content"] == ANSWER
    daemon.ctl("pin", "raw")
    before = by_name(daemon)
    daemon.kill()
    daemon.start()
    after = by_name(daemon)
    for name in ("code", "raw", "reason"):
        kept = ("state", "loads", "host_pid", "requests", "pinned", "footprint_bytes", "evictions")
        assert {k: after[name][k] for k in kept} == {k: before[name][k] for k in kept}
    assert after["raw"]["pinned"]
    for port in (8081, 8083, 8084):
        assert ask(ports[port], PROMPT)["content"] == ANSWER
    assert [by_name(daemon)[name]["loads"] for name in ("code", "raw", "reason")] == [1, 1, 1]


def test_adopted_host_can_be_killed_unloaded_and_loaded_again(two):
    daemon, (port, _) = two
    daemon.kill()
    daemon.start()
    host = daemon.profile("a")["host_pid"]
    os.kill(host, signal.SIGKILL)
    daemon.wait_for(lambda _: daemon.profile("a")["host_pid"] != host)
    assert request(port, body=GOOD)[0] == 200
    assert daemon.profile("a")["loads"] == 2
    daemon.kill()
    daemon.start()
    report = json.loads(daemon.ctl("--json", "unload", "a").stdout)
    assert report["unloaded"] == ["a"]
    assert not alive([host])


def test_changed_profile_is_replaced_and_removed_one_ended(two):
    daemon, ports = two
    config = lay_out({"a": unruly(ports[0], "--name", "other")})
    hosts = daemon.kill()
    daemon.write_config(config)
    daemon.start()
    wait_until(lambda: not alive(hosts))
    status, _, answer = request(ports[0], body=GOOD)
    assert (status, daemon.profile("a")["loads"]) == (200, 2)
    assert answer


def test_load_that_was_under_way_is_finished_and_not_begun_again(start):
    (port,) = free_ports(1)
    daemon = start(lay_out({"a": unruly(port, "--ready-delay", "3")}))

    def ask_in_vain():
        with pytest.raises(OSError, match=r"."):
            request(port, body=GOOD)

    asker = threading.Thread(target=ask_in_vain)
    asker.start()
    daemon.wait_for(lambda s: s["profiles"][0]["host_pid"])
    host = daemon.profile("a")["host_pid"]
    daemon.kill()
    asker.join()
    daemon.start()
    assert request(port, body=GOOD)[0] == 200
    profile = daemon.profile("a")
    assert (profile["host_pid"], profile["loads"]) == (host, 1)


def test_warm_spare_is_taken_over(start, demo_models):
    (port,) = free_ports(1)
    profiles = {"a": {"engine": "mlx", "model": "tiny-mlx", "port": port}}
    daemon = start(
        {"budget": "1GiB", "gateway": None, "models_dirs": [str(demo_models)], "profiles": profiles}
    )
    daemon.wait_for(lambda s: s["spare"] and s["spare"]["state"] == "prepared")
    spare = daemon.status()["spare"]["host_pid"]
    daemon.kill()
    daemon.start()
    daemon.wait_for(lambda s: s["spare"] and s["spare"]["state"] == "prepared")
    assert daemon.status()["spare"]["host_pid"] == spare
    daemon.ctl("load", "a")
    assert daemon.profile("a")["host_pid"] == spare


def test_without_a_daemon_no_host_is_left_after_its_grace(start):
    (port,) = free_ports(1)
    daemon = start(lay_out({"a": unruly(port)}, orphan_grace="1s"))
    request(port, body=GOOD)
    hosts = daemon.kill()
    assert len(hosts) == 2, "the host and its server"
    wait_until(lambda: not alive(hosts), timeout=10)
    daemon.start()
    assert request(port, body=GOOD)[0] == 200


def damage_empty(ledger):
    ledger.write_bytes(b"")


def damage_cut(ledger):
    ledger.write_bytes(ledger.read_bytes()[:-40])


def damage_gone(ledger):
    ledger.unlink()


def damage_boot(ledger):
    page = json.loads(ledger.read_text())
    ledger.write_text(json.dumps({**page, "boot": "another"}))


@pytest.mark.parametrize("damage", [damage_empty, damage_cut, damage_gone, damage_boot])
def test_lost_ledger_does_no_harm_and_its_hosts_are_ended_at_once(two, damage):
    daemon, ports = two
    hosts = daemon.kill()
    (ledger,) = (daemon.directory / "state").glob("ledger-*.json")
    damage(ledger)
    daemon.start()
    assert not alive(hosts), "they would hold memory that nobody is charged for"
    assert by_name(daemon)["a"]["state"] == "unloaded"
    assert request(ports[0], body=GOOD)[0] == 200


def test_ledger_that_names_a_number_of_somebody_else_does_him_no_harm(two):
    daemon, ports = two
    hosts = daemon.kill()
    (ledger,) = (daemon.directory / "state").glob("ledger-*.json")
    page = json.loads(ledger.read_text())
    page["hosts"][0]["pid"] = os.getpid()
    ledger.write_text(json.dumps(page))
    daemon.start()
    profiles = by_name(daemon)
    assert sorted(p["state"] for p in profiles.values()) == ["ready", "unloaded"]
    assert [request(port, body=GOOD)[0] for port in ports] == [200, 200]
    assert len(alive(hosts)) == 2, "the other one and its server live on"


def test_host_that_hangs_is_ended_and_replaced(two):
    daemon, ports = two
    host = daemon.profile("a")["host_pid"]
    daemon.kill()
    os.kill(host, signal.SIGSTOP)
    daemon.start()
    assert request(ports[0], body=GOOD)[0] == 200
    assert daemon.profile("a")["host_pid"] != host
    assert not alive([host])
