"""The host program: `python -m llmd.hosts --kind mlx --control … --upstream … --instance …`."""

import argparse
import faulthandler
import logging
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from llmd.hosts.control import Host


if TYPE_CHECKING:
    from llmd.hosts.engine import Engine


def main() -> NoReturn:
    """Parse the arguments and serve one model until told to stop."""
    parser = argparse.ArgumentParser(prog="llmd.hosts", description="Carries one resident model.")
    parser.add_argument("--kind", choices=("mlx", "llama", "exec"), required=True)
    parser.add_argument("--control", type=Path, required=True, help="control socket to listen on")
    parser.add_argument("--upstream", type=Path, required=True, help="socket of the engine's HTTP")
    parser.add_argument("--instance", required=True, help="what `hello` answers")
    parser.add_argument("--orphan-grace", type=float, default=30.0, metavar="S")
    parser.add_argument("--owner", help="socket of the daemon that started it; for its successor")
    options = parser.parse_args()

    # Apple's libraries open descriptors that exec passes on; a listener among them would keep a
    # port busy for as long as this host lives.
    os.closerange(3, 512)
    os.umask(0o077)
    faulthandler.enable()  # a crash inside an engine leaves its Python stack in the log
    logging.basicConfig(
        stream=sys.stderr, level=logging.WARNING, format="%(asctime)s %(levelname)s %(message)s"
    )
    logging.getLogger("llmd").setLevel(logging.INFO)

    Host(
        _engine(options.kind, options.upstream),
        kind=options.kind,
        control=options.control,
        instance=options.instance,
        orphan_grace_s=options.orphan_grace,
    ).run()


def _engine(kind: str, upstream: Path) -> "Engine":
    match kind:
        case "mlx":
            from llmd.hosts.mlx import MlxEngine

            return MlxEngine(upstream)
        case "llama":
            from llmd.hosts.llama import LlamaEngine

            return LlamaEngine(upstream)
        case _:
            from llmd.hosts.exec import ExecEngine

            return ExecEngine(upstream)


if __name__ == "__main__":
    main()
