"""Kill a writer at each of its system calls, and say what it leaves. Linux; a program of its own.

    python -m tests.data.killing KIND DIRECTORY

The writer is a fork of this process that asks to be traced; so this has no threads. It is stopped
before and after each system call. It prints what was found for each stop, as JSON.
"""

import ctypes
import json
import os
import signal
import sys
from pathlib import Path

from tests.data.kinds import KINDS, names_in


TRACEME, SYSCALL, SETOPTIONS = 0, 24, 0x4200
SYSGOOD, EXITKILL = 1, 1 << 20

libc = ctypes.CDLL(None, use_errno=True)


def ptrace(request, pid, data=0):
    if libc.ptrace(request, pid, None, ctypes.c_void_p(data)) < 0:
        raise OSError(ctypes.get_errno(), "ptrace")


def killed_at(stop, write):
    """Run *write* in a child that is killed at its *stop*-th stop; False when it ended before."""
    child = os.fork()
    if child == 0:
        try:
            ptrace(TRACEME, 0)
            os.kill(os.getpid(), signal.SIGSTOP)
            write()
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    ptrace(SETOPTIONS, child, SYSGOOD | EXITKILL)
    for _ in range(stop):
        ptrace(SYSCALL, child)
        _, status = os.waitpid(child, 0)
        if not os.WIFSTOPPED(status):
            return False
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return True


def main(kind, directory):
    found, alive = [], True
    while alive:
        stop = len(found) + 1
        folder = Path(directory, str(stop))
        folder.mkdir()
        file = KINDS[kind](folder / "file")
        file.write("old")
        alive = killed_at(stop, lambda: file.write("new"))  # noqa: B023
        names = names_in(folder)
        mode = (folder / "file").stat().st_mode & 0o777
        value, wrong = file.read()
        file.write("last")
        found.append(
            {
                "value": value, "wrong": wrong, "mode": mode, "names": names,
                "last": file.read()[0], "names_at_last": names_in(folder),
            }
        )  # fmt: skip
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    main(*sys.argv[1:])
