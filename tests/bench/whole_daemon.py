"""What llmd adds as its users run it: `llmd serve`, with every decision on the way.

The same rows as `data_plane.py`, taken through a daemon whose one profile is an instant engine: the
difference is what a decision for each request costs.
"""

import contextlib
import tempfile

import uvloop

from tests.bench import instant_engine
from tests.bench.data_plane import figures
from tests.bench.report import save, table
from tests.system.running import Llmd, free_ports


@contextlib.contextmanager
def engine_behind_llmd(directory):
    """An instant engine and a daemon with it as its one profile: both addresses, and its pid."""
    with instant_engine.running(instant_engine.run, f"{directory}/engine.sock") as (direct, _):
        (port,) = free_ports(1)
        url = f"http://127.0.0.1:{direct}"
        remote = {"engine": "remote", "url": url, "port": port, "parallel": 256}
        config = {"gateway": None, "queue_limit": 2000, "profiles": {"bench": remote}}
        daemon = Llmd(directory, config).start()
        try:
            yield f"127.0.0.1:{direct}", f"127.0.0.1:{port}", daemon.process.pid
        finally:
            daemon.stop()


def main():
    with (
        tempfile.TemporaryDirectory(prefix="llmd-", dir="/tmp") as directory,
        engine_behind_llmd(directory) as (direct, through, pid),
    ):
        rows = uvloop.run(figures({"direct": direct, "through": through}, {"through": pid}))
    table(rows, ["direct", "through", "added"])
    save("whole_daemon", rows)


if __name__ == "__main__":
    main()
