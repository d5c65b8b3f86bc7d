"""From a request to its first token on a cold port, beside the same servers started by hand.

Each round takes every way in turn, so that a slow moment of the machine hits all of them. By hand
means: started, and asked as soon as anybody listens. "After a boot" is the same with the weights
and the engine's packages forgotten by the page cache, as far as nobody else has them mapped. The
ratio is to the same engine by hand: `mlx_lm.server`, or llama.cpp in the module that llmd's own
host uses; `llama_cpp.server` is there after `make test-llama-cpp-python`.

Below: from the command to unload until the process is reaped, and how long an engine that was ready
had nothing to do while a request waited for it.
"""

import contextlib
import http.client
import importlib.util
import json
import os
import select
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.bench.report import ROOT, save, say, table
from tests.system.running import UNRULY, Llmd, free_ports, request


ROUNDS = 3
DEMO = ROOT / "build" / "demo"
READY_DELAY_S = 0.6
BODY = json.dumps(
    {"messages": [{"role": "user", "content": "Hello"}], "stream": True, "max_tokens": 8}
)
PACKAGES = (
    "mlx", "mlx_lm", "transformers", "tokenizers", "numpy", "xllamacpp", "llama_cpp",
    "huggingface_hub",
)  # fmt: skip

MLX_BY_HAND = [
    sys.executable, "-m", "mlx_lm.server", "--port", "{port}", "--model", str(DEMO / "tiny-mlx"),
]  # fmt: skip
LLAMA_CPP_PYTHON_BY_HAND = [
    sys.executable, "-m", "llama_cpp.server", "--port", "{port}", "--n_ctx", "32768",
    "--model", str(DEMO / "tiny-f16.gguf"),
]  # fmt: skip
XLLAMACPP_BY_HAND = [
    sys.executable,
    "-c",
    f"""
import signal, xllamacpp
params = xllamacpp.CommonParams()
params.model.path = {str(DEMO / "tiny-f16.gguf")!r}
params.port = {{port}}
params.n_parallel = 2
params.n_ctx = 2 * 32768
params.kv_unified = False
server = xllamacpp.Server(params)
signal.pause()
""",
]


def first_token_s(port, began, timeout_s=60):
    """Seconds from *began* until a token came, asking as soon as anybody listens."""
    while time.perf_counter() - began < timeout_s:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout_s)
        with contextlib.closing(connection), contextlib.suppress(ConnectionRefusedError):
            headers = {"Content-Type": "application/json"}
            connection.request("POST", "/v1/chat/completions", BODY, headers)
            response = connection.getresponse()
            while line := response.readline():
                if line.startswith(b"data: {") and said(json.loads(line[6:])):
                    return time.perf_counter() - began
            if response.status != http.HTTPStatus.SERVICE_UNAVAILABLE:  # llama.cpp, while it loads
                raise SystemExit(f"no token: {response.status}")
        select.select([], [], [], 0.01)
    raise SystemExit("no server")


def said(event):
    """Whether *event* has a token in it; some servers begin with one that names the role alone."""
    return any(choice["delta"].get("content") for choice in event.get("choices", ()))


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
        server.kill()
        server.wait()


def forget():
    """Let the page cache drop the demo's weights and the engines' packages."""
    files = [DEMO / "tiny-f16.gguf", *(DEMO / "tiny-mlx").iterdir()]
    for package in PACKAGES:
        spec = importlib.util.find_spec(package)
        for place in spec.submodule_search_locations or () if spec is not None else ():
            files += [file for file in Path(place).rglob("*") if file.is_file()]
    for file in files:
        descriptor = os.open(file, os.O_RDONLY)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)


class Cold:
    """A daemon whose ports are cold each time they are asked."""

    def __init__(self, directory, *, spare):
        self.spare = spare
        self.mlx, self.gguf, self.slow = free_ports(3)
        self.daemon = Llmd(
            directory,
            {
                "budget": "8GiB",
                "gateway": None,
                "models_dirs": [str(DEMO)],
                "warm_spare": spare,
                "profiles": {
                    "mlx": {"engine": "mlx", "model": "tiny-mlx", "port": self.mlx},
                    "gguf": {"engine": "llama.cpp", "model": "tiny-f16.gguf", "port": self.gguf},
                    "slow": {
                        "engine": "command",
                        "cmd": [*UNRULY, "--ready-delay", str(READY_DELAY_S)],
                        "port": self.slow,
                        "memory": "100MiB",
                    },
                },
            },
        ).start()

    def unload(self, profile):
        """Milliseconds until its process was reaped."""
        began = time.perf_counter()
        _, report = self.daemon.admin("POST", f"/v1/profiles/{profile}/unload")
        assert not self.daemon.profile(profile)["host_pid"], report
        return (time.perf_counter() - began) * 1e3

    def ask(self, port, *, forgotten=False):
        """Seconds to a token from a port that was made cold."""
        if self.spare:
            self.daemon.wait_for(lambda s: s["spare"] and s["spare"]["state"] == "prepared")
        if forgotten:
            forget()
        return first_token_s(port, time.perf_counter())

    def unnoticed_ms(self):
        """How long a server that was ready had nothing to do, while a request waited for it."""
        request(self.slow, body={"messages": [], "max_tokens": 1})
        _, _, stats = request(self.slow, "GET", "/stats")
        self.unload("slow")
        return json.loads(stats)["unused_s"] * 1e3


def measure(spared, bare):
    """Seconds to the first token of each way, unloads and unnoticed readiness in ms."""
    boot = hasattr(os, "posix_fadvise")

    def hand(command, *, forgotten=False):
        if forgotten:
            forget()
        return by_hand(command)

    ways = {
        "mlx_lm.server by hand": lambda **how: hand(MLX_BY_HAND, **how),
        "llmd, MLX, no spare": lambda **how: bare.ask(bare.mlx, **how),
        "llmd, MLX, warm spare": lambda **how: spared.ask(spared.mlx, **how),
        "llama_cpp.server by hand": lambda **how: hand(LLAMA_CPP_PYTHON_BY_HAND, **how),
        "xllamacpp by hand": lambda **how: hand(XLLAMACPP_BY_HAND, **how),
        "llmd, llama.cpp": lambda **how: bare.ask(bare.gguf, **how),
    }
    if importlib.util.find_spec("llama_cpp") is None:
        del ways["llama_cpp.server by hand"]
        say("llama-cpp-python is not installed: its server is left out")
    tokens, unloads, unnoticed = {}, {"MLX": [], "llama.cpp": []}, []
    for turn in range(ROUNDS):
        say(f"round {turn + 1} of {ROUNDS}", progress=True)
        for forgotten in (False, True) if boot else (False,):
            for name, way in ways.items():
                taken_s = way(forgotten=forgotten)
                tokens.setdefault((name, forgotten), []).append(taken_s)
                if name.startswith("llmd"):
                    daemon = spared if "warm" in name else bare
                    engine, profile = ("MLX", "mlx") if "MLX" in name else ("llama.cpp", "gguf")
                    unloads[engine].append(daemon.unload(profile))
        unnoticed += [bare.unnoticed_ms() for _ in range(3)]
    return tokens, unloads, unnoticed


def main():
    with contextlib.ExitStack() as stack:
        directories = [
            stack.enter_context(tempfile.TemporaryDirectory(prefix="llmd-", dir="/tmp"))
            for _ in range(2)
        ]
        spared = Cold(directories[0], spare=True)
        stack.callback(spared.daemon.stop)
        bare = Cold(directories[1], spare=False)
        stack.callback(bare.daemon.stop)
        tokens, unloads, unnoticed = measure(spared, bare)
    rows = {}
    for (name, forgotten), taken in tokens.items():
        base = "mlx_lm.server by hand" if "mlx" in name.lower() else "xllamacpp by hand"
        middle = statistics.median(taken)
        rows[name + (", after a boot" if forgotten else "")] = {
            "median, s": middle,
            "least, s": min(taken),
            "most, s": max(taken),
            "ratio": middle / statistics.median(tokens[base, forgotten]),
        }
    table(rows, ["median, s", "least, s", "most, s", "ratio"], head="request to first token")
    others = {
        **{f"unload to reaped, {engine}": taken for engine, taken in unloads.items()},
        "ready, and not noticed": unnoticed,
    }
    spread = {
        name: {"median, ms": statistics.median(ms), "least, ms": min(ms), "most, ms": max(ms)}
        for name, ms in others.items()
    }
    say()
    table(spread, ["median, ms", "least, ms", "most, ms"])
    save("swap", {"first_token": rows, "others": spread})


if __name__ == "__main__":
    main()
