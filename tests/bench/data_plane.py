"""What llmd's data plane adds: direct against through, side by side.

    python -m tests.bench.data_plane                       the data plane alone, in its own process
    python -m tests.bench.data_plane --direct 127.0.0.1:9001 --through 127.0.0.1:8081
                                                           any two addresses (a daemon, a rival)

An address is `host:port` or `unix:path`. Rows are those of `planes.py`, and memory over 100,000
requests; "added" is through less direct, for requests/s through as a part of direct.
"""

import argparse
import contextlib
import tempfile

import uvloop

from tests.bench import bare_plane, instant_engine
from tests.bench.planes import measure, memory, with_added
from tests.bench.report import save, table


async def figures(sides, pids):
    return with_added(await measure(sides, pids) | await memory(sides, pids))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--direct", help="address of the engine; default: one of its own")
    parser.add_argument("--through", help="address of the proxy; default: the data plane alone")
    options = parser.parse_args()
    if bool(options.direct) != bool(options.through):
        parser.error("--direct and --through go together")
    with contextlib.ExitStack() as stack:
        sides, pids = {"direct": options.direct, "through": options.through}, {}
        if not options.direct:
            directory = stack.enter_context(tempfile.TemporaryDirectory(dir="/tmp"))
            path = f"{directory}/engine.sock"
            direct, _ = stack.enter_context(instant_engine.running(instant_engine.run, path))
            through, pid = stack.enter_context(instant_engine.running(bare_plane.run, path))
            sides = {"direct": f"127.0.0.1:{direct}", "through": f"127.0.0.1:{through}"}
            pids = {"through": pid}
        rows = uvloop.run(figures(sides, pids))
    table(rows, ["direct", "through", "added"])
    save("data_plane", rows)


if __name__ == "__main__":
    main()
