"""This machine, as `llmd-ctl` needs to know it; each question is asked when it is put."""

import sys

from llmd.platform import gpu, linux_memory


class Machine:
    """What there is, what it does, and who uses it. Tests have one of their own."""

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
