"""What llmd adds as its users run it: `llmd serve`, with every decision on the way.

The same figures as `data_plane.py`, taken through a daemon whose one profile is an instant engine.
"""

import multiprocessing
import subprocess
import sys
import tempfile
from pathlib import Path


HERE = Path(__file__).parent
ROOT = HERE.parents[1]
sys.path[:0] = [str(ROOT), str(HERE)]

import bench_engine  # noqa: E402 - found through the line above

from tests.system.running import Llmd, free_ports  # noqa: E402


def main() -> int:
    processes = multiprocessing.get_context("spawn")
    mine, theirs = processes.Pipe()
    with tempfile.TemporaryDirectory(prefix="llmd-", dir="/tmp") as directory:
        engine = processes.Process(
            target=bench_engine.run, args=(f"{directory}/engine.sock", theirs), daemon=True
        )
        engine.start()
        daemon = None
        try:
            if not mine.poll(20):
                raise SystemExit("the engine did not start")
            direct = f"127.0.0.1:{mine.recv()}"
            (port,) = free_ports(1)
            remote = {"engine": "remote", "url": f"http://{direct}", "port": port, "parallel": 256}
            daemon = Llmd(directory, {"gateway": None, "profiles": {"bench": remote}}).start()
            plane = [sys.executable, HERE / "data_plane.py", "--direct", direct]
            figures = ["--json", "build/bench/whole_daemon.json"]
            return subprocess.run(
                [*plane, "--through", f"127.0.0.1:{port}", *figures], cwd=ROOT, check=False
            ).returncode
        finally:
            if daemon is not None:
                daemon.stop()
            engine.kill()
            engine.join()


if __name__ == "__main__":
    sys.exit(main())
