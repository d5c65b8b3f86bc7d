"""Definitions of the service for the ports of `etc/llmd.yaml`, with paths that never change."""

from pathlib import Path

from llmd.platform.definition import Definition


GOLDEN = Path(__file__).parent / "golden"
PORTS = (8080, 8081, 8082, 8083, 8084)
ADDRESSES = ("127.0.0.1", "::1")

MAC = Definition(
    python=Path("/Users/ada/.local/share/uv/tools/llmd/bin/python"),
    config_file=Path("/Users/ada/Library/Application Support/llmd/llmd.yaml"),
    socket=Path("/Users/ada/Library/Application Support/llmd/llmd.sock"),
    ports=PORTS,
    addresses=ADDRESSES,
    state_dir=Path("/Users/ada/Library/Application Support/llmd/state"),
    log_dir=Path("/Users/ada/Library/Logs/llmd"),
    variables=(("HF_HOME", "/Volumes/models/hf"),),
)

LINUX = Definition(
    python=Path("/home/ada/.venvs/llmd/bin/python"),
    config_file=Path("/home/ada/.config/llmd/llmd.yaml"),
    socket=Path("/run/user/1000/llmd/llmd.sock"),
    ports=PORTS,
    addresses=ADDRESSES,
    state_dir=Path("/home/ada/.local/state/llmd"),
    log_dir=Path("/home/ada/.local/state/llmd"),
    variables=(("HF_HOME", "/srv/models/hf"),),
)


def in_directory(directory: Path) -> Definition:
    """One whose files can be written, below *directory*."""
    return Definition(
        python=Path("/usr/bin/python3"),
        config_file=directory / "llmd.yaml",
        socket=directory / "run" / "llmd.sock",
        ports=(8081,),
        addresses=("127.0.0.1",),
        state_dir=directory / "state",
        log_dir=directory / "log",
    )
