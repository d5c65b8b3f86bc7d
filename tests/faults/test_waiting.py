"""Who waits, for how long, and what a client hears meanwhile."""

import http.client
import json

from tests.system.running import GOOD, free_ports, lay_out, request, unruly


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
