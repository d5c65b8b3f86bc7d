"""`make bench`: every benchmark in turn; tables on the terminal, figures in build/bench/."""

import subprocess
import sys
from pathlib import Path


HERE = Path(__file__).parent
ROOT = HERE.parents[1]

TABLES = [
    ("The data plane alone, against an instant engine", "data_plane.py"),
    ("The whole daemon, against an instant engine", "whole_daemon.py"),
    ("From a request to the first token, on a cold port", "swap.py"),
]


def main() -> int:
    failed = 0
    for title, script in TABLES:
        sys.stdout.write(f"\n{title}\n{'=' * len(title)}\n")
        sys.stdout.flush()
        failed |= subprocess.run([sys.executable, HERE / script], cwd=ROOT, check=False).returncode
    return failed


if __name__ == "__main__":
    sys.exit(main())
