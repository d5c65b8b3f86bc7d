"""`make bench`: every benchmark in turn, or those named; figures in build/bench/NAME.json."""

import subprocess
import sys
from pathlib import Path


ROOT = Path(__file__).parents[2]

TABLES = {
    "data_plane": "The data plane alone, against an instant engine",
    "profile": "Where the data plane's CPU time goes",
    "whole_daemon": "The whole daemon, against an instant engine",
    "rivals": "The whole daemon beside other proxies",
    "swap": "From a request to the first token, on a cold port",
    "reading": "What a load of weights is made of",
    "footprint": "What models are expected to hold, and what they held",
    "eviction": "Seconds that users wait, by who chooses the victim",
    "idle": "Three residents and no requests",
    "growth": "What grows with profiles, ports and clients",
    "startup": "What a person waits for before a command does anything",
}


def main() -> int:
    unknown = [name for name in sys.argv[1:] if name not in TABLES]
    if unknown:
        sys.stderr.write(f"no benchmark {unknown[0]!r}; there are {', '.join(TABLES)}\n")
        return 2
    failed = 0
    for name in sys.argv[1:] or TABLES:
        sys.stdout.write(f"\n{TABLES[name]}\n{'=' * len(TABLES[name])}\n")
        sys.stdout.flush()
        program = [sys.executable, "-m", f"tests.bench.{name}"]
        failed |= subprocess.run(program, cwd=ROOT, check=False).returncode
    return failed


if __name__ == "__main__":
    sys.exit(main())
