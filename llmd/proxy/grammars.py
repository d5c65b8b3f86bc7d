"""Which grammars (GBNF) llama.cpp can use; it writes any other into its log, word for word.

And a few it can use only until the memory is gone: `"a"{3,1}`, or a long text two thousand times.
Its extensions (tokens by name, `%llguidance`) are not among those it is told of here.
"""

import re
from typing import Final

from llmd.proxy.patterns import MOST_REPEATS


MOST_LETTERS: Final = 2**20
_MOST_RULES: Final = 10_000
_DEEPEST: Final = 500
"""Parentheses in parentheses; it is read recursively, on the stack of a thread."""
_MOST_ELEMENTS: Final = 200_000
"""Once every repetition is written out."""

_ESCAPE: Final = r"\\(?:[trn\"\\\[\]]|x[0-9A-Fa-f]{2}|u[0-9A-Fa-f]{4}|U[0-9A-Fa-f]{8})"
_TOKEN: Final = re.compile(
    rf"""(?P<gap>[ \t]+|\#[^\r\n]*)|(?P<line>\r\n?|\n)|(?P<define>::=)|(?P<name>[A-Za-z0-9-]+)
    |(?P<item>"(?:[^"\\]|{_ESCAPE})*"|\[(?:[^\]\\]|{_ESCAPE})+\]|\.)
    |(?P<open>\()|(?P<close>\))|(?P<other>\|)
    |(?P<repeat>[*+?]|\{{\s*(?P<least>\d{{1,9}})\s*(?:,\s*(?P<most>\d{{1,9}})?\s*)?\}})""",
    re.VERBOSE,
)


def fault(grammar: str) -> str:
    """What is wrong with *grammar*, for a person; empty when llama.cpp can use it."""
    if "\0" in grammar or len(grammar) > MOST_LETTERS:
        return "it is too long" if "\0" not in grammar else "it has a letter 0"
    return _Scan(grammar).fault()


class _Scan:
    """One pass over a grammar, rule by rule."""

    def __init__(self, grammar: str) -> None:
        self._text = grammar
        self._at = 0
        self._rules: set[str] = set()
        self._named: set[str] = set()
        self._elements = 0

    def fault(self) -> str:
        while self._skip(lines=True):
            said = self._rule()
            if said:
                line = self._text.count("\n", 0, self._at) + 1
                return f"{said} (line {line})"
        if len(self._rules) > _MOST_RULES or self._elements > _MOST_ELEMENTS:
            return "it is too large"
        if "root" not in self._rules:
            return "it has no rule `root`"
        missing = sorted(self._named - self._rules)
        return f"there is no rule `{missing[0][:80]}`" if missing else ""

    def _skip(self, *, lines: bool) -> bool:
        """Go on to the next token; whether there is one."""
        while (found := _TOKEN.match(self._text, self._at)) is not None:
            if found.lastgroup != "gap" and not (lines and found.lastgroup == "line"):
                return True
            self._at = found.end()
        return self._at < len(self._text)

    def _next(self) -> "re.Match[str] | None":
        found = _TOKEN.match(self._text, self._at)
        if found is not None:
            self._at = found.end()
        return found

    def _rule(self) -> str:
        """Read `name ::= …` up to the end of its last line."""
        name = self._next()
        if name is None or name.lastgroup != "name":
            return "a rule begins with its name"
        self._rules.add(name[0])
        self._skip(lines=False)
        define = self._next()
        if define is None or define.lastgroup != "define":
            return f"`::=` is missing after `{name[0][:80]}`"
        return self._alternatives()

    def _alternatives(self) -> str:
        depth, lines = 0, True
        size = 0  # of the element before; 0 where there is nothing to repeat
        while self._skip(lines=lines or depth > 0):
            found = self._next()
            kind = None if found is None else found.lastgroup
            lines = False
            if found is None or kind == "define":
                return "something is no GBNF"
            if kind == "line":
                return ""
            if kind == "open":
                depth, size = depth + 1, 0
                if depth > _DEEPEST:
                    return "it is nested too deeply"
            elif kind == "close":
                depth, size = depth - 1, 1
                if depth < 0:
                    return "`)` without `(`"
            elif kind == "other":
                size, lines = 0, True
            elif kind == "repeat":
                said = self._repeat(found, size)
                if said:
                    return said
                size = 1
            else:
                if kind == "name":
                    self._named.add(found[0])
                size = 0 if found[0] == '""' else 1 if kind == "name" else len(found[0])
                self._elements += size
        return "`)` is missing" if depth else ""

    def _repeat(self, found: "re.Match[str]", size: int) -> str:
        if not size:
            return f"there is nothing to repeat before `{found[0]}`"
        if found["least"] is None:
            return ""
        least = int(found["least"])
        most = int(found["most"]) if found["most"] else least
        if least > MOST_REPEATS or (found["most"] and most < least):
            return f"`{found[0]}` repeats too often, or less often than at least"
        self._elements += size * least + min(most, MOST_REPEATS)
        return ""
