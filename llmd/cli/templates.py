"""Prompt templates: YAML files that are data, and nothing else.

A variable is replaced by its value once; what a value contains is never looked at again.
"""

import difflib
import re
from collections.abc import Iterable, Iterator, Mapping
from importlib import resources
from pathlib import Path
from typing import Any, Final

import msgspec

from llmd.config.paths import config_dir
from llmd.config.yamlfile import FILE_MAX_BYTES, Document, Problem, read_yaml
from llmd.errors import LlmdError


INPUT: Final = "input"
"""The variable that stands for what is asked about."""
PACKAGED: Final = "shipped_templates"
"""Their folder beside this file, in an installed package (pyproject.toml)."""
_VARIABLE: Final = re.compile(r"\{\{[ \t]*([A-Za-z_][A-Za-z0-9_-]*)[ \t]*\}\}")
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


class TemplateError(LlmdError):
    """A template is not there, is not right, or is not used right."""

    code = "template_invalid"
    type = "invalid_request_error"


class Template(msgspec.Struct, frozen=True, kw_only=True):
    """What a template's file says."""

    prompt: str
    description: str = ""
    system: str | None = None
    defaults: dict[str, str] = {}
    """Values of variables that need not be given."""
    max_tokens: int | None = None
    temperature: float | None = None
    profile: str | None = None
    """Whom to ask when `-p` does not say."""
    in_pieces: bool = False
    """An input longer than the context is worked through in pieces (`condense`)."""

    @property
    def variables(self) -> tuple[str, ...]:
        """The variables it uses, in order, without `input`."""
        found = _VARIABLE.findall(f"{self.system or ''}\n{self.prompt}")
        return tuple(dict.fromkeys(name for name in found if name != INPUT))


class Filled(msgspec.Struct, frozen=True, kw_only=True):
    """A template with its variables replaced."""

    prompt: str
    system: str | None


class Listed(msgspec.Struct, frozen=True, kw_only=True):
    """A template as `query --templates` shows it."""

    name: str
    path: str
    description: str = ""
    variables: tuple[str, ...] = ()
    defaults: dict[str, str] = {}
    profile: str | None = None
    error: str | None = None
    """Why it cannot be used."""


def directories() -> tuple[Path, ...]:
    """Where templates are looked for: the user's own, then those that llmd brings."""
    packaged = Path(str(resources.files("llmd.cli") / PACKAGED))
    source = Path(__file__).parents[2] / "etc" / "templates"
    return config_dir() / "templates", packaged if packaged.is_dir() else source


def find_template(name: str) -> Template:
    """The template called *name*.

    Raises:
        TemplateError: There is none, or it has mistakes.
    """
    files = _files()
    if name not in files:
        nearest = difflib.get_close_matches(name, files, n=1)
        hint = f"did you mean {nearest[0]}? " if nearest else ""
        known = ", ".join(files) or "there are none"
        raise TemplateError(
            f"no template is called {name[:80]!r}", remedy=f"{hint}templates: {known}"
        )
    return _load(files[name])


def list_templates() -> Iterator[Listed]:
    """All templates by name; one with mistakes says so."""
    for name, path in _files().items():
        try:
            template = _load(path)
        except TemplateError as error:
            yield Listed(name=name, path=str(path), error=error.message)
        else:
            yield Listed(
                name=name,
                path=str(path),
                description=template.description,
                variables=template.variables,
                defaults=template.defaults,
                profile=template.profile,
            )


def fill(name: str, template: Template, values: Mapping[str, str], text: str) -> Filled:
    """*template* with *values*, and *text* where it says `{{input}}`, else below its prompt.

    Raises:
        TemplateError: A value is missing, or is of no variable.
    """
    known = template.variables
    for given in values:
        if given not in known:
            raise TemplateError(
                f"the template {name} has no variable {given[:80]!r}", remedy=_nearest(given, known)
            )
    missing = [key for key in known if key not in values and key not in template.defaults]
    if missing:
        options = " ".join(f"--var {key}=…" for key in missing)
        raise TemplateError(f"the template {name} wants a value more", remedy=f"add {options}")
    texts = {**template.defaults, **values, INPUT: text}

    def replaced(source: str) -> str:
        return _VARIABLE.sub(lambda match: texts[match[1]], source)

    prompt = replaced(template.prompt).strip()
    uses_input = INPUT in _VARIABLE.findall(f"{template.system or ''}\n{template.prompt}")
    if uses_input and not text:
        raise TemplateError(
            f"the template {name} wants something to work on",
            remedy="give a TEXT, name a file with -f, or pipe one in",
        )
    if text and not uses_input:
        prompt = f"{prompt}\n\n{text}"
    system = None if template.system is None else replaced(template.system).strip()
    return Filled(prompt=prompt, system=system)


def _nearest(given: str, known: Iterable[str]) -> str:
    known = tuple(known)
    nearest = difflib.get_close_matches(given, known, n=1)
    if nearest:
        return f"did you mean {nearest[0]}?"
    return f"it has: {', '.join(known)}" if known else "it has none"


def _files() -> dict[str, Path]:
    """Template name to file; the user's hide those of the same name that llmd brings."""
    found: dict[str, Path] = {}
    for directory in reversed(directories()):
        try:
            paths = sorted(directory.glob("*.yaml"))
        except OSError:
            continue
        found |= {path.stem: path for path in paths if _NAME.fullmatch(path.stem)}
    return dict(sorted(found.items()))


def _load(path: Path) -> Template:
    try:
        with path.open("rb") as file:
            raw = file.read(FILE_MAX_BYTES + 1)
        text = raw.decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "it is not UTF-8 text"
        raise TemplateError(f"{path} cannot be read: {why}", remedy="look at the file") from error
    if len(raw) > FILE_MAX_BYTES:
        raise TemplateError(f"{path} is too large for a template", remedy="look at the file")
    document = read_yaml(text, as_written=[("defaults",), *((key,) for key in _TEXTS)])
    template = None if document.problems else _build(document)
    if template is None:
        first = min(document.problems)
        raise TemplateError(first.describe(str(path)), remedy="correct the file")
    return template


_FIELDS: Final = Template.__struct_fields__
_TEXTS: Final = ("prompt", "system", "description", "profile")


def _build(document: Document) -> Template | None:
    """The template in *document*; what is wrong is added to its problems."""
    data: Any = document.data
    if not isinstance(data, dict):
        document.problems.append(Problem(0, 0, "", "is no mapping with the key `prompt`"))
        return None
    for key in data:
        if key not in _FIELDS:
            nearest = difflib.get_close_matches(str(key), _FIELDS, n=1)
            hint = f"did you mean {nearest[0]}?" if nearest else f"keys are {', '.join(_FIELDS)}"
            document.report((key,), f"is no key of a template; {hint}", key=True)
    if document.problems:
        return None
    try:
        template = msgspec.convert(data, Template)
    except msgspec.ValidationError as error:
        what, _, where = str(error).partition(" - at `$.")
        document.report((where.rstrip("`"),) if where else (), what)
        return None
    for key in template.defaults:
        if key not in template.variables:
            document.report(
                ("defaults", key), f"is used nowhere; {_nearest(key, template.variables)}", key=True
            )
    if template.max_tokens is not None and template.max_tokens < 1:
        document.report(("max_tokens",), "must be at least 1")
    if template.temperature is not None and template.temperature < 0:
        document.report(("temperature",), "must not be negative")
    return None if document.problems else template
