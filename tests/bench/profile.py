"""Where the data plane's CPU time goes, by library: needs `perf` (Debian: linux-perf).

The kernel's share is system calls and switches between processes; what is left is divided among
Python's own interpreter, uvloop, llhttp (`parser`) and msgspec (`_core`).
"""

import asyncio
import re
import shutil
import subprocess
import tempfile
import time

import uvloop

from tests.bench import bare_plane, instant_engine
from tests.bench.load import Caller, Listener, connected, request
from tests.bench.planes import CHUNKS, GAP_US
from tests.bench.report import save, say, table


SECONDS = 6
LEAST_PERCENT = 0.5
LINE = re.compile(r"^ +([\d.]+)% +(\S+)", re.MULTILINE)


async def small_requests(address):
    callers = await connected(address, Caller, 32)
    until_s = time.perf_counter() + SECONDS
    await asyncio.gather(*(caller.run(request(), until_s=until_s) for caller in callers))


async def streams(address):
    readers = await connected(address, Listener, 4)
    until_s = time.perf_counter() + SECONDS
    wish = request(chunks=CHUNKS, gap_us=GAP_US)
    while time.perf_counter() < until_s:
        await asyncio.gather(*(reader.run(wish) for reader in readers))


def shares(address, pid, work, file):
    """Percent of the samples of *pid* during *work*, by library."""
    record = ["perf", "record", "-q", "-e", "cpu-clock", "-F", "2000", "-p", str(pid), "-o", file]
    recorder = subprocess.Popen([*record, "--", "sleep", str(SECONDS - 1)])
    uvloop.run(work(address))
    recorder.wait()
    shown = subprocess.run(
        ["perf", "report", "-i", file, "--stdio", "--sort", "dso", "-g", "none"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    found = {
        name.strip("[]").partition(".")[0]: float(share)
        for share, name in LINE.findall(shown.stdout)
    }
    return {name: share for name, share in found.items() if share >= LEAST_PERCENT}


def main():
    if shutil.which("perf") is None:
        say("perf is not installed")
        return
    with tempfile.TemporaryDirectory(dir="/tmp") as directory:
        path, file = f"{directory}/engine.sock", f"{directory}/perf.data"
        with (
            instant_engine.running(instant_engine.run, path),
            instant_engine.running(bare_plane.run, path) as (port, pid),
        ):
            works = {"small requests, %": small_requests, "paced chunks, %": streams}
            columns = {
                name: shares(f"127.0.0.1:{port}", pid, work, file) for name, work in works.items()
            }
    libraries = dict.fromkeys(library for found in columns.values() for library in found)
    rows = {
        library: {name: found.get(library) for name, found in columns.items()}
        for library in libraries
    }
    table(rows, list(columns))
    save("profile", rows)


if __name__ == "__main__":
    main()
