"""Three residents and no requests: what the daemon and its hosts do all day. Linux only.

    python -m tests.bench.idle --seconds 60

Wake-ups are voluntary context switches of all threads (`/proc/PID/task/*/status`). The system calls
of the daemon are counted with strace where that is installed, after the measurement.
"""

import argparse
import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

from tests.bench.report import ROOT, save, say, table
from tests.system.running import Llmd, free_ports


SETTLE_S = 10
STRACE_S = 20
CALLS = re.compile(r"^ *[\d.]+ +[\d.]+ +\d+ +(\d+) +(?:\d+ +)?(\w+)$", re.MULTILINE)
"""A line of `strace -c`: share, seconds, µs for each call, calls, errors if any, name."""


def reading(pid):
    """Context switches so far, CPU seconds, and memory in MB, of all threads of *pid*."""
    process = Path(f"/proc/{pid}")
    switches = sum(
        int(line.split()[1])
        for status in process.glob("task/*/status")
        for line in status.read_text().splitlines()
        if line.startswith("voluntary_ctxt_switches")
    )
    exact_s = sum(
        int(file.read_text().split()[0]) / 1e9 for file in process.glob("task/*/schedstat")
    )
    memory = dict(
        line.split(":", 1) for line in (process / "smaps_rollup").read_text().splitlines()[1:]
    )
    rss_mb, private_mb = (
        sum(int(memory[name].split()[0]) for name in names) * 1024 / 1e6
        for names in (["Rss"], ["Private_Clean", "Private_Dirty"])
    )
    return {"switches": switches, "cpu_s": exact_s, "rss_mb": rss_mb, "private_mb": private_mb}


def system_calls(pid):
    """What *pid* asks the kernel in `STRACE_S` seconds; None where strace is not installed."""
    if shutil.which("strace") is None:
        return None
    with tempfile.NamedTemporaryFile("r") as out:
        tracer = subprocess.Popen(
            ["strace", "-f", "-c", "-o", out.name, "-p", str(pid)], stderr=subprocess.DEVNULL
        )
        with contextlib.suppress(subprocess.TimeoutExpired):
            tracer.wait(STRACE_S)
        tracer.send_signal(signal.SIGINT)
        tracer.wait()
        rows = CALLS.findall(out.read())
    return {name: int(calls) for calls, name in rows if name != "total"}


def configuration(ports):
    gguf = {"engine": "llama.cpp", "model": "tiny-f16.gguf", "pinned": True}
    mlx = {"engine": "mlx", "model": "tiny-mlx", "pinned": True}
    return {
        "budget": "16GiB",
        "gateway": None,
        "models_dirs": [str(ROOT / "build" / "demo")],
        "profiles": {
            "code": {**mlx, "port": ports[0]},
            "code6": {**mlx, "port": ports[0], "pinned": False},  # for it there is a warm spare
            "raw": {**gguf, "port": ports[1]},
            "reason": {**gguf, "port": ports[2]},
        },
    }


def measure(daemon, seconds):
    """Per process: wake-ups a second, CPU %, and memory; after everything has settled."""
    for profile in ("code", "raw", "reason"):
        daemon.admin("POST", f"/v1/profiles/{profile}/load")
    status = daemon.wait_for(lambda s: s["spare"] and s["spare"]["state"] == "prepared")
    pids = {"daemon": daemon.process.pid, "warm spare": status["spare"]["host_pid"]}
    for profile in (one for one in status["profiles"] if one["host_pid"]):
        pids[f"host, {profile['engine']} ({profile['name']})"] = profile["host_pid"]
    never = threading.Event()
    never.wait(SETTLE_S)
    before = {name: reading(pid) for name, pid in pids.items()}
    never.wait(seconds)
    rows = {}
    for name, pid in pids.items():
        now, then = reading(pid), before[name]
        rows[name] = {
            "wake-ups/s": (now["switches"] - then["switches"]) / seconds,
            "CPU %": (now["cpu_s"] - then["cpu_s"]) / seconds * 100,
            "RSS, MB": now["rss_mb"],
            "private, MB": now["private_mb"],
        }
    return rows, system_calls(daemon.process.pid)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--seconds", type=float, default=os.environ.get("LLMD_BENCH_SECONDS") or "600"
    )
    options = parser.parse_args()
    if sys.platform != "linux":
        say("it reads /proc, which this system does not have")
        return
    with tempfile.TemporaryDirectory(prefix="llmd-", dir="/tmp") as directory:
        daemon = Llmd(directory, configuration(free_ports(3))).start()
        try:
            rows, calls = measure(daemon, options.seconds)
        finally:
            daemon.stop()
    table(rows, list(rows["daemon"]), head=f"{options.seconds:.0f} s")
    if calls is not None:
        shown = ", ".join(f"{name} {count / STRACE_S:.1f}" for name, count in calls.items())
        say(f"system calls of the daemon, a second: {shown}")
    save("idle", {"seconds": options.seconds, "processes": rows, "system_calls": calls})


if __name__ == "__main__":
    main()
