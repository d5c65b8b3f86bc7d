"""What models and their caches take, measured from outside."""

from tests.system.running import GOOD, free_ports, lay_out, request, unruly


def test_growing_engine_is_charged_what_it_holds_and_idle_ones_make_room(start):
    """Failure 14."""
    ports = free_ports(2)
    daemon = start(
        lay_out(
            {
                "idle": unruly(ports[0], memory="80MiB"),
                "leaky": unruly(ports[1], "--leak", str(60 * 2**20), memory="80MiB"),
            }
        )
    )
    daemon.ctl("pin", "leaky")  # else it may be the one to go
    request(ports[0], body=GOOD)
    for _ in range(2):
        request(ports[1], body=GOOD)
    daemon.wait_for(lambda s: s["profiles"][1]["footprint_bytes"] > 120 * 2**20)
    daemon.wait_for(lambda s: s["profiles"][0]["state"] == "unloaded")
    assert "footprint.raised" in daemon.ctl("--json", "events").stdout
