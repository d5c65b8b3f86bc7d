"""This machine, as `llmd-ctl` needs to know it; each question is asked when it is put."""

import errno
import os
import platform
import shutil
import sys
import time
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Final

import psutil

from llmd.platform import gpu, linux_memory, listeners, slowness
from llmd.platform.run import run
from llmd.platform.slowness import Power


PROBE_S: Final = 5.0
"""Given to a directory: one that macOS protects, or on a server that is gone, may never answer."""

SAMPLE_S: Final = 0.5

_LIST = "import os, sys\ntry: next(os.scandir(sys.argv[1]), 0)\nexcept OSError as e: print(e.errno)"
_VERSIONS = (
    "import sys\nfrom importlib.metadata import version\n"
    "for name in sys.argv[1:]:\n"
    " try: print(name, version(name))\n"
    " except Exception: pass"
)


class Machine:
    """What there is, what it does, and who uses it. Tests have one of their own."""

    # --- memory -----------------------------------------------------------------------------------

    def total_bytes(self) -> int:
        """Memory that programs may use."""
        if sys.platform == "darwin":
            from llmd.platform import darwin_memory  # noqa: PLC0415 - loads libSystem

            return darwin_memory.total_bytes()
        return linux_memory.total_bytes()

    def is_unified(self) -> bool:
        """Whether the GPU uses the machine's memory."""
        if sys.platform == "darwin":
            from llmd.platform import darwin_memory  # noqa: PLC0415 - as above

            return darwin_memory.is_apple_silicon()
        return False

    def gpu_limit_bytes(self) -> int | None:
        """What the GPU may use; None where it has no limit, and when it cannot be told.

        Asks a child unless somebody has set a limit; takes tenths of a second, 20 s at most.
        """
        if sys.platform == "darwin":
            from llmd.platform import darwin_memory  # noqa: PLC0415 - as above

            if (chosen := darwin_memory.wired_limit_bytes()) is not None:
                return chosen
            try:
                return gpu.ask_gpu_limit() if darwin_memory.is_apple_silicon() else None
            except LookupError:
                return None
        return None

    def pressure(self) -> str | None:
        """Why memory is short, in a few words; None when it is not."""
        if sys.platform == "darwin":
            from llmd.platform import darwin_memory  # noqa: PLC0415 - as above

            return darwin_memory.pressure()
        return linux_memory.stalled(Path("/proc/pressure/memory"))

    def swap_bytes_per_s(self) -> float:
        """What is swapped in and out, over half a second."""
        count = slowness.swapped_pages_linux
        if sys.platform == "darwin":
            count = slowness.swapped_pages_mac
        begin, before = time.monotonic(), count()
        time.sleep(SAMPLE_S)
        pages = count() - before
        return pages * os.sysconf("SC_PAGE_SIZE") / (time.monotonic() - begin)

    # --- processor --------------------------------------------------------------------------------

    def is_translated(self) -> bool:
        """Whether this Python is one for Intel on a Mac that is none: Rosetta."""
        return self.is_unified() and platform.machine() != "arm64"

    def power(self) -> Power:
        """Whether it saves power, or is too hot."""
        return slowness.power_of_mac() if sys.platform == "darwin" else Power()

    def niceness(self, pid: int) -> int:
        """How far process *pid* stands back for others; 0 is as usual, or unknown."""
        try:
            return int(psutil.Process(pid).nice())
        except (psutil.Error, OSError):
            return 0

    # --- ports and files --------------------------------------------------------------------------

    def listeners(self, ports: Collection[int]) -> dict[int, tuple[str, int]]:
        """Name and pid of who listens, by port, as far as this user may know."""
        return listeners.listeners(ports)

    def is_taken(self, address: str, port: int) -> bool:
        """Whether somebody listens there, whoever it is."""
        return listeners.is_taken(address, port)

    def why_unreadable(self, directory: Path) -> str | None:
        """`ENOENT`, `EACCES`, `EPERM`; `hangs` after 5 s; None when it can be read.

        Asks a child: an open that macOS or a network holds up could not be given up here.
        """
        ran = run([sys.executable, "-I", "-S", "-c", _LIST, directory], timeout_s=PROBE_S)
        if ran.code is None:
            return "hangs"
        code = ran.output.strip()
        return errno.errorcode.get(int(code), code) if code.isdigit() else None

    def free_bytes(self, path: Path) -> int:
        """What is free on the disk of *path*, which need not exist yet."""
        while not path.exists() and path != path.parent:
            path = path.parent
        return shutil.disk_usage(path).free

    # --- engines ----------------------------------------------------------------------------------

    def versions(self, python: Path, packages: Sequence[str]) -> dict[str, str]:
        """Which of *packages* the interpreter *python* has, and which version of each."""
        lines = run([python, "-I", "-c", _VERSIONS, *packages], timeout_s=PROBE_S).output
        pairs = (line.split(" ") for line in lines.splitlines())
        return {pair[0]: pair[1] for pair in pairs if len(pair) == 2 and pair[0] in packages}

    def help_of(self, program: str) -> str | None:
        """What *program* says to `--help`; None when it is not on PATH."""
        if shutil.which(program) is None:
            return None
        return run([program, "--help"], timeout_s=PROBE_S).output

    def has_brew_service(self, formula: str) -> bool:
        """Whether Homebrew runs *formula* at login."""
        if sys.platform != "darwin":
            return False
        return run(["launchctl", "list", f"homebrew.mxcl.{formula}"], timeout_s=PROBE_S).ok
