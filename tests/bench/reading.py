"""What a load is made of: generated weights of 50 MB to 2 GB, in the page cache and not.

    python -m tests.bench.reading --sizes 50 200

"Reading" is what the load takes longer when the weights are not in the page cache; "of a plain
read" is its speed against that of reading the same file from one end to the other with nothing
else to do. "Fetched" is what the host's process got from the disk, against the size of the weights:
1 when every byte is fetched once. Faults are major page faults for each MB of weights. Times are
the least of three rounds; MLX is loaded by a warm spare. Linux only.

The second table says what the kernel was asked, as strace saw it: a call is in order when it begins
where another has ended, whichever thread made that one. A map that is populated is one read.
"""

import argparse
import contextlib
import os
import re
import shutil
import signal
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

from tests.bench.footprint_cases import DENSE
from tests.bench.generated import generate
from tests.bench.report import ROOT, save, say, table
from tests.system.running import Llmd, free_ports


SIZES_MB = (50, 200, 500, 1000, 2000)
ROUNDS = 3
TOLD_APART = 0.03
"""Of a load: what reading adds less than this is not told apart from noise, and is a dash."""
COLUMNS = (
    "MB", "from memory, s", "from disk, s", "reading, %", "reading, MB/s", "plain read, MB/s",
    "of a plain read, %", "fetched", "faults/MB",
)  # fmt: skip
BLOCK = bytearray(2**20)
ENGINES = {"mlx": "f32", "llama.cpp": "F16"}
"""And the type of the weights: MLX computes slowly with 16 bits on a CPU."""
LAYER_MB = {"mlx": 63, "llama.cpp": 31.5}
LAYER = {
    **DENSE, "model_type": "qwen3", "hidden_size": 1024, "intermediate_size": 4096,
    "num_attention_heads": 16, "num_key_value_heads": 8,
}  # fmt: skip
BEGAN, FILE = r"^(?P<began_s>[\d.]+) ", r"\d+<(?P<file>.+?)>"
CALLS = {
    "pread64": rf"{BEGAN}pread64\({FILE}, .*, (?P<size>\d+), (?P<at>\d+)\) ",
    "mmap": rf"{BEGAN}mmap\(\w+, (?P<size>\d+), .*, {FILE}, (?P<at>\w+)\) ",
}
"""How strace writes them: where in the file, and how many bytes."""


def weights_of(engine, size_mb, directory):
    """A model of about *size_mb*: what a profile names, and the file with its weights."""
    layers = max(round(size_mb / LAYER_MB[engine]), 1)
    model = generate(engine, {**LAYER, "num_hidden_layers": layers}, ENGINES[engine], directory)
    file = model / "model.safetensors" if engine == "mlx" else model
    with file.open("rb") as opened:
        os.fsync(opened)  # dirty pages cannot be forgotten
    return model, file


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
    """Load the one profile: seconds, and of its host major page faults and bytes from the disk."""
    daemon.admin("POST", "/v1/profiles/model/unload")
    fetched = 0
    if spare:
        status = daemon.wait_for(lambda s: s["spare"] and s["spare"]["state"] == "prepared")
        fetched = fetched_bytes(status["spare"]["host_pid"])
    began = time.perf_counter()
    status, report = daemon.admin("POST", "/v1/profiles/model/load", timeout=300)
    taken_s = time.perf_counter() - began
    assert status == 200, report
    pid = daemon.profile("model")["host_pid"]
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")
    return taken_s, int(fields[2].split()[9]), fetched_bytes(pid) - fetched


def fetched_bytes(pid):
    """What the process has had read from a disk so far, ahead or because it asked."""
    lines = Path(f"/proc/{pid}/io").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("read_bytes"))


@contextlib.contextmanager
def generated(engine, size_mb, *, spare):
    """A daemon for a model of about *size_mb*, and the file with its weights."""
    with (
        tempfile.TemporaryDirectory(prefix="llmd-", dir=ROOT / "build") as weights,
        tempfile.TemporaryDirectory(prefix="llmd-", dir="/tmp") as directory,
    ):
        model, file = weights_of(engine, size_mb, Path(weights))
        profile = {"engine": engine, "model": str(model)}
        # The other one is what a warm spare is kept for.
        profiles = {
            name: {**profile, "port": port, "context": 1024, "parallel": 1}
            for name, port in zip(("model", "other"), free_ports(2), strict=True)
        }
        config = {"budget": "16GiB", "gateway": None, "warm_spare": spare, "profiles": profiles}
        daemon = Llmd(directory, config).start()
        try:
            yield daemon, file
        finally:
            daemon.stop()


def measure(engine, size_mb):
    """One row: load from memory, from disk, a plain read from disk, and what follows from them."""
    say(f"{engine}, {size_mb} MB", progress=True)
    spare = engine == "mlx"
    warm, cold, plain, faults, fetched = [], [], [], [], []
    with generated(engine, size_mb, spare=spare) as (daemon, file):
        total_mb = file.stat().st_size / 1e6
        for _ in range(ROUNDS):
            forget(file)
            plain.append(read(file))
            warm.append(load(daemon, spare=spare)[0])
            daemon.admin("POST", "/v1/profiles/model/unload")  # what is mapped would stay
            forget(file)
            taken_s, faulted, from_disk = load(daemon, spare=spare)
            cold.append(taken_s)
            faults.append(faulted)
            fetched.append(from_disk)
    warm_s, cold_s, plain_s = (min(taken) for taken in (warm, cold, plain))
    reading_s = cold_s - warm_s
    told = {}
    if reading_s > TOLD_APART * cold_s:
        told = {
            "reading, %": reading_s / cold_s * 100,
            "reading, MB/s": total_mb / reading_s,
            "of a plain read, %": plain_s / reading_s * 100,
        }
    return {
        "MB": total_mb,
        "from memory, s": warm_s,
        "from disk, s": cold_s,
        **told,
        "plain read, MB/s": total_mb / plain_s,
        "fetched": statistics.median(fetched) / 1e6 / total_mb,
        "faults/MB": statistics.median(faults) / total_mb,
    }


def calls(engine, size_mb):
    """One row: in how many calls a host reads its weights, how large they are, and in what order.

    strace makes the load slow, so nothing is timed. A host of its own is traced from its start.
    """
    say(f"{engine}, {size_mb} MB, traced", progress=True)
    with (
        generated(engine, size_mb, spare=False) as (daemon, file),
        tempfile.TemporaryDirectory() as out,
    ):
        tracer = subprocess.Popen(
            ["strace", "-ff", "-ttt", "-y", "-s0", "-e", "trace=pread64,mmap",
             "-o", f"{out}/thread", "-p", str(daemon.process.pid)],
            stderr=subprocess.DEVNULL,
        )  # fmt: skip
        while not any(Path(out).iterdir()):
            time.sleep(0.1)
        load(daemon, spare=False)
        tracer.send_signal(signal.SIGINT)
        tracer.wait()
        text = "\n".join(thread.read_text() for thread in Path(out).iterdir())
    seen = [
        call
        for form in CALLS.values()
        for call in re.finditer(form, text, re.MULTILINE)
        if call["file"] == str(file)
    ]
    seen.sort(key=lambda call: float(call["began_s"]))
    pieces = [(int(call["at"], 0), int(call["size"])) for call in seen]
    ends, in_order = {min(at for at, _ in pieces)}, 0
    for at, size in pieces:
        in_order += size if at in ends else 0
        ends.add(at + size)
    total = sum(size for _, size in pieces)
    return {
        "by": " and ".join(name for name in CALLS if any(f" {name}(" in call[0] for call in seen)),
        "calls": len(pieces),
        "MB each": total / len(pieces) / 1e6,
        "in order, %": in_order / total * 100,
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES_MB, metavar="MB")
    options = parser.parse_args()
    if not hasattr(os, "posix_fadvise"):
        say("it makes the page cache forget, which this system cannot")
        return
    free_mb = shutil.disk_usage(ROOT).free / 1e6
    sizes = [size for size in options.sizes if size < free_mb / 2]
    if len(sizes) < len(options.sizes):
        say(f"the disk has room for {free_mb:,.0f} MB: nothing above half of that is measured")
    if not sizes:
        return
    rows = {f"{engine}, {size} MB": measure(engine, size) for size in sizes for engine in ENGINES}
    table(rows, COLUMNS)
    asked = {}
    if shutil.which("strace") is not None:
        asked = {engine: calls(engine, sizes[0]) for engine in ENGINES}
        say()
        table(asked, list(next(iter(asked.values()))), head=f"{sizes[0]} MB")
    save("reading", {"loads": rows, "calls": asked})


if __name__ == "__main__":
    main()
