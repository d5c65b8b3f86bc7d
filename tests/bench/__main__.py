"""`make bench`: every benchmark in turn, or those named; then what was to be reached.

Figures go to build/bench/NAME.json, charts of them to build/bench/NAME.svg. A benchmark that fails
does not keep the others from running.
"""

import subprocess
import sys
import time

from tests.bench.report import OUT, ROOT, say


TITLES = {
    "data_plane": "The data plane alone, against an instant engine",
    "profile": "Where the data plane's CPU time goes",
    "inside": "What llmd itself computes for a small request",
    "whole_daemon": "The whole daemon, against an instant engine",
    "rivals": "The whole daemon beside other proxies",
    "startup": "What a person waits for before a command does anything",
    "swap": "From a request to the first token, on a cold port",
    "prompt": "A long prompt asked again",
    "reading": "What a load of weights is made of",
    "growth": "What grows with profiles, ports and clients",
    "eviction": "Seconds that users wait, by who chooses the victim",
    "idle": "Three residents and no requests",
    "footprint": "What models are expected to hold, and what they held",
}


def run(title, name, *words):
    """Whether the program *name* ended well; says how long it took."""
    say(f"\n{title}\n{'=' * len(title)}")
    began = time.monotonic()
    program = [sys.executable, "-m", f"tests.bench.{name}", *words]
    status = subprocess.run(program, cwd=ROOT, check=False).returncode
    failed = f", and failed with status {status}" if status else ""
    say(f"{name} took {(time.monotonic() - began) / 60:.1f} min{failed}", progress=True)
    return not status


def main():
    unknown = [name for name in sys.argv[1:] if name not in TITLES]
    if unknown:
        sys.stderr.write(f"no benchmark {unknown[0]!r}; there are {', '.join(TITLES)}\n")
        return 2
    names, failed = sys.argv[1:] or list(TITLES), []
    for number, name in enumerate(names, 1):
        say(f"{number} of {len(names)}: {name}", progress=True)
        if not run(TITLES[name], name):
            failed.append(name)
    run("Targets", "targets", *names)
    run("Charts", "charts", str(OUT))
    if failed:
        say(f"failed: {', '.join(failed)}")
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
