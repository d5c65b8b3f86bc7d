"""The whole daemon beside other proxies in front of the same engine, taking turns.

    python -m tests.bench.rivals --scale 0.1 nginx

Rows are those of `planes.py`, at half its length; a dash is what a side was not asked for. `splice`
is what the machine costs any proxy in Python (`splice.py`), `aiohttp` a plain one, nginx one in C
that looks at nothing. nginx and litellm's are looked for on PATH and in build/, where `make
bench-rivals` puts them; what is missing is left out, and said. llama-swap is on PATH or left out:
no registry of packages has it.
"""

import argparse
import contextlib
import http.client
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import uvloop

from tests.bench.planes import measure, rss_mb
from tests.bench.report import ROOT, save, say, table
from tests.bench.whole_daemon import engine_behind_llmd
from tests.system.running import free_ports


NGINX = """
daemon off; master_process off; pid nginx.pid; error_log error.log;
events {{ worker_connections 4096; }}
http {{
  access_log off; client_max_body_size 64m; client_body_buffer_size 8m;
  client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi;
  uwsgi_temp_path uwsgi; scgi_temp_path scgi; keepalive_requests 1000000;
  upstream engine {{ server 127.0.0.1:{engine}; keepalive 512; keepalive_requests 1000000; }}
  server {{
    listen 127.0.0.1:{port} backlog=1024;
    location / {{
      proxy_pass http://engine; proxy_http_version 1.1; proxy_set_header Connection "";
      proxy_buffering off;
    }}
  }}
}}
"""
LITELLM_ENV = {
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",  # not from the network
    "LITELLM_LOG": "ERROR",
    "REPEATED_STREAMING_CHUNK_LIMIT": "100000",  # our events all say the same
    "LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY": "true",
}


def aiohttp_proxy(_directory, engine, port):
    url = f"http://127.0.0.1:{engine}"
    return [sys.executable, "-m", "tests.bench.aiohttp_proxy", url, str(port)], {}


def splice(_directory, engine, port):
    url = f"http://127.0.0.1:{engine}"
    return [sys.executable, "-m", "tests.bench.splice", url, str(port)], {}


def nginx(directory, engine, port):
    program = found("nginx", ROOT / "build" / "nginx" / "usr" / "sbin")
    (directory / "nginx.conf").write_text(NGINX.format(engine=engine, port=port))
    words = ["-p", str(directory), "-c", "nginx.conf", "-e", "error.log"]
    return program and [program, *words], {}


def litellm(directory, engine, port):
    program = found("litellm", ROOT / "build" / "litellm" / "bin")
    where = {"model": "openai/m", "api_base": f"http://127.0.0.1:{engine}/v1", "api_key": "none"}
    (directory / "litellm.yaml").write_text(
        json.dumps({"model_list": [{"model_name": "any", "litellm_params": where}]})
    )
    words = ["--config", str(directory / "litellm.yaml"), "--host", "127.0.0.1"]
    return program and [program, *words, "--port", str(port), "--num_workers", "1"], LITELLM_ENV


def llama_swap(directory, engine, port):
    """One model, whose server is the engine that runs already; its own does nothing but live."""
    program = found("llama-swap", ROOT / "build" / "llama-swap")
    model = {
        "cmd": "sleep 100000",
        "proxy": f"http://127.0.0.1:{engine}",
        "checkEndpoint": "none",
        "concurrencyLimit": 1000,
    }
    (directory / "llama-swap.yaml").write_text(json.dumps({"models": {"any": model}}))
    words = ["--config", str(directory / "llama-swap.yaml"), "--listen", f"127.0.0.1:{port}"]
    return program and [program, *words], {}


RIVALS = {
    "splice": splice,
    "aiohttp": aiohttp_proxy,
    "nginx": nginx,
    "litellm": litellm,
    "llama-swap": llama_swap,
}
SLOW = {"litellm": 32}
"""Connections that they are given at most: litellm's one worker takes seconds to answer 32."""
MISSING = {"llama-swap": "no registry of packages has it; nothing is said about it here"}


def found(name, place):
    return shutil.which(name, path=os.pathsep.join((str(place), os.environ["PATH"])))


@contextlib.contextmanager
def running(program, env, port, log):
    """A proxy in a process of its own, once it answers: its pid."""
    with log.open("wb") as out:
        process = subprocess.Popen(
            program, cwd=ROOT, env={**os.environ, **env}, stdout=out, stderr=out
        )
    try:
        answers(process, port, log)
        yield process.pid
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def answers(process, port, log, within_s=120):
    """Wait until *port* answers the very request that is measured."""
    body = json.dumps({"model": "any", "messages": [{"role": "user", "content": "hi"}]})
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline and process.poll() is None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        with contextlib.closing(connection), contextlib.suppress(OSError):
            headers = {"Content-Type": "application/json", "Authorization": "Bearer none"}
            connection.request("POST", "/v1/chat/completions", body, headers)
            response = connection.getresponse()
            said = response.read()
            if response.status == http.HTTPStatus.OK:
                return
            raise RuntimeError(f"it answers {response.status}: {said[:300]}")
        time.sleep(0.05)
    raise RuntimeError(f"it did not start: {log.read_text()[-500:]}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scale", type=float, default=0.5, help="of the time that it takes")
    parser.add_argument("names", nargs="*", default=list(RIVALS), metavar="RIVAL")
    options = parser.parse_args()
    notes = []
    with contextlib.ExitStack() as stack:
        directory = Path(
            stack.enter_context(tempfile.TemporaryDirectory(prefix="llmd-", dir="/tmp"))
        )
        direct, through, pid = stack.enter_context(engine_behind_llmd(directory))
        sides, pids = {"direct": direct, "llmd": through}, {"llmd": pid}
        for name in options.names:
            (port,) = free_ports(1)
            program, env = RIVALS[name](directory, direct.rpartition(":")[2], port)
            if program is None:
                why = MISSING.get(name, "`make bench-rivals` puts it into build/")
                notes.append(f"{name} is not installed: {why}")
                continue
            say(f"starting {name}", progress=True)
            pids[name] = stack.enter_context(running(program, env, port, directory / f"{name}.log"))
            sides[name] = f"127.0.0.1:{port}"
        rows = uvloop.run(measure(sides, pids, scale=options.scale, slow=SLOW))
        small = rows["small POST, p50, µs"]
        rows["added to a small POST, p50, µs"] = {
            name: small[name] - small["direct"] for name in pids
        }
        rows["memory afterwards, MB"] = {name: rss_mb(pid) for name, pid in pids.items()}
    notes += [f"{name}: {most} connections at most" for name, most in SLOW.items() if name in sides]
    table(rows, list(sides))
    for note in notes:
        say(note)
    save("rivals", rows)


if __name__ == "__main__":
    main()
