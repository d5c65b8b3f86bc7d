"""What a load is made of: generated weights of 50 MB to 2 GB, in the page cache and not.

    python -m tests.bench.reading --sizes 50 200

"Reading" is what the load takes longer when the weights are not in the page cache; beside it stands
a plain sequential read of the same file. Faults are major page faults for each MB of weights: few
mean large reads. Times are the least of three rounds. Linux only.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.bench.report import ROOT, save, say, table
from tests.system.running import Llmd, free_ports


SIZES_MB = (50, 200, 500, 1000, 2000)
ROUNDS = 3
BLOCK = bytearray(2**20)
ENGINES = {"mlx": "model.safetensors", "llama.cpp": "model.gguf"}
"""And the file with the weights."""


def generate(engine, size_mb, directory):
    """A model of about *size_mb*: what a profile names, and the file with its weights."""
    program = [sys.executable, "-m", "tests.bench.weights", engine, str(size_mb), str(directory)]
    subprocess.run(program, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    file = directory / ENGINES[engine]
    with file.open("rb") as opened:
        os.fsync(opened)  # dirty pages cannot be forgotten
    return directory if engine == "mlx" else file, file


def forget(file):
    with file.open("rb") as opened:
        os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def read(file):
    """Seconds of reading *file* from one end to the other."""
    began = time.perf_counter()
    with file.open("rb", buffering=0) as opened:
        while opened.readinto(BLOCK):
            pass
    return time.perf_counter() - began


def load(daemon, *, spare):
    """Load the one profile: seconds, and major page faults of its host."""
    daemon.admin("POST", "/v1/profiles/model/unload")
    if spare:
        daemon.wait_for(lambda s: s["spare"] and s["spare"]["state"] == "prepared")
    began = time.perf_counter()
    status, report = daemon.admin("POST", "/v1/profiles/model/load", timeout=300)
    taken_s = time.perf_counter() - began
    assert status == 200, report
    fields = Path(f"/proc/{daemon.profile('model')['host_pid']}/stat").read_text().rpartition(")")
    return taken_s, int(fields[2].split()[9])


def measure(engine, size_mb):
    """One row: load from memory, from disk, a plain read from disk, and what follows from them."""
    with (
        tempfile.TemporaryDirectory(prefix="llmd-", dir=ROOT / "build") as weights,
        tempfile.TemporaryDirectory(prefix="llmd-", dir="/tmp") as directory,
    ):
        model, file = generate(engine, size_mb, Path(weights))
        total_mb = file.stat().st_size / 1e6
        profile = {"engine": engine, "model": str(model)}
        # The other one is what a warm spare is kept for.
        profiles = {
            name: {**profile, "port": port, "context": 1024, "parallel": 1}
            for name, port in zip(("model", "other"), free_ports(2), strict=True)
        }
        daemon = Llmd(directory, {"budget": "16GiB", "gateway": None, "profiles": profiles}).start()
        warm, cold, plain, faults = [], [], [], []
        try:
            for _ in range(ROUNDS):
                forget(file)
                plain.append(read(file))
                warm.append(load(daemon, spare=engine == "mlx")[0])
                daemon.admin("POST", "/v1/profiles/model/unload")  # what is mapped would stay
                forget(file)
                taken_s, faulted = load(daemon, spare=engine == "mlx")
                cold.append(taken_s)
                faults.append(faulted)
        finally:
            daemon.stop()
    warm_s, cold_s, plain_s = (min(taken) for taken in (warm, cold, plain))
    reading_s = max(cold_s - warm_s, 0.001)
    return {
        "MB": total_mb,
        "from memory, s": warm_s,
        "from disk, s": cold_s,
        "reading, s": reading_s,
        "reading, %": reading_s / cold_s * 100,
        "reading, MB/s": total_mb / reading_s,
        "plain read, MB/s": total_mb / plain_s,
        "faults/MB": statistics.median(faults) / total_mb,
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES_MB, metavar="MB")
    options = parser.parse_args()
    if not hasattr(os, "posix_fadvise"):
        say("it makes the page cache forget, which this system cannot")
        return
    rows = {
        f"{engine}, {size} MB": measure(engine, size)
        for size in options.sizes
        for engine in ENGINES
    }
    table(rows, list(next(iter(rows.values()))))
    save("reading", rows)


if __name__ == "__main__":
    main()
