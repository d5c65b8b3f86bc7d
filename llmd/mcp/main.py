"""`llmd-mcp`: local models for programs that speak the Model Context Protocol.

Serves one client on stdin and stdout, or many over streamable HTTP. It is a client of the daemon
and needs it only when a tool is called. Everything it has to say goes to stderr.
"""

import asyncio
import logging
import os
import signal
import sys
from typing import Any, Final

import click
from mcp.server.lowlevel import Server
from mcp.server.stdio import stdio_server

import llmd
from llmd.config.paths import socket_path
from llmd.errors import LlmdError
from llmd.mcp import http
from llmd.mcp.daemon import Daemon
from llmd.mcp.server import build


DEFAULT_PORT: Final = 8079

_HELP: Final = f"""Serve local models to programs that speak MCP.

Without options it serves the program that started it, on stdin and stdout; `llmd-ctl connect mcp`
prints the settings for such programs. With --http it serves http://127.0.0.1:PORT/mcp (default
port {DEFAULT_PORT}), to this machine alone: point a client's "streamable HTTP" server there.

The daemon need not run yet. Ports that want a key get LLMD_API_KEY; with --http, clients have to
send that same key as a bearer token.
"""


@click.command("llmd-mcp", help=_HELP, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--http",
    "port",
    is_flag=False,
    flag_value=DEFAULT_PORT,
    type=click.IntRange(0, 65535),
    metavar="[PORT]",
    help="Serve streamable HTTP instead; 0 picks a free port.",
)
@click.option("--socket", metavar="PATH", help="The daemon's control socket.")
@click.version_option(llmd.__version__, prog_name="llmd-mcp", message="%(prog)s %(version)s")
def cli(port: int | None, socket: str | None) -> None:
    """Parse, and serve until there is nobody left to serve."""
    logging.basicConfig(
        stream=sys.stderr, level=logging.WARNING, format="llmd-mcp: %(levelname)s: %(message)s"
    )
    server = build(Daemon(socket_path(socket)))
    if port is None:
        _serve_stdio(server)
    else:
        _serve_http(server, port)


def _serve_stdio(server: Server[Any]) -> None:
    # A thread sits in a read of stdin, which nothing but its end interrupts.
    signal.signal(signal.SIGINT, signal.SIG_DFL)

    async def serve() -> None:
        async with stdio_server() as (incoming, outgoing):
            await server.run(incoming, outgoing, server.create_initialization_options())

    asyncio.run(serve())


def _serve_http(server: Server[Any], port: int) -> None:
    with http.bound(port) as sockets:
        chosen = sockets[0].getsockname()[1]
        _say(f"MCP at http://127.0.0.1:{chosen}{http.PATH}")
        asyncio.run(http.serve(server, sockets))


def main() -> None:
    """Run `llmd-mcp` and exit."""
    status = 0
    try:
        cli.main(prog_name="llmd-mcp", standalone_mode=False)
    except click.UsageError as error:
        error.show()
        status = 2
    except (click.Abort, KeyboardInterrupt):
        status = 130
    except LlmdError as error:
        _say(f"{error.message}; {error.remedy}" if error.remedy else error.message)
        status = 1
    sys.stdout.flush()
    # Threads of calls that were given up may still wait for the daemon; they hold nothing.
    os._exit(status)


def _say(text: str) -> None:
    sys.stderr.write(f"llmd-mcp: {text}\n")
    sys.stderr.flush()


if __name__ == "__main__":
    main()
