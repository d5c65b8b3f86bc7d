"""From a request to its first token on a cold port, beside the same server started by hand.

Each round takes every way in turn, so that a slow moment of the machine hits all of them.
"""

import contextlib
import http.client
import json
import os
import select
import statistics
import subprocess
import sys
import tempfile
import time

from tests.bench.report import ROOT, save, say
from tests.system.running import Llmd, free_ports


ROUNDS = 3
BODY = json.dumps(
    {"messages": [{"role": "user", "content": "Hello"}], "stream": True, "max_tokens": 8}
)


def first_token_s(port, began, timeout_s=60):
    """Seconds from *began* until a token came, asking as soon as anybody listens."""
    while time.perf_counter() - began < timeout_s:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout_s)
        with contextlib.closing(connection), contextlib.suppress(ConnectionRefusedError):
            headers = {"Content-Type": "application/json"}
            connection.request("POST", "/v1/chat/completions", BODY, headers)
            response = connection.getresponse()
            while line := response.readline():
                if line.startswith(b"data: ") and b'"content"' in line:
                    return time.perf_counter() - began
            raise SystemExit(f"no token: {response.status}")
        select.select([], [], [], 0.01)
    raise SystemExit("no server")


def by_hand(command):
    """Start *command* on a free port, ask it, end it."""
    (port,) = free_ports(1)
    began = time.perf_counter()
    server = subprocess.Popen(
        [part.replace("{port}", str(port)) for part in command],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
    )
    try:
        return first_token_s(port, began)
    finally:
        server.terminate()
        server.wait()


def through(daemon, port, profile, *, spare):
    """Ask a cold port of *daemon*, once its spare is prepared or known to be absent."""
    daemon.admin("POST", f"/v1/profiles/{profile}/unload")
    if spare:
        daemon.wait_for(lambda s: s["spare"] and s["spare"]["state"] == "prepared")
    return first_token_s(port, time.perf_counter())


def start(directory, models, ports, **more):
    return Llmd(
        directory,
        {
            "budget": "8GiB",
            "gateway": None,
            "models_dirs": [str(models)],
            **more,
            "profiles": {
                "mlx": {"engine": "mlx", "model": "tiny-mlx", "port": ports[0]},
                "gguf": {"engine": "llama.cpp", "model": "tiny-f16.gguf", "port": ports[1]},
            },
        },
    ).start()


def main():
    models = ROOT / "build" / "demo"
    ports = free_ports(4)
    times = {}
    with contextlib.ExitStack() as stack:
        spared, bare = (
            stack.enter_context(tempfile.TemporaryDirectory(prefix="llmd-", dir="/tmp"))
            for _ in range(2)
        )
        with_spare = start(spared, models, ports[:2])
        stack.callback(with_spare.stop)
        without = start(bare, models, ports[2:], warm_spare=False)
        stack.callback(without.stop)
        stock = [sys.executable, "-m", "mlx_lm.server", "--port", "{port}"]
        ways = {
            "mlx_lm.server by hand": lambda: by_hand([*stock, "--model", str(models / "tiny-mlx")]),
            "llmd, MLX, no spare": lambda: through(without, ports[2], "mlx", spare=False),
            "llmd, MLX, warm spare": lambda: through(with_spare, ports[0], "mlx", spare=True),
            "llmd, llama.cpp": lambda: through(without, ports[3], "gguf", spare=False),
        }
        for _ in range(ROUNDS):
            for name, measure in ways.items():
                times.setdefault(name, []).append(measure())
    base = statistics.median(times["mlx_lm.server by hand"])
    say(f"{'':28}{'median':>10}{'min':>10}{'max':>10}{'ratio':>10}")
    for name, taken in times.items():
        middle = statistics.median(taken)
        figures = "".join(f"{value:9.2f}s" for value in (middle, min(taken), max(taken)))
        say(f"{name:28}{figures}{middle / base:10.2f}")
    save("swap", times)


if __name__ == "__main__":
    main()
