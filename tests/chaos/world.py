"""The daemon under attack, with its configuration and the disk its state is on."""

import asyncio
import contextlib
import copy
import os
import signal
import subprocess
import time
from math import inf
from pathlib import Path

import psutil
import yaml

from tests.chaos.tally import Tally
from tests.chaos.wall_clock import WallClock
from tests.conftest import DEMO
from tests.system.running import Llmd, free_ports, unruly


PORTS = ("gateway", "code", "raw", "reason", "lab", "deaf", "leaky")
BUDGET, LESS = "560MiB", "480MiB"
"""All ports want some 650 MiB at once."""
ORPHAN_GRACE_S = 5.0
REOPENED_S = 10.0
"""At the latest so long after its file has changed, the daemon has read it."""


def lay_out(ports):
    """Two engines and four kinds of unruly programs; the budget is too small for all ports."""
    one_thread = {"args": ["--threads", "1"], "context": 2048}
    mlx = {"engine": "mlx", "context": 2048, "port": ports["code"]}
    llama = {"engine": "llama.cpp", **one_thread}

    def odd(name, *flags, **more):
        return unruly(ports[name], *flags, env={"LD_PRELOAD": ""}, **more)

    return {
        "budget": BUDGET, "models_dirs": [str(DEMO)], "gateway": {"port": ports["gateway"]},
        "patience": "1s", "min_residency": "1s", "queue_timeout": "45s", "drain_timeout": "8s",
        "orphan_grace": f"{ORPHAN_GRACE_S:.0f}s",
        "profiles": {
            "code": {**mlx, "model": "tiny-mlx", "default": True},
            "code6": {**mlx, "model": "tiny-mlx-4bit"},
            "raw": {**llama, "model": "tiny-q8_0.gguf", "port": ports["raw"]},
            "reason": {**llama, "model": "tiny-f16.gguf", "port": ports["reason"], "parallel": 4},
            "lab": odd("lab", parallel=3, default=True),
            "bad": odd("lab", "--crash-at-start", "3"),
            "endless": odd("lab", "--never-ready", load_timeout="2s"),
            "deaf": odd("deaf", "--deaf", "--children", "2"),
            "leaky": odd("leaky", "--leak", str(4 * 2**20), "--allocate", "20000000"),
        },
    }  # fmt: skip


class World:
    """One daemon and what is around it.

    Attributes:
        tally: Told when the daemon is not there.
        disk: Whether the state directory is a disk of its own, which can be filled.
    """

    def __init__(self, directory: Path, tally: Tally):
        self.tally = tally
        self.ports = dict(zip(PORTS, free_ports(len(PORTS)), strict=True))
        self.base = lay_out(self.ports)
        self.budget_bytes = int(BUDGET.removesuffix("MiB")) * 2**20
        self.llmd = Llmd(directory, self.base)
        self.clock = WallClock(directory)
        # As under a service manager, which nobody watches: it may start with a bad file.
        self.llmd.env |= {**self.clock.environ, "NOTIFY_SOCKET": str(directory / "nobody")}
        self.llmd.env.pop("SYSTEMD_EXEC_PID", None)
        self.state = directory / "state"
        self.state.mkdir(mode=0o700)
        self.disk = mounted(self.state)
        self.stopped: set[int] = set()

    # --- the daemon

    def start(self):
        self.llmd.start()

    def kill(self):
        self.llmd.process.kill()
        self.llmd.process.wait()

    def process(self):
        return psutil.Process(self.llmd.process.pid)

    async def admin(self, method, path, body=None, limit_s=60):
        """Status and document; (0, None) when the daemon is not there or was killed meanwhile."""
        try:
            return await asyncio.to_thread(self.llmd.admin, method, path, body, limit_s)
        except (OSError, EOFError, ValueError) as error:
            return 0, repr(error)
        except Exception as error:  # noqa: BLE001, http.client has many
            return 0, repr(error)

    async def status(self):
        """The daemon's status; None when it does not answer."""
        code, document = await self.admin("GET", "/v1/status")
        return document if code == 200 else None

    async def host_of(self, profile):
        """The process id of a profile's host; None when it has none."""
        found = (await self.status() or {}).get("profiles", ())
        return next((p["host_pid"] for p in found if p["name"] == profile), None)

    async def spare(self):
        """The process id of the warm spare; None when there is none."""
        return ((await self.status() or {}).get("spare") or {}).get("host_pid")

    # --- its file

    def write(self, how, profile):
        """Put a changed configuration in place, as an editor does."""
        config = copy.deepcopy(self.base)
        chosen = config["profiles"][profile]
        if how == "changed":
            chosen["idle_ttl"] = f"{60 + int(time.monotonic()) % 600}s"
            chosen["env"] = {"CHAOS": str(time.monotonic_ns())}
        elif how == "removed":
            del config["profiles"][profile]
        elif how == "budget":
            config["budget"] = LESS
        text = "profiles: [" if how == "broken" else yaml.safe_dump(config, sort_keys=False)
        if how != "broken":  # that changes nothing
            reopened_s = time.monotonic() + REOPENED_S
            for name, until_s in self.tally.removed.items():
                self.tally.removed[name] = min(until_s, reopened_s)
        if how == "removed":
            self.tally.removed[profile] = inf
        new = self.llmd.config_file.with_suffix(".new")
        new.write_text(text)
        new.replace(self.llmd.config_file)

    # --- its disk, its descriptors

    @contextlib.contextmanager
    def full_disk(self):
        filler = self.state / "filler"
        with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
            while file.write(b"x" * 4096):
                pass
        try:
            yield
        finally:
            filler.unlink(missing_ok=True)

    @contextlib.contextmanager
    def read_only_disk(self):
        if self.disk:
            remount(self.state, "ro")
        else:
            self.state.chmod(0o500)
        try:
            yield
        finally:
            if self.disk:
                remount(self.state, "rw")
            else:
                self.state.chmod(0o700)

    @contextlib.contextmanager
    def few_descriptors(self, spare):
        """The daemon can open only *spare* more; Linux alone can tell another process so."""
        process = self.process()
        soft, hard = process.rlimit(psutil.RLIMIT_NOFILE)
        process.rlimit(psutil.RLIMIT_NOFILE, (process.num_fds() + spare, hard))
        try:
            yield
        finally:
            with contextlib.suppress(psutil.Error):
                process.rlimit(psutil.RLIMIT_NOFILE, (soft, hard))

    # --- hosts

    def signal(self, pid, number, *, tree=False):
        """Send a signal; whether there was somebody to get it."""
        try:
            found = [psutil.Process(pid)]
            found += found[0].children(recursive=True) if tree else []
        except psutil.Error:
            return False
        for process in found:
            with contextlib.suppress(psutil.Error):
                process.send_signal(number)
        return True

    def calm(self):
        """Everything as it was, but for what the daemon holds."""
        for pid in self.stopped:
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGCONT)
        self.stopped.clear()
        self.write("base", "lab")

    def close(self):
        try:
            if self.llmd.process is not None:
                with contextlib.suppress(OSError):
                    self.llmd.admin("POST", "/v1/stop")  # SIGTERM would leave its hosts
                self.llmd.stop()
        finally:
            if self.disk:
                subprocess.run(["umount", "--lazy", self.state], check=False)


def mounted(directory):
    """Put a small disk at *directory*, where that is permitted."""
    argv = ["mount", "-t", "tmpfs", "-o", "size=256k,mode=0700", "tmpfs", directory]
    try:
        return subprocess.run(argv, capture_output=True, check=False).returncode == 0
    except OSError:
        return False


def remount(directory, how):
    subprocess.run(["mount", "-o", f"remount,{how}", directory], check=True, capture_output=True)
