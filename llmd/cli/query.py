"""`llmd-ctl query`: one question to a profile, on its own port, as any client would ask it."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection, HTTPException, HTTPResponse
from typing import Any, Final

import click
import msgspec

from llmd.admin import asking, wire
from llmd.admin.names import find_profile
from llmd.cli.invocation import Command, Invocation, complete_profile, pass_invocation
from llmd.cli.terminal import Palette, describe_seconds, harmless, is_terminal, note


_CLEAR_LINE: Final = "\r\x1b[K"


@click.command(cls=Command)
@click.option(
    "-p",
    "--profile",
    shell_complete=complete_profile,
    metavar="PROFILE",
    help="Whom to ask; may be left out when only one profile is ready.",
)
@click.option("--system", metavar="TEXT", help="The system prompt.")
@click.option("--max-tokens", type=click.IntRange(min=1), metavar="N", help="Stop after N tokens.")
@click.option("--temperature", type=click.FloatRange(min=0), metavar="T", help="0 is greedy.")
@click.option("-v", "--verbose", is_flag=True, help="Tell usage and tokens per second on stderr.")
@click.argument("text", nargs=-1)
@pass_invocation
def query(
    invocation: Invocation,
    *,
    profile: str | None,
    system: str | None,
    max_tokens: int | None,
    temperature: float | None,
    verbose: bool,
    text: tuple[str, ...],
) -> None:
    """Ask TEXT, and stream the answer. What is piped in is added below TEXT.

    The profile is loaded if need be. On a terminal its reasoning is shown dimmed; into a pipe only
    the answer goes. Ctrl-C cancels the work. A port that wants a key gets LLMD_API_KEY.
    """
    prompt = _prompt(" ".join(text))
    status = invocation.client().status()
    asked = _choose(profile, status.profiles)
    request: dict[str, Any] = {
        "model": asked.name,
        "messages": [
            *([{"role": "system", "content": system}] if system is not None else []),
            {"role": "user", "content": prompt},
        ],
    }
    if max_tokens is not None:
        request["max_tokens"] = max_tokens
    if temperature is not None:
        request["temperature"] = temperature
    address = asking.address_of(asked, status.ports)
    if invocation.as_json:
        with _ask(address, request) as response:
            invocation.emit(msgspec.json.decode(response.read()))
        return
    request |= {"stream": True, "stream_options": {"include_usage": True}}
    answer = _Answer(asked.name)
    with _ask(address, request) as response:
        answer.stream(response)
    if verbose:
        note(answer.summary())


class _Answer:
    """Prints an answer as it comes, and counts."""

    def __init__(self, profile: str) -> None:
        self._profile = profile
        self._out = sys.stdout
        self._terminal = is_terminal(sys.stdout)
        self._palette = Palette.of(sys.stdout)
        self._waiting = is_terminal(sys.stderr)
        self._comment_shown = False
        self._section = ""
        self._ends_line = True
        self._finish: str | None = None
        self._usage: dict[str, Any] = {}
        self._pieces = 0
        self._began_s = time.monotonic()
        self._first_s: float | None = None
        self._ended_s = self._began_s

    def stream(self, response: HTTPResponse) -> None:
        """Read server-sent events to their end.

        Raises:
            AnsweredError: The stream ended with an error.
            CutShortError: It ended without saying so.
        """
        try:
            for event in _events(response, self._comment):
                self._usage = event.get("usage") or self._usage
                for choice in event.get("choices") or ():
                    self._take(choice)
        finally:
            self._clear_comment()
            if not self._ends_line:
                self._write("\n")
        self._ended_s = time.monotonic()
        if self._finish == "length" and self._waiting:
            note(f"({self._profile} stopped at the limit of tokens)")

    def summary(self) -> str:
        """Tokens and their rate, for `-v`."""
        if self._first_s is None:
            return f"{self._profile}: no token"
        tokens = int(self._usage.get("completion_tokens") or self._pieces)
        parts = [f"{tokens} tokens"]
        if self._usage.get("prompt_tokens"):
            parts.insert(0, f"prompt of {self._usage['prompt_tokens']} tokens")
        lasted_s = self._ended_s - self._first_s
        if tokens > 1 and lasted_s > 0:
            parts.append(f"{(tokens - 1) / lasted_s:.1f} tok/s")
        parts.append(f"first after {describe_seconds(self._first_s - self._began_s)}")
        parts.append(f"{describe_seconds(self._ended_s - self._began_s)} in all")
        return f"{self._profile}: {', '.join(parts)}"

    def _take(self, choice: dict[str, Any]) -> None:
        delta = choice.get("delta") or {}
        self._finish = choice.get("finish_reason") or self._finish
        reasoning = asking.reasoning_of(delta)
        if (reasoning or delta.get("content")) and self._first_s is None:
            self._first_s = time.monotonic()
        if reasoning:
            self._pieces += 1
            if self._terminal:
                self._show(reasoning, "reasoning")
        if delta.get("content"):
            self._pieces += 1
            self._show(delta["content"], "answer")

    def _show(self, text: str, section: str) -> None:
        self._clear_comment()
        if self._terminal:
            text = harmless(text)
        if self._section == "reasoning" and section == "answer":
            text = ("\n" if self._ends_line else "\n\n") + text.lstrip("\n")
        self._section = section
        self._write(self._palette.paint(text, "dim" if section == "reasoning" else ""))
        self._ends_line = text.endswith("\n")

    def _write(self, text: str) -> None:
        self._out.write(text)
        self._out.flush()

    def _comment(self, text: str) -> None:
        """What the daemon says while it waits; one line, until the answer begins."""
        if self._waiting and text and self._first_s is None:
            sys.stderr.write(f"{_CLEAR_LINE}{harmless(text)[:79]}")
            sys.stderr.flush()
            self._comment_shown = True

    def _clear_comment(self) -> None:
        if self._comment_shown:
            sys.stderr.write(_CLEAR_LINE)
            sys.stderr.flush()
            self._comment_shown = False


def _events(response: HTTPResponse, comment: Any) -> Iterator[dict[str, Any]]:
    """The JSON objects of an event stream, until `[DONE]`.

    Raises:
        CutShortError: The stream ended before that, or is none.
    """
    for raw in response:
        line = asking.read_line(raw)
        if line.comment is not None:
            comment(line.comment)
        elif line.event is not None:
            yield line.event
        elif line.done:
            return
    raise asking.cut_short()


@contextmanager
def _ask(address: tuple[str, int], request: dict[str, Any]) -> Iterator[HTTPResponse]:
    """Send *request*; leaving closes the connection, which cancels what is not finished."""
    host, port = address
    connection = HTTPConnection(host, port)
    try:
        response = _send(connection, msgspec.json.encode(request))
        if response.status >= 400:
            raise asking.refusal(response.read(), response.status)
        yield response
    except ConnectionRefusedError as error:
        raise asking.port_closed(host, port) from error
    except BrokenPipeError:
        raise  # our own stdout is closed; of the connection, `_send` makes it a reset
    except (OSError, HTTPException) as error:
        raise asking.connection_broke(port, error) from error
    finally:
        connection.close()


def _send(connection: HTTPConnection, body: bytes) -> HTTPResponse:
    try:
        connection.connect()
        connection.request("POST", asking.CHAT_PATH, body, asking.headers())
        return connection.getresponse()
    except BrokenPipeError as error:
        raise ConnectionResetError(*error.args) from error


def _prompt(text: str) -> str:
    """*text*, and below it what is piped in.

    Raises:
        UsageError: There is neither.
    """
    piped = "" if sys.stdin is None or is_terminal(sys.stdin) else sys.stdin.read().strip()
    prompt = "\n\n".join(part for part in (text, piped) if part)
    if not prompt:
        raise click.UsageError("there is nothing to ask; give a TEXT, or pipe one in")
    return prompt


def _choose(wanted: str | None, profiles: tuple[wire.Profile, ...]) -> wire.Profile:
    """The profile *wanted*, or the one that is ready."""
    if wanted is not None:
        return find_profile(wanted, profiles)
    ready = [profile for profile in profiles if profile.state == "ready"]
    found = ready if len(ready) == 1 else profiles
    if len(found) == 1:
        return found[0]
    names = ", ".join(profile.name for profile in profiles)
    raise click.UsageError(f"say with -p whom to ask: {names}")
