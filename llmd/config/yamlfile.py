"""YAML with a place for everything: plain data, and the line and column each part came from.

Reads what YAML 1.2 calls the core schema, so `on`, `no` and `1:30` are text, as people expect.
Bounded in every direction: size, depth, number of values after aliases are followed.
"""

import re
from collections.abc import Collection, Hashable, Iterator
from typing import Any, Final

import yaml
from msgspec import Struct, field


FILE_MAX_BYTES: Final = 256 * 1024
"""A configuration is a few KiB; what is larger is some other file."""

VALUES_MAX: Final = 20_000
"""Values after following aliases: stops the billion laughs."""

DEPTH_MAX: Final = 40

Path = tuple[str | int, ...]
"""Keys and list positions from the top, such as `("profiles", "code", "port")`."""

_TAGS: Final = "tag:yaml.org,2002:"
_STRING: Final = f"{_TAGS}str"
_MERGE: Final = f"{_TAGS}merge"
_INT: Final = re.compile(r"[-+]?[0-9]{1,40}|0o[0-7]{1,40}|0x[0-9a-fA-F]{1,40}")
_FLOAT: Final = re.compile(
    r"[-+]?(\.[0-9]{1,40}|[0-9]{1,40}(\.[0-9]{0,40})?)([eE][-+]?[0-9]{1,3})?"
)
_CONSTANTS: Final[dict[str, Any]] = {
    "": None, "~": None, "null": None, "Null": None, "NULL": None,
    "true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False,
}  # fmt: skip


class Problem(Struct, frozen=True, order=True):
    """One thing that is wrong, and where.

    Attributes:
        line: Counted from 1; 0 when it concerns the file as a whole.
        column: Counted from 1.
        path: The key or value at fault, as people write it: `profiles.code.port`.
        text: What is wrong.
    """

    line: int
    column: int
    path: str
    text: str

    def describe(self, source: str) -> str:
        """One line that editors and terminals make clickable."""
        place = f"{source}:{self.line}:{self.column}" if self.line else source
        return f"{place}: {self.path}: {self.text}" if self.path else f"{place}: {self.text}"


class Document(Struct):
    """A file that was read: data, places, and what could not be understood."""

    data: Any = None
    keys: dict[Path, tuple[int, int]] = field(default_factory=dict)
    values: dict[Path, tuple[int, int]] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    def report(self, path: Path, text: str, *, key: bool = False) -> None:
        """Note that *path* is wrong, at its value or (*key*) at its key."""
        line, column = self.place(path, key=key)
        self.problems.append(Problem(line, column, dotted(path), text))

    def place(self, path: Path, *, key: bool = False) -> tuple[int, int]:
        """Line and column of *path*, or of the nearest thing around it that was written."""
        for length in range(len(path), -1, -1):
            places = (self.keys, self.values) if key else (self.values, self.keys)
            for known in places:
                if path[:length] in known:
                    return known[path[:length]]
            key = True  # around a thing that is missing, its parent's name is the place to look
        return (1, 1)


def dotted(path: Path) -> str:
    """*path* as people write it: `profiles.code.aliases[0]`."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            shown = part if re.fullmatch(r"[\w:-]{1,64}", part) else repr(part)[:66]
            text += f".{shown}" if text else shown
    return text


def read_yaml(text: str, *, as_written: Collection[Path] = ()) -> Document:
    """Parse *text*. Never raises; what is wrong is in `problems`.

    Args:
        text: The whole file.
        as_written: Paths (`*` is any key) below which scalars stay text exactly as written, so
            that `args: [--top-p, 0.90]` does not become 0.9.
    """
    document = Document()
    try:
        loader = _Loader(text)
        try:
            node = loader.get_single_node()
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line, column = (mark.line + 1, mark.column + 1) if mark else (0, 0)
        document.problems.append(Problem(line, column, "", _explain(error)))
        return document
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        column = error.position - text.rfind("\n", 0, error.position)
        text = f"the character U+{error.character:04X} is not allowed in YAML; remove it"
        document.problems.append(Problem(line, column, "", text))
        return document
    except ValueError as error:  # a number or an escape that PyYAML itself trips over
        document.problems.append(Problem(0, 0, "", f"is not valid YAML: {error}"))
        return document
    if node is not None:
        builder = _Builder(document, as_written)
        try:
            document.data = builder.build(node, (), plain=False)
        except _StopBuildingError:
            document.data = None
    return document


def _explain(error: yaml.MarkedYAMLError) -> str:
    """The parser's complaint, with the cause that it usually has."""
    problem = error.problem or "cannot be understood"
    hints = {
        "cannot start any token": "indent with spaces, not tabs; quote text that begins with @",
        "mapping values are not allowed": "quote text that contains a colon; check the indentation",
        "found unexpected end of stream": "a quote or bracket is not closed",
        "expected <block end>": "check the indentation of this line and the one above",
        "expected ',' or": "a bracket or brace is not closed, or a comma is missing",
        "found undefined alias": "name it with & before it is used",
        "expected the node content": "quote text that begins with a colon or comma, such as '::1'",
        "found unknown escape": "inside double quotes a backslash is special; use single quotes",
        "but found another document": "a configuration is one document; remove the `---`",
        "could not find expected ':'": "a key needs a colon and a space after it",
    }
    hint = next((hint for part, hint in hints.items() if part in f"{problem} {error.context}"), "")
    return f"is not valid YAML: {problem}" + (f" ({hint})" if hint else "")


class _Loader(yaml.reader.Reader, yaml.scanner.Scanner, yaml.parser.Parser, yaml.composer.Composer):
    """PyYAML down to the node graph; resolving and constructing are done here."""

    def __init__(self, text: str) -> None:
        yaml.reader.Reader.__init__(self, text)
        yaml.scanner.Scanner.__init__(self)
        yaml.parser.Parser.__init__(self)
        yaml.composer.Composer.__init__(self)
        self._depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        self._depth += 1
        if self._depth > DEPTH_MAX:
            mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
            raise yaml.MarkedYAMLError(problem="nested too deeply", problem_mark=mark)
        try:
            return super().compose_node(parent, index)
        finally:
            self._depth -= 1

    def resolve(self, kind: type[Any], value: Any, implicit: Any) -> str:
        """The tag of a node that has none: `str` for what is quoted, else by its looks, later."""
        if kind is yaml.ScalarNode:
            plain = implicit[0]
            return (_MERGE if value == "<<" else "") if plain else _STRING
        return f"{_TAGS}{'seq' if kind is yaml.SequenceNode else 'map'}"

    def descend_resolver(self, _node: Any, _index: Any) -> None:
        """Path resolvers are a PyYAML feature that nothing here uses."""

    def ascend_resolver(self) -> None:
        """See `descend_resolver`."""

    def dispose(self) -> None:
        """Break the parser's reference cycles."""
        yaml.parser.Parser.dispose(self)


class _StopBuildingError(Exception):
    """A limit was passed; the problem is noted."""


class _Builder:
    """Turns nodes into plain data, noting places."""

    def __init__(self, document: Document, as_written: Collection[Path]) -> None:
        self._document = document
        self._as_written = as_written
        self._count = 0
        self._open: set[int] = set()

    def build(self, node: yaml.Node, path: Path, *, plain: bool) -> Any:
        """The value of *node*; *plain* keeps scalars as they were written."""
        self._count += 1
        if self._count > VALUES_MAX or len(path) > DEPTH_MAX or id(node) in self._open:
            what = (
                "an alias contains itself"
                if id(node) in self._open
                else "aliases make it too large"
            )
            self._complain(node, path, what)
            raise _StopBuildingError
        self._document.values[path] = _mark(node)
        self._open.add(id(node))
        try:
            if isinstance(node, yaml.MappingNode) and node.tag == f"{_TAGS}map":
                return self._mapping(node, path, plain=plain)
            if isinstance(node, yaml.SequenceNode) and node.tag == f"{_TAGS}seq":
                return [
                    self.build(item, (*path, index), plain=plain)
                    for index, item in enumerate(node.value)
                ]
            if isinstance(node, yaml.ScalarNode):
                return self._scalar(node, path, plain=plain)
        finally:
            self._open.discard(id(node))
        self._refuse_tag(node, path)
        return None

    def _mapping(self, node: yaml.MappingNode, path: Path, *, plain: bool) -> dict[str, Any]:
        result: dict[str, Any] = {}
        for key_node, value_node, merged in self._pairs(node, path):
            key = self._key(key_node, path)
            if key is None:
                continue
            here = (*path, key)
            if key in result:
                if not merged:
                    line = self._document.keys[here][0]
                    self._complain(key_node, here, f"is there twice; first on line {line}")
                continue
            self._document.keys[here] = _mark(key_node)
            result[key] = self.build(value_node, here, plain=plain or self._is_text(here))
        return result

    def _is_text(self, path: Path) -> bool:
        """Whether scalars at and below *path* are kept as they were written."""
        return any(
            len(pattern) == len(path)
            and all(want in ("*", part) for want, part in zip(pattern, path, strict=True))
            for pattern in self._as_written
        )

    def _pairs(
        self, node: yaml.MappingNode, path: Path
    ) -> Iterator[tuple[yaml.Node, yaml.Node, bool]]:
        """Keys and values of *node*: its own first, then what `<<` brings, nearest first."""
        sources: list[yaml.Node] = []
        for key, value in node.value:
            if key.tag == _MERGE:
                sources += value.value if isinstance(value, yaml.SequenceNode) else [value]
            else:
                yield key, value, False
        for source in sources:
            self._count += 1
            if self._count > VALUES_MAX or id(source) in self._open:
                self._complain(source, path, "`<<` merges a mapping into itself")
                raise _StopBuildingError
            if not isinstance(source, yaml.MappingNode):
                self._complain(source, path, "`<<` merges mappings, and this is none")
                continue
            self._open.add(id(source))
            for key, value, _ in self._pairs(source, path):
                yield key, value, True
            self._open.discard(id(source))

    def _key(self, node: yaml.Node, path: Path) -> str | None:
        """The key as text: `8081:` and `on:` are names like any other."""
        if not isinstance(node, yaml.ScalarNode) or node.tag not in {"", _STRING}:
            self._complain(node, path, "a key must be plain text")
            return None
        return str(node.value)

    def _scalar(self, node: yaml.ScalarNode, path: Path, *, plain: bool) -> Any:
        text: str = node.value
        if node.tag in {_STRING, _MERGE}:
            return text
        if node.tag:
            self._refuse_tag(node, path)
            return None
        value = _plain_value(text)
        return text if plain and value is not None else value

    def _refuse_tag(self, node: yaml.Node, path: Path) -> None:
        tag = node.tag.replace(_TAGS, "!!")
        self._complain(node, path, f"the tag {tag} is not supported; remove it")

    def _complain(self, node: yaml.Node, path: Path, text: str) -> None:
        self._document.problems.append(Problem(*_mark(node), dotted(path), text))


def _mark(node: yaml.Node) -> tuple[int, int]:
    return node.start_mark.line + 1, node.start_mark.column + 1


def _plain_value(text: str) -> Hashable:
    """An unquoted scalar by its looks (YAML 1.2 core schema); infinities and NaN stay text."""
    if text in _CONSTANTS:
        return _CONSTANTS[text]  # type: ignore[no-any-return]
    if _INT.fullmatch(text):
        return int(text, 0) if text[:2] in {"0o", "0x"} else int(text)
    if _FLOAT.fullmatch(text):
        return float(text)
    return text
