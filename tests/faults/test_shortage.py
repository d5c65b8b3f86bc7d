"""A daemon that may open no more files: it goes on with what it has, and says what is missing."""

import contextlib
import http.client
import json
import sys
import time

import psutil
import pytest

from llmd.runtime.watch import ROUND_S
from tests.system.running import GOOD, free_ports, lay_out, request, unruly


pytestmark = pytest.mark.skipif(
    sys.platform != "linux", reason="only Linux lets another process's limits be changed"
)


def test_daemon_out_of_descriptors_serves_who_is_connected_and_recovers(start):
    ready, cold = free_ports(2)
    daemon = start(lay_out({"ready": unruly(ready), "cold": unruly(cold)}))
    kept = http.client.HTTPConnection("127.0.0.1", ready, timeout=30)
    assert ask(kept) == 200
    process = psutil.Process(daemon.process.pid)
    soft, hard = process.rlimit(psutil.RLIMIT_NOFILE)
    process.rlimit(psutil.RLIMIT_NOFILE, (process.num_fds(), hard))
    try:
        ends = time.monotonic() + 2 * ROUND_S + 1  # hosts are measured and written down meanwhile
        while time.monotonic() < ends:
            assert ask(kept) == 200
            with contextlib.suppress(OSError):  # a new client may be turned away
                request(cold, body=GOOD, timeout=0.2)
    finally:
        process.rlimit(psutil.RLIMIT_NOFILE, (soft, hard))
        kept.close()
    assert daemon.ctl("load", "cold").returncode == 0
    assert request(cold, body=GOOD)[0] == 200
    assert daemon.profile("ready")["loads"] == 1


def ask(connection):
    connection.request("POST", "/v1/chat/completions", json.dumps(GOOD))
    response = connection.getresponse()
    response.read()
    return response.status
