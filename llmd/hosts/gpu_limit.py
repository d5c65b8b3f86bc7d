"""What the GPU may use: `python -m llmd.hosts.gpu_limit` prints it as one JSON line, in bytes.

`null` when it has no limit, as without Metal, or nobody can tell. A program of its own, since the
daemon must never load Metal.
"""

import json
import sys
from typing import Any, Final


KEY: Final = "gpu_limit_bytes"
_MLX_KEY: Final = "max_recommended_working_set_size"


def main() -> None:
    """Ask, and print."""
    sys.stdout.write(json.dumps({KEY: limit_bytes(device_info())}) + "\n")


def device_info() -> dict[str, Any]:
    """What MLX knows of the device; nothing where there is no MLX, or nothing for it to run on."""
    try:
        import mlx.core as mx

        return dict(mx.device_info())
    except (ImportError, AttributeError, RuntimeError, OSError):
        return {}


def limit_bytes(device: dict[str, Any]) -> int | None:
    """Metal's recommended working set, if *device* has one."""
    found = device.get(_MLX_KEY)
    return int(found) if isinstance(found, int | float) and found > 0 else None


if __name__ == "__main__":
    main()
