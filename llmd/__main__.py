"""`llmd`, and `python -m llmd`."""

import gc
import sys

import click

import llmd
from llmd.config import paths


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(llmd.__version__, prog_name="llmd")
def main() -> None:
    """Keep local language models on stable ports, inside one memory budget.

    `llmd serve` runs the daemon; `llmd-ctl` is everything else.
    """


@main.command()
@click.option("--config", metavar="FILE", help="Configuration; else LLMD_CONFIG, else the user's.")
@click.option("--socket", metavar="PATH", help="Admin socket; else LLMD_SOCKET, else the user's.")
@click.option(
    "--log-level", type=click.Choice(["debug", "info", "warning", "error"]), default="info"
)
@click.option("--hints", is_flag=True, help="Print what to try, once the ports are open.")
@click.option("--check", is_flag=True, help="Only see whether it could start; the status tells.")
def serve(
    config: str | None, socket: str | None, log_level: str, *, hints: bool, check: bool
) -> None:
    """Run the daemon in the foreground."""
    gc.disable()  # until the daemon stands: what start-up makes stays, and is not worth a search
    # structlog would import it for tracebacks that the log never draws: 3 MiB, day and night.
    sys.modules["rich"] = None  # type: ignore[assignment]  # as import_module understands it
    from llmd.serve import serve as run  # noqa: PLC0415 - the daemon's imports, not --help's

    config_path, socket_path = paths.config_file(config), paths.socket_path(socket)
    sys.exit(run(config_path, socket_path, level=log_level, hints=hints, check=check))


if __name__ == "__main__":
    main()
