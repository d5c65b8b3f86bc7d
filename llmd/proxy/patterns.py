"""Which regular expressions llama.cpp turns into a grammar, found by trying them on it.

It reads a `pattern` only from `^` to `$`, with few escapes, and no look-around or named group. Any
other it writes into its log and makes nothing of; some it answers with an error, or with a grammar
that grows until the memory is used up.
"""

import re
from typing import Final


MOST_REPEATS: Final = 2000
"""Of one element, as a lower bound; a grammar with more is refused."""

_DEEPEST: Final = 64
"""Groups in groups."""

_BRACES: Final = re.compile(r"\{(?!,?\})(\d*)(,?)(\d*)\}")
_HEX: Final = r"x[0-9A-Fa-f]{2}|u[0-9A-Fa-f]{4}"
_ESCAPE: Final = re.compile(rf"[\"$()*+\-.?\[\\\]^nrt{{|}}]|{_HEX}")
_ESCAPE_IN_CLASS: Final = re.compile(rf"[\"\-\[\\\]nrt]|{_HEX}")

_NOTHING: Final = "nothing"
_ATOM: Final = "atom"
_WIDE: Final = "a letter beyond ASCII"
_HOLLOW: Final = "a group that may match nothing by itself"
_OPTIONAL: Final = "* or ?"
_REPEATED: Final = "+ or {}"


def usable(pattern: str) -> bool:
    """Whether llama.cpp makes a grammar of *pattern*."""
    anchored = pattern.startswith("^") and pattern.endswith("$") and len(pattern) > 1
    return anchored and "\0" not in pattern and _scan(pattern[1:-1])


def _scan(text: str) -> bool:
    last = _NOTHING
    groups: list[bool] = []
    """For each open group, whether one of its alternatives was empty."""
    empty = True  # the alternative that is being read
    at = 0
    while at < len(text):
        letter = text[at]
        braces = _BRACES.match(text, at) if letter == "{" else None
        if letter in "*+?" or braces is not None:
            if not _may_repeat(last, letter, braces):
                return False
            last = _OPTIONAL if letter in "*?" else _REPEATED
            at += 1 if braces is None else len(braces[0])
            continue
        if letter in "^$]{}":
            return False
        if letter == "(":
            groups.append(False)
            last, empty = _NOTHING, True
            plain = not text.startswith("?", at + 1)
            if len(groups) > _DEEPEST or not (plain or text.startswith("?:", at + 1)):
                return False
            at += 1 if plain else 3
            continue
        if letter == ")":
            if not groups:
                return False
            last = _HOLLOW if groups.pop() or empty else _ATOM
            empty = False
        elif letter == "|":
            if groups:
                groups[-1] |= empty
            last, empty = _NOTHING, True
        elif letter == "[":
            at = _end_of_class(text, at)
            if at < 0:
                return False
            last, empty = _ATOM, False
        elif letter == "\\":
            escape = _ESCAPE.match(text, at + 1)
            if escape is None:
                return False
            at = escape.end() - 1
            last, empty = _ATOM, False
        else:
            last, empty = _ATOM if letter.isascii() else _WIDE, False
        at += 1
    return not groups


def _may_repeat(last: str, letter: str, braces: "re.Match[str] | None") -> bool:
    if last in (_NOTHING, _WIDE, _HOLLOW) or (last == _OPTIONAL and letter in "*+"):
        return False
    if braces is None:
        return True
    least = int(braces[1][:9] or 0)
    most = int(braces[3][:9] or least)
    return least <= min(most, MOST_REPEATS)


def _end_of_class(text: str, start: int) -> int:
    """Where the `]` of the class that begins at *start* is; -1 when it cannot be read."""
    at = start + 1
    while at < len(text):
        if text[at] == "]":
            return at
        if text[at] == "\\":
            escape = _ESCAPE_IN_CLASS.match(text, at + 1)
            if escape is None:
                return -1
            at = escape.end() - 1
        at += 1
    return -1
