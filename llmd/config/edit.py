"""Add a profile to the configuration file without touching a byte of the rest.

The new lines are put into the text where they belong. A library that reads the file and writes it
again would keep comments, but not all spacing, quoting and alignment; and what it reads as YAML 1.1
(`on`, `1:30`) is not what llmd reads. The outcome is checked before it replaces anything.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from llmd.config.load import load_config, parse_config
from llmd.config.models import Config
from llmd.config.replace import PRIVATE, replace_file
from llmd.config.values import NAME_PATTERN
from llmd.errors import ConfigError


_BOM: Final = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class Edit:
    """A configuration file with one profile more, not yet written.

    Attributes:
        path: The file itself, links followed.
        before: What was read; None when there is no file.
        after: What is to be written.
        config: What *after* means.
        added: The new lines, to be shown.
    """

    path: Path
    before: bytes | None
    after: bytes
    config: Config
    added: str

    def write(self) -> None:
        """Replace the file in one step; it keeps its mode.

        Raises:
            ConfigError: It changed meanwhile, or cannot be written. It is as it was.
        """
        try:
            # A new one is private: it may come to hold keys.
            mode = PRIVATE if self.before is None else self.path.stat().st_mode & 0o777
            replace_file(self.path, self.after, lasting=True, mode=mode, check=self._check)
        except OSError as error:
            raise ConfigError(
                f"cannot write {self.path}: {error.strerror}",
                remedy=f"add this to it by hand:\n{self.added}",
            ) from error

    def _check(self) -> None:
        if _read(self.path) != self.before:
            raise ConfigError(f"{self.path} has changed meanwhile", remedy="try again")


def with_profile(path: Path, name: str, fields: Mapping[str, Any]) -> Edit:
    """The file at *path* with profile *name* after the others; a new file when there is none.

    Args:
        path: The configuration.
        name: Of the profile.
        fields: Its keys and values: plain text and numbers.

    Raises:
        ConfigError: The name is taken or none, the file cannot be used as it is, or would not be
            one with this profile in it.
    """
    path = path.resolve()
    if not re.fullmatch(NAME_PATTERN, name):
        raise ConfigError(
            f"{name!r} is no name for a profile",
            remedy="use letters, digits, dots, dashes and underscores, 64 at most",
        )
    if not path.exists():
        before, text, added = None, "", _block(name, fields, indent=2)
        after, bom = f"profiles:\n{added}", b""
    else:
        _refuse_taken(load_config(path), name, path)
        before = path.read_bytes()
        bom = _BOM if before.startswith(_BOM) else b""
        text = before.removeprefix(_BOM).decode()
        after, added = _inserted(text, name, fields)
    try:
        config = parse_config(after, source=str(path), directory=path.parent)
    except ConfigError as error:
        raise ConfigError(
            f"{path} would not be valid with {name} in it: {error.message}",
            remedy="choose other options, or add it by hand",
        ) from error
    _check_rest(text, config, name, path)
    return Edit(path, before, bom + after.encode(), config, added)


def _read(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None


def _refuse_taken(config: Config, name: str, path: Path) -> None:
    for other, profile in config.profiles.items():
        if name == other or name in profile.aliases:
            what = "a profile" if name == other else f"an alias of {other}"
            raise ConfigError(f"{name} is {what} in {path} already", remedy="choose another name")


def _check_rest(text: str, config: Config, name: str, path: Path) -> None:
    """Make sure that nothing else has come to mean something else."""
    rest = {key: profile for key, profile in config.profiles.items() if key != name}
    same = not rest
    if text:
        old = parse_config(text, source=str(path), directory=path.parent)
        same = config.model_copy(update={"profiles": rest}) == old
    if not same or name not in config.profiles:
        raise ConfigError(
            f"llmd finds no place for {name} in {path} without changing the rest",
            remedy="add it by hand",
        )


def _inserted(text: str, name: str, fields: Mapping[str, Any]) -> tuple[str, str]:
    """*text* with the profile, and the new part of it by itself."""
    node = _profiles_of(yaml.compose(text, Loader=yaml.SafeLoader))
    if node is None:
        raise ConfigError("`profiles` is written in a way llmd cannot add to", remedy="add by hand")
    if node.flow_style:
        return _into_braces(text, node, name, fields)
    lines = text.splitlines(keepends=True)
    ending = "\r\n" if lines and lines[0].endswith("\r\n") else "\n"
    indent = node.value[0][0].start_mark.column
    first, last = node.value[0][0].start_mark.line, _last_line(node)
    while last + 1 < len(lines) and _is_inner_comment(lines[last + 1], indent):
        last += 1
    added = _block(name, fields, indent=indent)
    if any(not line.strip() for line in lines[first:last]):
        added = f"\n{added}"  # as the others are set apart
    added = added.replace("\n", ending)
    if not lines[last].endswith("\n"):
        lines[last] += ending
    after = "".join([*lines[: last + 1], added, *lines[last + 1 :]])
    return after, added.strip("\r\n") + "\n"


def _profiles_of(root: yaml.Node | None) -> yaml.MappingNode | None:
    for key, value in root.value if isinstance(root, yaml.MappingNode) else ():
        if key.value == "profiles" and isinstance(value, yaml.MappingNode) and value.value:
            return value
    return None


def _last_line(node: yaml.Node) -> int:
    """The line that *node* ends on. A block's own end mark lies behind comments that follow."""
    block = isinstance(node, yaml.CollectionNode) and not node.flow_style
    if block and node.value:
        last = node.value[-1]
        return max(map(_last_line, last)) if isinstance(last, tuple) else _last_line(last)
    start, end = node.start_mark, node.end_mark
    behind = end.column == 0 and end.line > start.line  # of literal text, marked on the next line
    return end.line - behind


def _is_inner_comment(line: str, indent: int) -> bool:
    """Whether *line* comments on what is inside the profile above it."""
    text = line.lstrip(" ")
    return text.startswith("#") and len(line) - len(text) > indent


def _into_braces(
    text: str, node: yaml.MappingNode, name: str, fields: Mapping[str, Any]
) -> tuple[str, str]:
    closing = node.end_mark.index - 1
    behind = text[node.value[-1][1].end_mark.index : closing]
    comma = "" if "," in re.sub(r"#.*", "", behind) else ","
    inner = ", ".join(f"{key}: {_scalar(value)}" for key, value in fields.items())
    added = f"{name}: {{{inner}}}"
    return f"{text[:closing]}{comma} {added}{text[closing:]}", f"{added}\n"


def _block(name: str, fields: Mapping[str, Any], *, indent: int) -> str:
    pad = " " * max(1, indent)
    lines = [f"{pad if indent else ''}{_scalar(name)}:"]
    lines += [f"{pad}{pad}{key}: {_scalar(value)}" for key, value in fields.items()]
    return "\n".join(lines) + "\n"


def _scalar(value: Any) -> str:
    """*value* on one line, quoted where it must be."""
    text = yaml.safe_dump(value, default_flow_style=True, width=2**20, allow_unicode=True)
    return text.removesuffix("\n").removesuffix("\n...")
