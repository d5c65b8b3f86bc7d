"""What a person waits for: commands, and the daemon until its ports are open.

CPU time stands beside the time on the clock: it depends less on what else the machine does. The
first round is not counted; it leaves compiled modules behind, as an installation does.
"""

import contextlib
import http.client
import os
import resource
import signal
import statistics
import subprocess
import tempfile
import time

from tests.bench.report import save, table
from tests.system.running import BIN, Llmd, free_ports


ROUNDS = 7


def command(*words, env):
    """Run a command: ms on the clock, and of the processor."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    began = time.perf_counter()
    subprocess.run(words, env=env, stdout=subprocess.DEVNULL, check=True)
    taken_s = time.perf_counter() - began
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    used_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return taken_s * 1e3, used_s * 1e3


def listening(directory, profiles, port):
    """Start a daemon: ms until that port of it answers, and of its processor until then."""
    daemon = Llmd(directory, {"gateway": None, "profiles": profiles})
    began = time.perf_counter()
    with daemon.log_file.open("ab") as log:
        process = subprocess.Popen([BIN / "llmd", "serve"], env=daemon.env, stdout=log, stderr=log)
    try:
        while time.perf_counter() - began < 60:
            with contextlib.suppress(OSError, http.client.HTTPException):
                connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
                connection.request("GET", "/health")
                connection.getresponse().read()
                connection.close()
                break
            time.sleep(0.002)
        else:
            raise SystemExit(f"llmd did not start: {daemon.log()}")
        taken_s = time.perf_counter() - began
    finally:
        process.send_signal(signal.SIGTERM)
        _, _, used = os.wait4(process.pid, 0)
        process.returncode = 0
    return taken_s * 1e3, (used.ru_utime + used.ru_stime) * 1e3


def remote(port):
    return {"engine": "remote", "url": "http://127.0.0.1:9", "port": port}


def main():
    taken = {}
    with tempfile.TemporaryDirectory(prefix="llmd-", dir="/tmp") as directory:
        port, other = free_ports(2)
        os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
        daemon = Llmd(directory, {"gateway": None, "profiles": {"code": remote(port)}}).start()
        ctl, llmd = BIN / "llmd-ctl", BIN / "llmd"
        ways = {
            "python -c pass": lambda: command(BIN / "python", "-c", "pass", env=daemon.env),
            "llmd --version": lambda: command(llmd, "--version", env=daemon.env),
            "llmd-ctl --version": lambda: command(ctl, "--version", env=daemon.env),
            "llmd-ctl --help": lambda: command(ctl, "--help", env=daemon.env),
            "llmd-ctl status": lambda: command(ctl, "status", env=daemon.env),
            "llmd-ctl --json status": lambda: command(ctl, "--json", "status", env=daemon.env),
        }
        try:
            for _ in range(ROUNDS + 1):
                for name, run in ways.items():
                    taken.setdefault(name, []).append(run())
                with tempfile.TemporaryDirectory(prefix="llmd-", dir="/tmp") as fresh:
                    name = "llmd serve, until its port answers"
                    taken.setdefault(name, []).append(
                        listening(fresh, {"code": remote(other)}, other)
                    )
        finally:
            daemon.stop()
    rows = {
        name: {
            "median, ms": statistics.median(clock for clock, _ in found),
            "least, ms": min(clock for clock, _ in found),
            "CPU, ms": statistics.median(used for _, used in found),
        }
        for name, (_first, *found) in taken.items()
    }
    table(rows, ["median, ms", "least, ms", "CPU, ms"])
    save("startup", rows)


if __name__ == "__main__":
    main()
