"""`llmd-ctl query`: one question to a profile, on its own port, as any client would ask it."""

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click
from click.shell_completion import CompletionItem

from llmd.admin import asking as ports
from llmd.admin.client import AnsweredError
from llmd.cli import asking
from llmd.cli.answer import Progress, page_for, stream
from llmd.cli.invocation import FC, Command, Invocation, complete_profile, pass_invocation
from llmd.cli.question import (
    Question,
    Source,
    named_text,
    plain_text,
    read_file,
    read_image,
    read_pipe,
)
from llmd.cli.terminal import Cell, Palette, harmless, note
from llmd.errors import LlmdError


if TYPE_CHECKING:
    from llmd.admin import wire
    from llmd.cli.templates import Template


_NOT_ABOUT_IMAGES: Final = frozenset(
    {
        "unauthorized",
        "budget_exceeded",
        "load_failed",
        "engine_died",
        "queue_full",
        "queue_timeout",
        "too_large",
        "context_length_exceeded",
    }
)
"""Errors that a question without pictures could have met as well."""


class ImageRefusedError(LlmdError):
    """The engine refused a request that had pictures in it."""

    code = "image_refused"
    type = "invalid_request_error"


def _variables(
    _ctx: click.Context, _option: click.Parameter, given: tuple[str, ...]
) -> dict[str, str]:
    """`key=value`, each, as a mapping."""
    for text in given:
        if "=" not in text:
            raise click.BadParameter(f"{text!r} is not key=value")
    return {key.strip(): value for key, _, value in (text.partition("=") for text in given)}


def _complete_template(
    _ctx: click.Context, _param: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    from llmd.cli.templates import list_templates

    return [
        CompletionItem(one.name, help=one.description)
        for one in list_templates()
        if one.name.startswith(incomplete)
    ]


def _answer_options(command: FC) -> FC:
    """What concerns the answer, not the question."""
    for option in (
        click.option("--plain", is_flag=True, help="Do not render Markdown."),
        click.option("-v", "--verbose", is_flag=True, help="Tell tokens and their rate on stderr."),
        click.option(
            "--temperature", type=click.FloatRange(min=0), metavar="T", help="0 is greedy."
        ),
        click.option(
            "--max-tokens", type=click.IntRange(min=1), metavar="N", help="Stop after N tokens."
        ),
    ):
        command = option(command)
    return command


@click.command(cls=Command)
@click.option(
    "-p",
    "--profile",
    shell_complete=complete_profile,
    metavar="PROFILE",
    help="Whom to ask; may be left out when only one profile is ready.",
)
@click.option(
    "-f",
    "--file",
    "files",
    multiple=True,
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="A text to ask about; may be given several times.",
)
@click.option(
    "--image",
    "images",
    multiple=True,
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="A picture to ask about, for models that see; may be given several times.",
)
@click.option("--system", metavar="TEXT", help="The system prompt.")
@click.option(
    "-t",
    "--template",
    "name",
    metavar="NAME",
    shell_complete=_complete_template,
    help="Ask as the template NAME says.",
)
@click.option(
    "--var",
    "variables",
    multiple=True,
    metavar="KEY=VALUE",
    callback=_variables,
    help="The value of a variable of the template.",
)
@click.option("--templates", "listed", is_flag=True, help="List the templates, and ask nothing.")
@_answer_options
@click.argument("words", metavar="[TEXT]...", nargs=-1)
@pass_invocation
def query(
    invocation: Invocation,
    *,
    profile: str | None,
    files: tuple[Path, ...],
    images: tuple[Path, ...],
    system: str | None,
    name: str | None,
    variables: Mapping[str, str],
    listed: bool,
    max_tokens: int | None,
    temperature: float | None,
    verbose: bool,
    plain: bool,
    words: tuple[str, ...],
) -> None:
    """Ask TEXT, and stream the answer. Files and what is piped in are added below TEXT.

    The profile is loaded if need be. On a terminal Markdown is rendered and reasoning is dimmed;
    into a pipe only the answer goes. Ctrl-C cancels the work. A port that wants a key gets
    LLMD_API_KEY.
    """
    if listed:
        _list_templates(invocation)
        return
    if variables and name is None:
        raise click.UsageError("--var is for a --template")
    sources = [read_file(path) for path in files]
    if (piped := read_pipe()) is not None:
        sources.append(piped)
    form = _Form(" ".join(words), sources, system, name, variables)
    question = form.question(images, max_tokens, temperature)
    status = invocation.client().status()
    asked = asking.choose(profile or form.profile, status.profiles)
    address = ports.address_of(asked, status.ports)
    if form.in_pieces:
        _condense(invocation, form, question, asked, address, verbose=verbose, plain=plain)
        return
    request = question.request(asked.name)
    with _images_named(asked.name, question):
        if invocation.as_json:
            invocation.emit(asking.ask_whole(address, request))
            return
        with asking.ask(address, asking.streamed(request)) as response:
            tally = stream(response, asked.name, page_for(plain=plain))
    if verbose:
        note(tally.summary(asked.name))


class _Form:
    """How the parts of a question go together: as a template says, or one below the other."""

    def __init__(
        self,
        words: str,
        sources: Sequence[Source],
        system: str | None,
        name: str | None,
        variables: Mapping[str, str],
    ) -> None:
        """Look the template up.

        Raises:
            TemplateError: There is none of that *name*, or it has mistakes.
        """
        self._system = system
        self._name = name
        self._variables = variables
        self._template: Template | None = None
        if name is not None:
            from llmd.cli.templates import find_template  # brings YAML

            self._template = find_template(name)
        joined = plain_text if self.in_pieces else named_text
        self.text = joined(words, sources)

    @property
    def in_pieces(self) -> bool:
        """Whether a text longer than the context is to be worked through."""
        return self._template is not None and self._template.in_pieces

    @property
    def profile(self) -> str | None:
        """Whom the template would ask."""
        return self._template.profile if self._template is not None else None

    def question(
        self, images: Sequence[Path], max_tokens: int | None, temperature: float | None
    ) -> Question:
        """All of it as one question.

        Raises:
            UsageError: There is nothing to ask.
            TemplateError: A variable is missing or unknown.
            InputError: A picture cannot be used.
        """
        if self._template is not None:
            max_tokens = max_tokens or self._template.max_tokens
            temperature = self._template.temperature if temperature is None else temperature
        elif not self.text:
            raise click.UsageError("there is nothing to ask; give a TEXT, or pipe one in")
        question = Question(
            prompt=self.text,
            system=self._system,
            images=tuple(read_image(path) for path in images),
            max_tokens=max_tokens,
            temperature=temperature,
        )
        return self.about(self.text, question)

    def about(self, text: str, question: Question) -> Question:
        """*question*, asked about *text* instead.

        Raises:
            TemplateError: A variable is missing or unknown.
        """
        if self._name is None or self._template is None:
            return replace(question, prompt=text)
        from llmd.cli.templates import fill

        filled = fill(self._name, self._template, self._variables, text)
        system = filled.system if self._system is None else self._system
        return replace(question, prompt=filled.prompt, system=system)


def _condense(
    invocation: Invocation,
    form: _Form,
    question: Question,
    asked: "wire.Profile",
    address: asking.Address,
    *,
    verbose: bool,
    plain: bool,
) -> None:
    """Work through a text in pieces, and print what came of it."""
    from llmd.cli.condense import PieceAsker, answer_tokens, condense, room_bytes

    if question.images:
        raise click.UsageError("pictures do not go with a template that works in pieces")
    question = replace(question, max_tokens=answer_tokens(question.max_tokens, asked))
    with Progress(asked.name) as progress:
        progress.step("counting tokens")
        room = room_bytes(form.text, form.about(".", question), asked, address)
        asker = PieceAsker(lambda piece: form.about(piece, question), asked.name, address, progress)
        text = condense(form.text, asker, room_bytes=room, tell=progress.step)
    if invocation.as_json:
        invocation.emit(asker.document(text))
    else:
        page = page_for(plain=plain)
        page.answer(text)
        page.end()
    if verbose:
        note(asker.summary(before=form.text, after=text))


@contextmanager
def _images_named(profile: str, question: Question) -> Iterator[None]:
    """Say that there were pictures, when the engine refuses a question that has some."""
    try:
        yield
    except AnsweredError as error:
        if not question.images or error.detail.code in _NOT_ABOUT_IMAGES:
            raise
        raise ImageRefusedError(
            f"{profile} did not take the picture: {error.message}",
            remedy="ask a profile whose model sees; for llama.cpp, with a `projector`",
        ) from error


def _list_templates(invocation: Invocation) -> None:
    from llmd.cli.templates import directories, list_templates

    found = list(list_templates())
    if invocation.as_json:
        invocation.emit({"templates": found})
        return
    palette = Palette.of(sys.stdout)
    rows = []
    for one in found:
        variables = " ".join(
            f"{key}={one.defaults[key]!r}" if key in one.defaults else f"{key}=…"
            for key in one.variables
        )
        told = one.description if one.error is None else one.error
        rows.append(
            [
                Cell(one.name, "bold"),
                Cell(harmless(told), "yellow" if one.error else ""),
                Cell(harmless(variables), "dim"),
            ]
        )
    invocation.say("\n".join(palette.table(rows)) if rows else "there are no templates")
    invocation.say(palette.paint(f"your own go into {directories()[0]}", "dim"))
