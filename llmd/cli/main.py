"""`llmd-ctl`: administers the daemon from a terminal or a script.

Exit status: 0 done, 1 failed, 2 wrong usage, 3 the daemon does not run; 130 after Ctrl-C. A failure
is one line on stderr that says what happened and what to do. A command's module is imported when
the command is named, so that `status` need not wait for what `load` draws.
"""

import io
import os
import sys
from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any, Final

import click
import msgspec

import llmd
from llmd.cli.invocation import Invocation, shared_options
from llmd.errors import ConfigError, DaemonNotRunningError, LlmdError


OK: Final = 0
FAILED: Final = 1
USAGE: Final = 2
NOT_RUNNING: Final = 3
INTERRUPTED: Final = 130
PIPE_CLOSED: Final = 141

COMMANDS: Final = {
    "status": ("llmd.cli.status", "The budget, the ports and the profiles."),
    "load": ("llmd.cli.lifecycle", "Make a profile resident, and wait until it is ready."),
    "unload": ("llmd.cli.lifecycle", "Let a profile's memory go."),
    "plan": ("llmd.cli.lifecycle", "What a load would do. Changes nothing."),
    "pin": ("llmd.cli.lifecycle", "Keep a profile from being evicted."),
    "unpin": ("llmd.cli.lifecycle", "Let a profile be evicted again."),
    "reload": ("llmd.cli.lifecycle", "Read the configuration file again."),
    "restart": ("llmd.cli.lifecycle", "Drain, and start anew; no connection is refused."),
    "stop": ("llmd.cli.lifecycle", "Drain, and end the daemon."),
    "query": ("llmd.cli.query", "Ask a profile, and stream its answer."),
    "bench": ("llmd.cli.bench", "How fast the models are, engine against engine."),
    "models": ("llmd.cli.models", "The models on disk: size, kind, and what they would need."),
    "fit": ("llmd.cli.fit", "Whether a model fits the budget, and its largest context."),
    "pull": ("llmd.cli.pull", "Download a model; resumes, checks, and can add a profile."),
    "connect": ("llmd.cli.connect", "The settings with which another program uses a profile."),
    "logs": ("llmd.cli.observe", "The log of a profile's engine, or the daemon's own."),
    "events": ("llmd.cli.observe", "Decisions, each with its reason and numbers."),
    "install": ("llmd.cli.service", "Run llmd at every login, and now."),
    "uninstall": ("llmd.cli.service", "Stop the service, and remove its files."),
    "start": ("llmd.cli.service", "Start the installed service."),
    "doctor": ("llmd.cli.doctor", "What is wrong, each with the command that mends it."),
    "config": ("llmd.cli.config", "Check, show or begin the configuration file."),
}
"""Command to module and summary; a module has each command under its own name."""


class LazyGroup(click.Group):
    """Knows its commands by name, and imports the one that is used."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        """In the order in which a new user meets them."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """Import *cmd_name*; None when there is no such command."""
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = getattr(import_module(COMMANDS[cmd_name][0]), cmd_name)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command; a mistyped one gets the nearest as advice."""
        if args[0] not in COMMANDS and not args[0].startswith("-"):
            import difflib

            nearest = difflib.get_close_matches(args[0], COMMANDS, n=1)
            hint = f" Did you mean {nearest[0]!r}?" if nearest else ""
            ctx.fail(f"No such command {args[0]!r}.{hint}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """List the summaries without importing anything."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, summary) for name, (_, summary) in COMMANDS.items()])

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; a reader that went away must not become click's exit status 1."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError as error:
            raise _PipeClosedError from error


class _PipeClosedError(Exception):
    """Whoever read our output has seen enough."""


_EPILOG: Final = """\b
Shell completion, in ~/.bashrc (zsh and fish likewise):
  eval "$(_LLMD_CTL_COMPLETE=bash_source llmd-ctl)"
"""


@click.command(
    "llmd-ctl",
    cls=LazyGroup,
    params=shared_options(),
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog=_EPILOG,
)
@click.version_option(llmd.__version__, prog_name="llmd-ctl", message="%(prog)s %(version)s")
@click.pass_context
def cli(ctx: click.Context) -> None:
    """Administer llmd, the daemon that keeps local language models on stable ports."""
    ctx.ensure_object(Invocation)


def main(argv: Sequence[str] | None = None) -> None:
    """Run `llmd-ctl` and exit."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # an odd locale must not end a command
    sys.exit(run(sys.argv[1:] if argv is None else argv))


def run(argv: Sequence[str]) -> int:
    """Run `llmd-ctl` with *argv*; returns its exit status."""
    report = _Reporter(as_json="--json" in _options(argv))
    try:
        status = cli.main(list(argv), prog_name="llmd-ctl", standalone_mode=False)
        sys.stdout.flush()
        return status if isinstance(status, int) else OK
    except click.UsageError as error:
        return report.usage(error)
    except click.ClickException as error:
        return report.failure(LlmdError(error.format_message()))
    except (click.Abort, KeyboardInterrupt):
        return INTERRUPTED
    except (_PipeClosedError, BrokenPipeError):
        # Python flushes stdout once more at exit, and would complain then.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return PIPE_CLOSED
    except LlmdError as error:
        return report.failure(error)
    except Exception as error:
        if os.environ.get("LLMD_DEBUG", "0") not in {"", "0"}:
            raise
        what = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        return report.failure(
            LlmdError(f"something unexpected happened: {what}", remedy="LLMD_DEBUG=1 shows where")
        )


class _Reporter:
    """Says why a command failed: to a person on stderr, to a program on stdout."""

    def __init__(self, *, as_json: bool) -> None:
        self._as_json = as_json

    def failure(self, error: LlmdError) -> int:
        """Report *error*; returns the exit status that it means."""
        document = error.to_openai()
        code = document["error"]["code"]  # the daemon's, when it is its error
        if self._as_json:
            self._document(document)
        else:
            # Several mistakes in a configuration file deserve a line each; nothing else does.
            several = code == ConfigError.code and "\n" in error.message
            message = error.message if several else " / ".join(error.message.split("\n"))
            remedy = " ".join(error.remedy.split("\n"))
            gap = "\n" if several else "; "
            self._line(f"llmd-ctl: {message}{gap if remedy else ''}{remedy}")
        return NOT_RUNNING if code == DaemonNotRunningError.code else FAILED

    def usage(self, error: click.UsageError) -> int:
        """Report how the command line is wrong."""
        if self._as_json:
            detail = {
                "message": error.format_message(),
                "type": "invalid_request_error",
                "code": "usage",
                "param": None,
                "remedy": "llmd-ctl --help",
            }
            self._document({"error": detail})
        else:
            error.show()
        return USAGE

    def _document(self, document: Mapping[str, Any]) -> None:
        text = msgspec.json.format(msgspec.json.encode(document), indent=2)
        sys.stdout.write(text.decode() + "\n")
        sys.stdout.flush()

    def _line(self, text: str) -> None:
        sys.stderr.write(text + "\n")
        sys.stderr.flush()


def _options(argv: Sequence[str]) -> Sequence[str]:
    """The part of *argv* in which words can be options."""
    return argv[: argv.index("--")] if "--" in argv else argv


if __name__ == "__main__":
    main()
