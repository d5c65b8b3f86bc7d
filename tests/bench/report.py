"""How figures are shown and kept: tables on the terminal, JSON with where and when.

Each build/bench/NAME.json is `{"about": the machine, its load, versions, the commit and the date,
"figures": what the table shows}`.
"""

import datetime as dt
import importlib.metadata
import json
import math
import os
import platform
import subprocess
import sys
from pathlib import Path

import psutil


ROOT = Path(__file__).parents[2]
OUT = ROOT / "build" / "bench"
PACKAGES = ("uvloop", "httptools", "aiohttp", "mlx", "mlx-lm", "xllamacpp")


def say(text="", *, progress=False):
    """A line of the report; *progress* goes to stderr, so that the report can be kept by itself."""
    out = sys.stderr if progress else sys.stdout
    out.write(f"  … {text}\n" if progress else f"{text}\n")
    out.flush()


def number(value):
    """Three figures or so; a dash for what was not measured."""
    if value is None or math.isnan(value):
        return "-"
    if value == 0 or abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.2f}" if abs(value) < 10 else f"{value:.1f}"


def table(rows, columns, *, head="", width=12):
    """Print *rows*, each a name and its values by column: numbers, or words as they are."""

    def cell(values, column):
        value = values.get(column)
        return value if isinstance(value, str) else number(value)

    wide = max(len(head), *(len(name) for name in rows)) + 2
    widths = {
        column: max(width, 2 + max(len(column), *(len(cell(v, column)) for v in rows.values())))
        for column in columns
    }
    say(f"{head:{wide}}" + "".join(f"{column:>{widths[column]}}" for column in columns))
    for name, values in rows.items():
        say(f"{name:{wide}}" + "".join(f"{cell(values, c):>{widths[c]}}" for c in columns))


def save(name, figures):
    """Write *figures* to build/bench/NAME.json, with the machine, versions and the date."""
    OUT.mkdir(parents=True, exist_ok=True)
    file = OUT / f"{name}.json"
    file.write_text(json.dumps({"about": about(), "figures": figures}, indent=1) + "\n")
    say(f"written to {file.relative_to(ROOT)}")


def load(name):
    """What was saved as *name*, with its `figures` and `about`; None when nothing was."""
    file = OUT / f"{name}.json"
    return json.loads(file.read_text()) if file.exists() else None


def about():
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    return {
        "date": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        "commit": commit.stdout.strip(),
        "machine": platform.platform(),
        "processor": processor(),
        "cores": os.cpu_count(),
        "memory_bytes": psutil.virtual_memory().total,
        "load_average": os.getloadavg(),
        "python": platform.python_version(),
        "packages": {name: version(name) for name in PACKAGES},
    }


def processor():
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor())


def version(package):
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
