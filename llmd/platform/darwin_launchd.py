"""Listening sockets that launchd holds for this job: `launch_activate_socket` of `<launch.h>`."""

import ctypes
import errno
import functools
import os
import socket
from typing import Any, Final


_NONE: Final = frozenset({errno.ENOENT, errno.ESRCH, errno.EALREADY})
"""The plist has no such name; launchd did not start this process; they were taken before."""


def activated(name: str) -> list[socket.socket]:
    """The sockets that the plist lists under *name* in `Sockets`; none when there are none.

    launchd hands them out once: to the first call of a process, or to an earlier image of it
    (EALREADY). They are the caller's, and as launchd made them: inheritable, and blocking.

    Raises:
        OSError: launchd failed in some other way, such as for want of descriptors.
    """
    found, count = ctypes.POINTER(ctypes.c_int)(), ctypes.c_size_t()
    library = _libsystem()
    failed = library.launch_activate_socket(
        name.encode(), ctypes.byref(found), ctypes.byref(count)
    )  # the error's number itself, not -1
    if failed in _NONE:
        return []
    if failed:
        raise OSError(failed, f"launchd keeps socket {name}: {os.strerror(failed)}")
    try:
        return [socket.socket(fileno=found[index]) for index in range(count.value)]
    finally:
        library.free(found)


@functools.cache
def _libsystem() -> Any:
    library = ctypes.CDLL("/usr/lib/libSystem.B.dylib")
    library.launch_activate_socket.restype = ctypes.c_int
    library.launch_activate_socket.argtypes = [
        ctypes.c_char_p,
        ctypes.POINTER(ctypes.POINTER(ctypes.c_int)),
        ctypes.POINTER(ctypes.c_size_t),
    ]
    library.free.restype = None
    library.free.argtypes = [ctypes.c_void_p]
    return library
